"""Open executors by name: serial, threads, processes or a cluster."""

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
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, TypeVar

from wsiseg.compute.flow import Step
from wsiseg.compute.interrupts import ignore_interrupts, starting_without_interrupts
from wsiseg.compute.messages import LogLevels, listening, send_logs_to
from wsiseg.errors import ConfigError

__all__ = ["SerialExecutor", "is_alive", "open_executor"]

_R = TypeVar("_R")


class SerialExecutor(Executor):
    """Runs each call immediately, in the calling thread."""

    capacity = 1

    def submit(self, fn: Callable[..., _R], /, *args: object, **kwargs: object) -> Future[_R]:
        """Run `fn` now and return a finished future."""
        future: Future[_R] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # the future carries it, as in every executor
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            future.set_exception(error)
        return future


class ThreadExecutor(ThreadPoolExecutor):
    """A thread pool, with a second pool for blocks that wait for accelerators.

    The first goes on reading meanwhile: the slower of reading and model bounds the time, not their
    sum.
    """

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self.capacity = 2 * workers
        """See `in_flight`."""
        self._accelerator_pool: ThreadPoolExecutor | None = None
        self._lock, self._closed = threading.Lock(), False

    def submit_block(self, step: Step, block: int) -> Future[Any]:
        """Run ``step.work(block)``, in the second pool if it waits for an accelerator."""
        if not step.waits:
            return self.submit(step.task(block))
        with self._lock:
            if self._closed:
                raise RuntimeError("the executor was shut down")
            if self._accelerator_pool is None:
                self._accelerator_pool = ThreadPoolExecutor(step.waits, "accelerator")
                self.capacity += 2 * step.waits
        return self._accelerator_pool.submit(step.task(block))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut down both pools."""
        with self._lock:
            self._closed = True
        super().shutdown(wait, cancel_futures=cancel_futures)
        if self._accelerator_pool is not None:
            self._accelerator_pool.shutdown(wait, cancel_futures=cancel_futures)


@contextmanager
def open_executor(kind: str = "serial", workers: int | None = None) -> Iterator[Executor]:
    """Open an executor by name; it is shut down on leaving.

    Parameters
    ----------
    kind
        `serial`, `threads`, `processes`, `dask` (workers on this machine), the address of a dask
        scheduler (``tcp://HOST:PORT``), or a YAML file of `ClusterConfig` (SLURM).
    workers
        Number of threads, processes or local dask workers; by default the number of cores. Ignored
        by a running scheduler and a YAML file, which have their own.

    Raises
    ------
    ConfigError
        If the name is unknown, `workers` is not positive, or the YAML file is invalid.
    ClusterError
        If no scheduler answers, or no worker joins.
    MissingDependencyError
        If dask is needed and not installed.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"workers is {workers}; give at least 1, or None for one per core")
    count = workers or os.cpu_count() or 1
    if kind == "serial":
        yield SerialExecutor()
    elif kind == "threads":
        with ThreadExecutor(count) as threads:
            yield threads
    elif kind == "processes":
        with (
            listening() as address,
            ProcessPoolExecutor(
                count, _WorkerContext(), _begin_worker, (address, LogLevels.current())
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


class _WorkerProcess(SpawnProcess):
    def start(self) -> None:
        """Start the process, which Ctrl-C does not reach."""
        with starting_without_interrupts():
            super().start()


class _WorkerContext(SpawnContext):
    """Never forks: OpenSlide handles and the threads of numba and torch do not survive it."""

    Process = _WorkerProcess


def _begin_worker(address: Any, levels: LogLevels) -> None:
    """Begin a worker process: it logs in its parent, and ends with it, however the parent ends."""
    ignore_interrupts()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    send_logs_to(address, levels)


def _end_with_parent() -> None:
    """Wait until the parent is gone; its work would otherwise be waited for without end."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # what a block was writing is not yet in its place


def is_alive(executor: Executor) -> bool:
    """Return whether the executor still accepts work; takes a few seconds at most.

    A process pool does not once a worker has died, nor a cluster once its scheduler has.
    """
    own_check = getattr(executor, "is_alive", None)
    if own_check is not None:
        return bool(own_check())
    try:
        executor.submit(int).cancel()  # a broken pool refuses at once; the result is not awaited
    except BrokenExecutor:
        return False
    return True
