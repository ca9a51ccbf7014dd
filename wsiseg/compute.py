"""Run block functions on an executor: serial, threads, processes or dask. The only dask here."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import (
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    as_completed,
)
from contextlib import contextmanager
from typing import TypeVar

from wsiseg.errors import ConfigError, MissingDependencyError

__all__ = ["Progress", "SerialExecutor", "open_executor", "run", "run_blocks"]

Progress = Callable[[str, int, int], None]
"""Called with (step, blocks done, blocks in all)."""

_T = TypeVar("_T")
_R = TypeVar("_R")


class SerialExecutor(Executor):
    """Runs each call at once, in the calling thread."""

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


@contextmanager
def open_executor(kind: str = "serial", workers: int | None = None) -> Iterator[Executor]:
    """An executor by name: `serial`, `threads`, `processes`, `dask`, or a scheduler's address.

    `workers` defaults to the number of cores. Raises `ConfigError` for another name and
    `MissingDependencyError` where dask is asked for and `distributed` is not installed.
    """
    count = workers or os.cpu_count() or 1
    if kind == "serial":
        yield SerialExecutor()
    elif kind == "threads":
        with ThreadPoolExecutor(count) as threads:
            yield threads
    elif kind == "processes":
        # Never fork: OpenSlide handles, numba and torch threads do not survive it.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(count, mp_context=context) as processes:
            yield processes
    elif kind == "dask" or "://" in kind:
        with _open_dask(kind, count) as executor:
            yield executor
    else:
        raise ConfigError(
            f"executor {kind!r} is unknown; use serial, threads, processes, dask or tcp://HOST:PORT"
        )


@contextmanager
def _open_dask(kind: str, workers: int) -> Iterator[Executor]:
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise MissingDependencyError(
            f"executor {kind!r} needs dask: pip install 'wsiseg[cluster]'"
        ) from error
    if kind != "dask":
        with Client(kind) as client:
            yield client.get_executor(retries=1)
        return
    # A port of its own: `dashboard_address=None` asks for 8787 and warns if another cluster has it.
    quiet = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, scheduler_kwargs=quiet) as cluster,
        Client(cluster) as client,
    ):
        yield client.get_executor(retries=1)


def run(
    executor: Executor, function: Callable[[_T], _R], items: Iterable[_T]
) -> Iterator[tuple[_T, _R]]:
    """Call `function` on every item; yield ``(item, result)`` as they finish, in any order.

    The first failure is raised after the calls that already run; the rest are cancelled.
    """
    if isinstance(executor, SerialExecutor):
        for item in items:
            yield item, function(item)
        return
    futures = {executor.submit(function, item): item for item in items}
    try:
        # Futures of dask are not `concurrent.futures`' own, but its executor's are.
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        for future in futures:
            future.cancel()


def run_blocks(
    executor: Executor,
    function: Callable[[int], object],
    pending: Sequence[int],
    total: int,
    step: str,
    progress: Progress | None = None,
) -> None:
    """Do the `pending` of a step's `total` blocks; `progress` counts the finished ones in."""
    report = progress or _silent
    done = total - len(pending)
    report(step, done, total)
    for _ in run(executor, function, pending):
        done += 1
        report(step, done, total)


def _silent(step: str, done: int, total: int) -> None:
    pass
