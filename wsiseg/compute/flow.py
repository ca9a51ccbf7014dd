"""Run the blocks of several steps, each as soon as the blocks that it needs are done.

One loop serves every executor. It keeps in flight as many calls as the executor can run and a few
more, so that neither queues nor memory grow with the slide. Of the blocks that are ready it submits
those of the last step first: what was read is soon predicted, what was predicted soon stitched.
"""

from __future__ import annotations

import contextvars
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar, runtime_checkable

__all__ = ["BlockExecutor", "Progress", "Spent", "Step", "in_flight", "run", "run_steps"]

Progress = Callable[[str, int, int], None]
"""Called with (step, blocks done, total blocks)."""
Spent = Callable[[str, float], None]
"""Called with (step, seconds that a worker spent on one of its blocks)."""

_T = TypeVar("_T")
_R = TypeVar("_R")
_Block = tuple[int, int]
"""``(rank, block)``: a step's position in the pipeline, and the index of one of its blocks."""


_PLANNING: _Block = (sys.maxsize, 0)
"""The planning of later steps, as a block of a step after all others: it is submitted first."""


def _needs_nothing(block: int) -> Iterable[tuple[str, int]]:
    return ()


@dataclass(frozen=True)
class Step:
    """The work of one step on one slide, planned before any of it starts."""

    name: str
    """The name in the store's marks."""
    digest: str
    """Hex sha256 of everything that determines the blocks, including earlier steps."""
    total: int
    """Number of blocks, including those that are done already."""
    pending: Sequence[int]
    """Blocks to compute, in order."""
    work: Callable[..., object]
    """Computes one block and marks it; picklable. Its return value is ignored."""
    needs: Callable[[int], Iterable[tuple[str, int]]] = _needs_nothing
    """Returns ``(step, block)`` of all that a block reads; those not pending are done already."""
    gpu: bool = False
    """Whether a cluster should run it on GPU workers, if it has any."""
    waits: int = 0
    """How many blocks may wait for this machine's accelerators at once; 0 if it uses none."""
    digests: Sequence[str] = ()
    """Hex sha256 of everything that determines each block, passed to `work` as `digest`."""

    def task(self, block: int) -> Callable[[], object]:
        """Return a picklable call that computes a block and returns the seconds it took."""
        if not self.digests:
            return partial(_time, partial(self.work, block))
        return partial(_time, partial(self.work, block, digest=self.digests[block]))


def _time(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@runtime_checkable
class BlockExecutor(Protocol):
    """An executor that chooses a worker by what the step needs."""

    def submit_block(self, step: Step, block: int) -> Future[Any]:
        """Run ``step.work(block)``."""


def run_steps(
    executor: Executor,
    steps: Sequence[Step],
    progress: Progress | None = None,
    spent: Spent | None = None,
    later: Callable[[], Sequence[Step]] | None = None,
) -> None:
    """Compute the pending blocks of `steps`; `progress` counts each step's finished blocks.

    `later` plans further steps. Unless blocks run in the calling thread, it is called in a thread
    of its own, while blocks of `steps` are already being computed.

    `spent` is called before `progress`, except on a cluster, whose workers keep what a block
    returns.

    The first failure is raised once the blocks in flight have ended, so that none is written later;
    so is an interruption (Ctrl-C), unless a second one comes.
    """
    report = progress or _report_nothing
    ready = _ReadyQueue()

    def add(steps: Sequence[Step]) -> None:
        ready.add(steps)
        for step in steps:
            report(step.name, step.total - len(step.pending), step.total)

    add(steps)
    if later is not None and in_flight(executor) == 1:
        add(later())
        later = None

    def submit(item: _Block) -> Future[Any]:
        if item == _PLANNING:
            return planner.submit(planning)
        return _submit_block(executor, ready.steps[item[0]], item[1])

    if later is not None:
        planning = partial(contextvars.copy_context().run, later)
        ready.push(_PLANNING)
    with (
        ThreadPoolExecutor(1, "planning") as planner,
        closing(_drain(executor, submit, ready, waits=True)) as results,
    ):
        for item, result in results:
            if item == _PLANNING:
                add(result)
                continue
            step = ready.steps[item[0]]
            unfinished = ready.finish(item)
            if spent is not None and isinstance(result, float):
                spent(step.name, result)
            report(step.name, step.total - unfinished, step.total)


def _submit_block(executor: Executor, step: Step, block: int) -> Future[Any]:
    if isinstance(executor, BlockExecutor):
        return executor.submit_block(step, block)
    return executor.submit(step.task(block))


def run(
    executor: Executor, function: Callable[[_T], _R], items: Iterable[_T]
) -> Iterator[tuple[_T, _R]]:
    """Call `function` on every item; yield ``(item, result)`` as they finish, in any order.

    The first failure is raised once the calls in flight have ended; no further calls are made.
    """
    yield from _drain(executor, lambda item: executor.submit(function, item), iter(items))


def in_flight(executor: Executor) -> int:
    """Return the number of calls to keep in flight: twice the workers, so that none is idle."""
    capacity = getattr(executor, "capacity", None)
    if capacity is not None:
        return int(capacity)
    # The pools of `concurrent.futures`, and those that follow them, have it only here.
    return 2 * int(getattr(executor, "_max_workers", 1))


class _ReadyQueue(Iterator[_Block]):
    """The blocks that can start now, the last step's first; `finish` releases others.

    Iteration stops when none can start *now*; after a `finish` it may go on.
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._unfinished: list[set[int]] = []
        """Blocks of each step."""
        self._missing: dict[_Block, int] = {}
        """How many unfinished blocks a block needs."""
        self._dependents: dict[_Block, list[_Block]] = {}
        """The blocks that need a block."""
        self._heap: list[_Block] = []  # (-rank, block)

    def add(self, steps: Sequence[Step]) -> None:
        """Append steps to the pipeline."""
        first_rank = len(self.steps)
        self.steps += steps
        self._unfinished += [set(step.pending) for step in steps]
        ranks = {step.name: rank for rank, step in enumerate(self.steps)}
        for rank, step in enumerate(steps, first_rank):
            for block in step.pending:
                # A step that is not planned here is finished, or else `work` reports that it isn't.
                needed = {
                    (ranks[name], needed_block)
                    for name, needed_block in step.needs(block)
                    if name in ranks and needed_block in self._unfinished[ranks[name]]
                }
                for item in needed:
                    self._dependents.setdefault(item, []).append((rank, block))
                if needed:
                    self._missing[rank, block] = len(needed)
                else:
                    self.push((rank, block))

    def push(self, item: _Block) -> None:
        """Add a block that needs no unfinished one."""
        heappush(self._heap, (-item[0], item[1]))

    def __next__(self) -> _Block:
        if not self._heap:
            raise StopIteration
        rank, block = heappop(self._heap)
        return -rank, block

    def finish(self, item: _Block) -> int:
        """Mark a block as done; return how many of its step are unfinished."""
        rank, block = item
        self._unfinished[rank].remove(block)
        for dependent in self._dependents.pop(item, ()):
            self._missing[dependent] -= 1
            if not self._missing[dependent]:
                del self._missing[dependent]
                self.push(dependent)
        return len(self._unfinished[rank])


def _drain(
    executor: Executor, submit: Callable[[_T], Future[Any]], source: Iterator[_T],
    waits: bool = False,
) -> Generator[tuple[_T, Any], None, None]:  # fmt: skip
    """Submit the items of `source`, a bounded number at a time; yield ``(item, result)``.

    With `waits`, this ends only after all calls in flight, even if the caller is interrupted.
    """
    finished: SimpleQueue[Future[Any]] = SimpleQueue()
    pending: dict[Future[Any], _T] = {}
    try:
        while True:
            while len(pending) < in_flight(executor):
                try:
                    item = next(source)
                except StopIteration:
                    break
                future = submit(item)
                pending[future] = item
                future.add_done_callback(finished.put)
            if not pending:
                return
            future = finished.get()
            yield pending.pop(future), future.result()
    except BaseException as error:
        running = [future for future in pending if not future.cancel()]
        if waits or isinstance(error, Exception):
            wait(running)
        raise


def _report_nothing(step: str, done: int, total: int) -> None:
    pass
