"""Machines from a job queue."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from wsiseg.config.model import Settings

__all__ = ["ClusterConfig"]


class ClusterConfig(Settings):
    """Machines that dask gets from a job queue: what `--executor FILE.yaml` reads."""

    executor: Literal["slurm"] = "slurm"
    """Who is asked for machines."""
    minimum_jobs: int = Field(default=0, ge=0)
    """Jobs that are kept even while there is little to do."""
    maximum_jobs: int = Field(default=10, ge=1)
    """Most jobs at a time; as many are asked for as the blocks in flight keep busy."""
    wait_s: float = Field(default=3600.0, gt=0)
    """Seconds to wait for the first worker before the run gives up."""
    job: dict[str, Any] = Field(
        default={"cores": 8, "processes": 8, "memory": "32GB", "walltime": "08:00:00"}
    )
    """One job, in the words of `dask_jobqueue.SLURMCluster`: queue, account, cores, processes
    (workers), memory, walltime, job_extra_directives, worker_extra_args, ..."""
