from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsiseg.compute import SerialExecutor, Step, flow, in_flight, open_executor, run_steps


class Log:
    """What blocks did, in order."""

    def __init__(self) -> None:
        self.began: list[tuple[str, int]] = []
        self.ended: list[tuple[str, int]] = []

    def work(self, name: str, block: int) -> None:
        self.began.append((name, block))
        self.ended.append((name, block))

    def step(self, name: str, pending: list[int], needs: dict[int, list[tuple[str, int]]]) -> Step:
        return Step(
            name, "", 100, pending, partial(self.work, name), lambda block: needs.get(block, ())
        )


class Shuffled(Executor):
    """Ends calls in any order that workers might."""

    capacity = 5

    def __init__(self, random: Random) -> None:
        self._random = random
        self._held: list[tuple[Future[object], Callable[[], object]]] = []

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        future: Future[object] = Future()
        self._held.append((future, partial(fn, *args, **kwargs)))
        return future

    def end_one(self) -> None:
        future, call = self._held.pop(self._random.randrange(len(self._held)))
        future.set_result(call())


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_block_begins_before_what_it_needs(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 12))
    blocks = st.lists(st.integers(0, n - 1), unique=True).map(sorted)
    pending = {name: data.draw(blocks) for name in ("tile", "predict", "stitch")}
    log = Log()
    steps, needs = [], {}
    for name, befores in (("tile", []), ("predict", ["tile"]), ("stitch", ["tile", "predict"])):
        pairs = [(before, block) for before in befores for block in range(n)]
        some = st.lists(st.sampled_from(pairs), max_size=4) if pairs else st.just([])
        needs[name] = {block: data.draw(some) for block in pending[name]}
        steps.append(log.step(name, pending[name], needs[name]))
    _run_with(Shuffled(Random(data.draw(st.integers(0, 999)))), steps)
    assert sorted(log.began) == sorted((s.name, b) for s in steps for b in s.pending)
    for place, (name, block) in enumerate(log.began):
        for need in needs[name][block]:
            if need[1] in pending[need[0]]:
                assert need in log.ended[:place]


def _run_with(executor: Shuffled, steps: list[Step]) -> None:
    stop = threading.Event()

    def end() -> None:
        while not stop.is_set():
            if executor._held:
                executor.end_one()
            else:
                time.sleep(0.0002)

    thread = threading.Thread(target=end)
    thread.start()
    try:
        run_steps(executor, steps)
    finally:
        stop.set()
        thread.join()


def test_serial_takes_the_last_step_that_can_begin() -> None:
    log = Log()
    tile = log.step("tile", [0, 1, 2], {})
    predict = log.step("predict", [0, 1, 2], {b: [("tile", b)] for b in range(3)})
    stitch = log.step("stitch", [0, 1], {b: [("predict", b), ("predict", b + 1)] for b in range(2)})
    run_steps(SerialExecutor(), [tile, predict, stitch])
    assert log.began == [
        ("tile", 0), ("predict", 0), ("tile", 1), ("predict", 1), ("stitch", 0),
        ("tile", 2), ("predict", 2), ("stitch", 1),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["serial", "threads"])
def test_each_step_counts_from_what_was_done_before(kind: str) -> None:
    log, seen = Log(), []
    steps = [log.step("tile", [4, 7], {}), log.step("predict", [7], {7: [("tile", 7)]})]
    with open_executor(kind, 2) as executor:
        run_steps(executor, steps, lambda *told: seen.append(told))
    assert [told for told in seen if told[0] == "tile"] == [("tile", n, 100) for n in (98, 99, 100)]
    assert [told for told in seen if told[0] == "predict"] == [
        ("predict", n, 100) for n in (99, 100)
    ]


def test_a_step_that_has_nothing_to_do_is_told_too() -> None:
    seen = []
    run_steps(SerialExecutor(), [Step("tile", "", 5, [], print)], lambda *told: seen.append(told))
    assert seen == [("tile", 5, 5)]
    run_steps(SerialExecutor(), [Step("tile", "", 5, [], print)])


def test_reading_and_the_model_overlap() -> None:
    """While one worker models a block, the other reads the next: neither waits for a whole step."""
    both = threading.Barrier(2, timeout=60)

    def work(name: str, block: int) -> None:
        if (name, block) in (("tile", 1), ("predict", 0)):
            both.wait()

    tile = Step("tile", "", 2, [0, 1], partial(work, "tile"))
    predict = Step("predict", "", 2, [0, 1], partial(work, "predict"), lambda b: [("tile", b)])
    with ThreadPoolExecutor(2) as threads:
        run_steps(threads, [tile, predict])


def test_a_failing_block_lets_no_other_begin(tmp_path: Path) -> None:
    begun: list[int] = []

    def work(block: int) -> None:
        begun.append(block)
        if block == 3:
            raise OSError("block 3")

    with open_executor("threads", 1) as threads:  # of more, one might go on before another fails
        with pytest.raises(OSError, match="block 3"):
            run_steps(threads, [Step("tile", "", 100, list(range(100)), work)])
        count = len(begun)
        assert count <= 3 + in_flight(threads)
    assert begun == list(range(count)), "some began after the failure was raised"


def test_threads_read_on_while_a_block_waits_for_its_device() -> None:
    ahead, seen = threading.Event(), []

    def read(block: int) -> None:
        seen.append(block)
        if block == 3:
            ahead.set()

    def wait_for_device(block: int) -> None:
        assert ahead.wait(60), "reading stopped while the device was busy"

    steps = [
        Step("tile", "", 20, range(20), read),
        Step("predict", "", 20, range(20), wait_for_device, lambda b: [("tile", b)], waits=1),
    ]
    with open_executor("threads", 1) as threads:
        run_steps(threads, steps)
        assert in_flight(threads) == 4
    assert sorted(seen) == list(range(20))


def test_what_waits_for_a_device_is_bounded_and_reading_with_it() -> None:
    go, read = threading.Event(), []
    steps = [
        Step("tile", "", 20, range(20), read.append),
        Step("predict", "", 20, range(20), lambda _: go.wait(60), lambda b: [("tile", b)],
             waits=1),
    ]  # fmt: skip
    with open_executor("threads", 1) as threads, ThreadPoolExecutor(1) as flow:
        running = flow.submit(run_steps, threads, steps)
        time.sleep(0.3)
        held = len(read)
        go.set()
        running.result(timeout=60)
    assert held <= 5
    assert len(read) == 20


@pytest.mark.parametrize("where", ["in the loop", "outside of it"])
def test_an_interruption_waits_for_the_blocks_that_run(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They wrote on after the store's lock was freed."""
    began: list[int] = []
    ended: list[int] = []

    def work(block: int) -> None:
        began.append(block)
        time.sleep(0 if block == 0 else 0.3)
        ended.append(block)

    def interrupt(step: str, done: int, total: int) -> None:
        if done == 1 and where == "outside of it":
            raise KeyboardInterrupt

    class Queue(SimpleQueue):  # type: ignore[type-arg]  # of futures
        def get(self) -> Any:
            if ended:
                raise KeyboardInterrupt
            return super().get()

    if where == "in the loop":
        monkeypatch.setattr(flow, "SimpleQueue", Queue)
    with open_executor("threads", 2) as threads:
        with pytest.raises(KeyboardInterrupt):
            run_steps(threads, [Step("tile", "", 50, list(range(50)), work)], interrupt)
        before = list(ended)
        assert sorted(began) == sorted(ended)
    assert before == ended
    assert len(ended) < 10


def test_seconds_of_each_block_are_told_before_it_is_counted() -> None:
    told: list[tuple[object, ...]] = []
    step = Step("tile", "", 3, [1, 2], lambda block: time.sleep(0.02))
    run_steps(
        SerialExecutor(), [step], lambda *count: told.append(count),
        lambda name, seconds: told.append((name, seconds >= 0.02)),
    )  # fmt: skip
    assert told == [
        ("tile", 1, 3), ("tile", True), ("tile", 2, 3), ("tile", True), ("tile", 3, 3),
    ]  # fmt: skip


def test_later_steps_are_planned_while_blocks_are_done() -> None:
    log, planned = Log(), threading.Event()

    def wait(block: int) -> None:
        assert planned.wait(60)
        log.work("tile", block)

    def plan() -> list[Step]:
        planned.set()
        return [log.step("predict", [0, 1, 2], {n: [("tile", n)] for n in range(3)})]

    told: list[tuple[str, int, int]] = []
    first = [Step("tile", "", 3, [0, 1, 2], wait)]
    with open_executor("threads", 1) as pool:
        run_steps(pool, first, lambda *done: told.append(done), later=plan)
    assert sorted(log.ended) == [(name, n) for name in ("predict", "tile") for n in range(3)]
    for n in range(3):
        assert log.ended.index(("tile", n)) < log.began.index(("predict", n))
    assert told[0] == ("tile", 0, 3)
    assert {("predict", 97, 100), ("predict", 100, 100), ("tile", 3, 3)} <= set(told)


def test_one_thread_plans_first_and_a_plan_that_fails_ends_the_run(tmp_path: Path) -> None:
    log = Log()
    first = [log.step("tile", [0, 1], {})]
    run_steps(SerialExecutor(), first, later=lambda: [log.step("predict", [0], {})])
    assert log.ended == [("predict", 0), ("tile", 0), ("tile", 1)]

    def fail() -> list[Step]:
        raise ValueError("no model")

    for kind in ("serial", "threads"):
        with open_executor(kind, 2) as pool, pytest.raises(ValueError, match="no model"):
            run_steps(pool, first, later=fail)
