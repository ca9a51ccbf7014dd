"""Blocks of several steps, each begun as soon as the blocks that it needs are done.

One loop serves every executor. It holds as many calls in flight as the executor can use and a few
more, so that neither queues nor memory grow with the slide, and of what is ready it takes the last
step first: what was read is soon modelled, what was modelled soon stitched.
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
"""Called with (step, blocks done, blocks in all)."""
Spent = Callable[[str, float], None]
"""Called with (step, seconds that a worker spent on one block of it)."""

_T = TypeVar("_T")
_R = TypeVar("_R")
_Block = tuple[int, int]
"""A step's place in the pipeline, and one of its blocks."""


_PLANNING: _Block = (sys.maxsize, 0)
"""The planning of later steps, as a block of a step after all others: it begins first."""


def _nothing(block: int) -> Iterable[tuple[str, int]]:
    return ()


@dataclass(frozen=True)
class Step:
    """What a step of one slide has to do, planned before any of it is done."""

    name: str
    """As in the store's marks."""
    digest: str
    """Hex sha256 of all that makes the blocks, the steps before included."""
    total: int
    """Blocks of the step, those done before included."""
    pending: Sequence[int]
    """Blocks to do, in order."""
    work: Callable[..., object]
    """Does one block and marks it; picklable. What it returns is dropped."""
    needs: Callable[[int], Iterable[tuple[str, int]]] = _nothing
    """``(step, block)`` of all that a block reads; those that are not pending are there already."""
    gpu: bool = False
    """Whether a cluster that has GPU workers should do it there."""
    waits: int = 0
    """Blocks that are to wait for accelerators of this machine at once; 0 if they compute."""
    digests: Sequence[str] = ()
    """Hex sha256 of all that makes each block; `work` is given its block's as `digest`."""

    def task(self, block: int) -> Callable[[], object]:
        """What does a block, and returns the seconds that it took; picklable."""
        if not self.digests:
            return partial(_time, partial(self.work, block))
        return partial(_time, partial(self.work, block, digest=self.digests[block]))


def _time(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@runtime_checkable
class BlockExecutor(Protocol):
    """An executor that places blocks by what they need."""

    def submit_block(self, step: Step, block: int) -> Future[Any]:
        """Have ``step.work(block)`` done."""


def run_steps(
    executor: Executor,
    steps: Sequence[Step],
    progress: Progress | None = None,
    spent: Spent | None = None,
    later: Callable[[], Sequence[Step]] | None = None,
) -> None:
    """Do the pending blocks of `steps`; `progress` counts each step's finished blocks.

    `later` plans steps that come after these. Where blocks are done beside this thread it does so
    in one of its own, while blocks of `steps` are done already.

    `spent` is told the seconds of each block before `progress` is, except on a cluster, whose
    workers keep what a block returns.

    The first failure is raised when the blocks in flight have ended, so that none is written later;
    so is an interruption (Ctrl-C), unless a second one comes.
    """
    report = progress or _silent
    ready = _Ready()

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
        step, block = ready.steps[item[0]], item[1]
        if isinstance(executor, BlockExecutor):
            return executor.submit_block(step, block)
        return executor.submit(step.task(block))

    if later is not None:
        planning = partial(contextvars.copy_context().run, later)
        ready.push(_PLANNING)
    with (
        ThreadPoolExecutor(1, "planning") as planner,
        closing(_drain(executor, submit, ready, waits=True)) as drained,
    ):
        for item, result in drained:
            if item == _PLANNING:
                add(result)
                continue
            step = ready.steps[item[0]]
            left = ready.finish(item)
            if spent is not None and isinstance(result, float):
                spent(step.name, result)
            report(step.name, step.total - left, step.total)


def run(
    executor: Executor, function: Callable[[_T], _R], items: Iterable[_T]
) -> Iterator[tuple[_T, _R]]:
    """Call `function` on every item; yield ``(item, result)`` as they finish, in any order.

    The first failure is raised when the calls in flight have ended; the rest is not begun.
    """
    yield from _drain(executor, lambda item: executor.submit(function, item), iter(items))


def in_flight(executor: Executor) -> int:
    """Calls to hold in flight: twice what the executor does at once, so that it never waits."""
    known = getattr(executor, "capacity", None)
    if known is not None:
        return int(known)
    # The pools of `concurrent.futures`, and those that follow them, say it only here.
    return 2 * int(getattr(executor, "_max_workers", 1))


class _Ready(Iterator[_Block]):
    """The blocks that may begin now, the last step's first; `finish` lets others in.

    Stops when none may begin *now*: asked again after a `finish`, it may have more.
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._left: list[set[int]] = []
        """Blocks of each step that are not done yet."""
        self._missing: dict[_Block, int] = {}
        self._waiting: dict[_Block, list[_Block]] = {}
        self._heap: list[_Block] = []  # (-rank, block)

    def add(self, steps: Sequence[Step]) -> None:
        """Let these in as well, after those that are there."""
        begin = len(self.steps)
        self.steps += steps
        self._left += [set(step.pending) for step in steps]
        place = {step.name: rank for rank, step in enumerate(self.steps)}
        for rank, step in enumerate(steps, begin):
            for block in step.pending:
                # A step that is not planned here is finished, or its work will say that it is not.
                needed = {
                    (place[name], other)
                    for name, other in step.needs(block)
                    if name in place and other in self._left[place[name]]
                }
                for need in needed:
                    self._waiting.setdefault(need, []).append((rank, block))
                if needed:
                    self._missing[rank, block] = len(needed)
                else:
                    self.push((rank, block))

    def push(self, item: _Block) -> None:
        """Let an item in that needs no other."""
        heappush(self._heap, (-item[0], item[1]))

    def __next__(self) -> _Block:
        if not self._heap:
            raise StopIteration
        rank, block = heappop(self._heap)
        return -rank, block

    def finish(self, item: _Block) -> int:
        """Note that a block is done; how many of its step are left."""
        self._left[item[0]].remove(item[1])
        for waiting in self._waiting.pop(item, ()):
            self._missing[waiting] -= 1
            if not self._missing[waiting]:
                del self._missing[waiting]
                self.push(waiting)
        return len(self._left[item[0]])


def _drain(
    executor: Executor, submit: Callable[[_T], Future[Any]], source: Iterator[_T],
    waits: bool = False,
) -> Generator[tuple[_T, Any], None, None]:  # fmt: skip
    """Submit what `source` gives, a bounded number at a time; yield ``(item, result)``.

    With `waits`, what is in flight ends before this does, even where the caller is interrupted.
    """
    finished: SimpleQueue[Future[Any]] = SimpleQueue()
    flying: dict[Future[Any], _T] = {}
    try:
        while True:
            while len(flying) < in_flight(executor):
                try:
                    item = next(source)
                except StopIteration:
                    break
                future = submit(item)
                flying[future] = item
                future.add_done_callback(finished.put)
            if not flying:
                return
            future = finished.get()
            yield flying.pop(future), future.result()
    except BaseException as error:
        running = [future for future in flying if not future.cancel()]
        if waits or isinstance(error, Exception):
            wait(running)
        raise


def _silent(step: str, done: int, total: int) -> None:
    pass
