"""Run block functions serially, on threads, processes or a dask cluster; one step or several."""

from wsiseg.compute.executors import SerialExecutor, is_alive, open_executor
from wsiseg.compute.flow import Progress, Spent, Step, in_flight, run, run_steps

__all__ = [
    "Progress",
    "SerialExecutor",
    "Spent",
    "Step",
    "in_flight",
    "is_alive",
    "open_executor",
    "run",
    "run_steps",
]
