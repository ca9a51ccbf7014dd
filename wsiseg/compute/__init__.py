"""Run block functions: serial, on threads, processes, a dask cluster; one step or a pipeline."""

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
