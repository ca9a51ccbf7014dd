from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from multiprocessing.connection import Client
from pathlib import Path

import pytest

from wsiseg.compute import (
    SerialExecutor,
    Step,
    in_flight,
    is_alive,
    messages,
    open_executor,
    run,
)
from wsiseg.errors import ConfigError, SlideReadError, WsisegWarning

KINDS = ["serial", "threads", "processes", "dask"]


@pytest.fixture(scope="module", params=KINDS)
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    with open_executor(request.param, 2) as opened:
        yield opened


def digest(item: int) -> str:
    return hashlib.sha256(bytes([item])).hexdigest()


def fail_on_3(item: int) -> int:
    if item == 3:
        raise SlideReadError(f"slide.svs: block {item} is broken")
    return item


def test_every_executor_gives_the_same_results(executor: Executor) -> None:
    got = dict(run(executor, digest, range(20)))
    assert got == {item: digest(item) for item in range(20)}


def test_nothing_to_do(executor: Executor) -> None:
    assert list(run(executor, digest, [])) == []


def test_a_failure_is_raised_as_it_was(executor: Executor) -> None:
    with pytest.raises(SlideReadError, match=r"slide\.svs: block 3 is broken"):
        list(run(executor, fail_on_3, range(6)))
    # The executor is still good.
    assert dict(run(executor, digest, [1])) == {1: digest(1)}


def say(item: int) -> None:
    logging.getLogger("tifffile").error("%s is damaged at %d", "a.tif", item)
    logging.getLogger("wsiseg.slide").info("read %d", item)
    logging.getLogger("other").debug("no news")
    warnings.warn("old", stacklevel=1)
    warnings.warn("a mask is empty", WsisegWarning, stacklevel=1)


@pytest.mark.parametrize("kind", KINDS[2:])
def test_what_workers_say_is_heard_here_and_not_on_their_terminals(
    kind: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    awaited = {
        ("tifffile", "ERROR", "a.tif is damaged at 1"),
        ("wsiseg.slide", "INFO", "read 0"),
        ("wsiseg.warnings", "WARNING", "a mask is empty"),
    }

    def said() -> set[tuple[str, str, str]]:
        return {(one.name, one.levelname, one.getMessage()) for one in list(caplog.records)}

    def is_old(one: tuple[str, str, str]) -> bool:
        return "UserWarning: old" in one[2]

    with caplog.at_level(logging.INFO, "wsiseg"), open_executor(kind, 2) as opened:
        list(run(opened, say, range(2)))
        deadline = time.monotonic() + 60  # messages of a cluster come when they come
        while not (awaited <= said() and any(map(is_old, said()))):
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
    assert awaited <= said()
    assert any(map(is_old, said()))
    assert not any("no news" in text for _, _, text in said())
    assert "damaged" not in capfd.readouterr().err


def test_a_failure_cancels_what_has_not_begun() -> None:
    begun: list[int] = []

    def work(item: int) -> None:
        begun.append(item)
        if item == 0:
            raise ValueError("first")

    with open_executor("threads", 1) as threads:
        with pytest.raises(ValueError, match="first"):
            list(run(threads, work, range(200)))
        most = in_flight(threads)
    assert begun == list(range(len(begun)))
    assert len(begun) <= most


def test_serial_stops_at_the_first_failure() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        return fail_on_3(item)

    with pytest.raises(SlideReadError):
        list(run(SerialExecutor(), work, range(10)))
    assert begun == [0, 1, 2, 3]


def test_serial_executor_is_an_executor() -> None:
    with open_executor() as executor:
        assert isinstance(executor, SerialExecutor)
        assert list(executor.map(digest, [1, 2])) == [digest(1), digest(2)]
        future: Future[int] = executor.submit(fail_on_3, 3)
    assert future.done()
    assert isinstance(future.exception(), SlideReadError)
    with pytest.raises(KeyboardInterrupt):
        SerialExecutor().submit(interrupt)


def interrupt() -> None:
    raise KeyboardInterrupt


def test_threads_run_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=60)
    with open_executor("threads", 2) as threads:
        assert len(list(run(threads, lambda _: both.wait(), range(2)))) == 2


def test_work_in_processes_is_done_elsewhere() -> None:
    with open_executor("processes", 1) as processes:
        assert [pid for _, pid in run(processes, process_of, [0])] != [os.getpid()]


def process_of(_: int) -> int:
    return os.getpid()


def test_a_process_that_stops_while_it_connects_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody asked for a key any more, for whose answer the end of the listening waited."""
    monkeypatch.setattr(messages, "_WAIT_S", 0.1)
    stopped = []

    def listen() -> None:
        with messages.listening() as address:
            stopped.append(Client(address))  # and says nothing

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    stopped[0].close()


def test_no_block_begins_beside_threads_that_were_shut_down() -> None:
    begun: list[int] = []
    step = Step("predict", "", 1, [0], begun.append, waits=1)
    with open_executor("threads", 1) as threads:
        threads.shutdown(cancel_futures=True)
        with pytest.raises(RuntimeError, match="the executor was shut down"):
            threads.submit_block(step, 0)  # type: ignore[attr-defined]
    assert begun == []


def test_an_unknown_executor_is_named() -> None:
    with (
        pytest.raises(ConfigError, match="executor 'slurm' is unknown; use serial, threads"),
        open_executor("slurm"),
    ):
        pass


@pytest.mark.parametrize("kind", ["serial", "threads", "processes", "dask"])
@pytest.mark.parametrize("workers", [0, -1])
def test_a_number_of_workers_that_is_none_is_refused(kind: str, workers: int) -> None:
    with (
        pytest.raises(ConfigError, match=rf"workers is {workers}; give at least 1, or None"),
        open_executor(kind, workers),
    ):
        pass


def test_a_failure_is_raised_when_the_calls_in_flight_have_ended() -> None:
    begun: list[int] = []
    ended: list[int] = []

    def work(item: int) -> None:
        if item == 0:
            raise ValueError("first")
        begun.append(item)
        time.sleep(0.2)
        ended.append(item)

    with open_executor("threads", 2) as threads:
        with pytest.raises(ValueError, match="first"):
            list(run(threads, work, range(50)))
        before = sorted(ended)
        assert sorted(begun) == before, "a call ran on after the failure was raised"
    assert sorted(ended) == before, "a call began after the failure was raised"


def test_a_bounded_number_is_in_flight(executor: Executor) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for taken in range(1, 201):
            yield taken % 7

    for done, _ in enumerate(run(executor, digest, items()), 1):
        assert taken - done < in_flight(executor)
    assert taken == 200


def test_an_executor_is_alive_until_it_is_not(executor: Executor) -> None:
    assert is_alive(executor)
    with open_executor("processes", 1) as processes:
        with pytest.raises(BrokenExecutor):
            processes.submit(os._exit, 1).result()
        assert not is_alive(processes)


def test_only_cluster_imports_dask() -> None:
    root = Path(__file__).resolve().parents[2] / "wsiseg"
    found = [
        path.name
        for path in root.rglob("*.py")
        if any(
            line.strip().startswith(
                ("import dask", "from dask", "import distributed", "from distri")
            )
            for line in path.read_text(encoding="utf-8").splitlines()
        )
    ]
    assert found == ["cluster.py"]
