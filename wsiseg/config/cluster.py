"""Workers from a job queue."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from wsiseg.config.model import Settings

__all__ = ["ClusterConfig"]


class ClusterConfig(Settings):
    """Dask workers as jobs of a queue, for `--executor FILE.yaml`."""

    executor: Literal["slurm"] = "slurm"
    """The job queue."""
    minimum_jobs: int = Field(default=0, ge=0)
    """Jobs that are kept even while there is little to do."""
    maximum_jobs: int = Field(default=10, ge=1)
    """Maximum number of jobs; only as many are requested as the blocks in flight can keep busy."""
    wait_s: float = Field(default=3600.0, gt=0)
    """Seconds to wait for the first worker before the run gives up."""
    job: dict[str, Any] = Field(
        default={"cores": 8, "processes": 8, "memory": "32GB", "walltime": "08:00:00"}
    )
    """One job, with the parameters of `dask_jobqueue.SLURMCluster`: queue, account, cores,
    processes (workers), memory, walltime, job_extra_directives, worker_extra_args, ..."""
