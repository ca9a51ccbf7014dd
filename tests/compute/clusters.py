"""Clusters of tests, and what their workers do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 120
"""Seconds until something counts as stuck: a busy machine takes long."""


def square(item: int) -> int:
    return item * item


def name_worker(folder: str, step: str, block: int) -> None:
    from distributed import get_worker

    Path(folder, f"{step}{block}").write_text(str(get_worker().name))


@contextmanager
def cpu_and_gpu() -> Iterator[Any]:
    """A cluster with two workers, of which one has a GPU, or says so."""
    distributed = pytest.importorskip("distributed")
    workers = {
        name: {
            "cls": distributed.Worker,
            "options": {"nthreads": 2, "resources": {"GPU": 1} if name == "gpu" else {}},
        }
        for name in ("cpu", "gpu")
    }
    quiet = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
    scheduler = {"cls": distributed.Scheduler, "options": {"host": "127.0.0.1", **quiet}}
    with distributed.SpecCluster(scheduler=scheduler, workers=workers) as cluster:
        yield cluster
