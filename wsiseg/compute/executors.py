"""Executors by name."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from contextlib import contextmanager
from typing import Any, TypeVar

from wsiseg.compute.flow import Step
from wsiseg.compute.messages import Levels, listening, send_to
from wsiseg.errors import ConfigError

__all__ = ["SerialExecutor", "is_alive", "open_executor"]

_R = TypeVar("_R")


class SerialExecutor(Executor):
    """Runs each call at once, in the calling thread."""

    capacity = 1

    def submit(self, fn: Callable[..., _R], /, *args: object, **kwargs: object) -> Future[_R]:
        """Run `fn` now; the future is done when it is returned."""
        future: Future[_R] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # the future carries it, as in every executor
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            future.set_exception(error)
        return future


class ThreadExecutor(ThreadPoolExecutor):
    """Threads, and some beside them for blocks that wait for accelerators, so that those go on.

    The slower of reading and model then bounds the time, not their sum.
    """

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self.capacity = 2 * workers
        """See `in_flight`."""
        self._beside: ThreadPoolExecutor | None = None
        self._opening, self._ended = threading.Lock(), False

    def submit_block(self, step: Step, block: int) -> Future[Any]:
        """Have ``step.work(block)`` done, beside the others' work if it waits."""
        if not step.waits:
            return self.submit(step.task(block))
        with self._opening:
            if self._ended:
                raise RuntimeError("the executor was shut down")
            if self._beside is None:
                self._beside = ThreadPoolExecutor(step.waits, "beside")
                self.capacity += 2 * step.waits
        return self._beside.submit(step.task(block))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End both."""
        with self._opening:
            self._ended = True
        super().shutdown(wait, cancel_futures=cancel_futures)
        if self._beside is not None:
            self._beside.shutdown(wait, cancel_futures=cancel_futures)


@contextmanager
def open_executor(kind: str = "serial", workers: int | None = None) -> Iterator[Executor]:
    """An executor by name.

    Parameters
    ----------
    kind
        `serial`, `threads`, `processes`, `dask` (workers on this machine), the address of a dask
        scheduler (``tcp://HOST:PORT``), or a YAML file of `ClusterConfig` (SLURM).
    workers
        How many; the number of cores if not given. A cluster knows its own.

    Raises
    ------
    ConfigError
        If the name is unknown, or the YAML file is wrong.
    ClusterError
        If no scheduler answers, or no worker comes.
    MissingDependencyError
        If dask is asked for and not installed.
    """
    count = workers or os.cpu_count() or 1
    if kind == "serial":
        yield SerialExecutor()
    elif kind == "threads":
        with ThreadExecutor(count) as threads:
            yield threads
    elif kind == "processes":
        # Never fork: OpenSlide handles, numba and torch threads do not survive it.
        context = multiprocessing.get_context("spawn")
        with (
            listening() as address,
            ProcessPoolExecutor(
                count, context, initializer=send_to, initargs=(address, Levels.here())
            ) as processes,
        ):
            yield processes
    elif kind == "dask" or "://" in kind or kind.endswith((".yaml", ".yml")):
        from wsiseg.compute.cluster import open_cluster

        with open_cluster(kind, count) as cluster:
            yield cluster
    else:
        raise ConfigError(
            f"executor {kind!r} is unknown; use serial, threads, processes, dask, "
            f"tcp://HOST:PORT or a cluster's .yaml file"
        )


def is_alive(executor: Executor) -> bool:
    """Whether the executor still takes work; answers within some seconds.

    A process pool does not once a worker has died, a cluster not once its scheduler has.
    """
    known = getattr(executor, "is_alive", None)
    if known is not None:
        return bool(known())
    try:
        executor.submit(int).cancel()  # a broken pool refuses at once; nobody waits for the call
    except BrokenExecutor:
        return False
    return True
