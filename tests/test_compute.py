from __future__ import annotations

import hashlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from pathlib import Path

import pytest

from wsiseg.compute import SerialExecutor, open_executor, run, run_blocks
from wsiseg.errors import ConfigError, MissingDependencyError, SlideReadError

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


def test_run_blocks_counts_from_what_was_done_before(executor: Executor) -> None:
    seen: list[tuple[str, int, int]] = []
    run_blocks(executor, digest, [4, 7, 9], 12, "tile", lambda *told: seen.append(told))
    assert seen == [("tile", done, 12) for done in (9, 10, 11, 12)]


def test_run_blocks_tells_when_nothing_is_left() -> None:
    seen: list[tuple[str, int, int]] = []
    run_blocks(SerialExecutor(), digest, [], 5, "tile", lambda *told: seen.append(told))
    assert seen == [("tile", 5, 5)]
    run_blocks(SerialExecutor(), digest, [1], 5, "tile")


def test_a_failure_cancels_what_has_not_begun() -> None:
    begun: list[int] = []

    def work(item: int) -> None:
        begun.append(item)
        if item == 0:
            raise ValueError("first")
        time.sleep(0.01)

    with open_executor("threads", 1) as threads, pytest.raises(ValueError, match="first"):
        list(run(threads, work, range(200)))
    assert len(begun) < 100


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
    both = threading.Barrier(2, timeout=10)
    with open_executor("threads", 2) as threads:
        assert len(list(run(threads, lambda _: both.wait(), range(2)))) == 2


def test_work_in_processes_is_done_elsewhere() -> None:
    with open_executor("processes", 1) as processes:
        assert [pid for _, pid in run(processes, process_of, [0])] != [os.getpid()]


def process_of(_: int) -> int:
    return os.getpid()


def test_an_unknown_executor_is_named() -> None:
    with (
        pytest.raises(ConfigError, match="executor 'slurm' is unknown; use serial, threads"),
        open_executor("slurm"),
    ):
        pass


@pytest.mark.parametrize("kind", ["dask", "tcp://10.0.0.1:8786"])
def test_without_dask_the_install_line_is_given(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(MissingDependencyError, match=r"pip install 'wsiseg\[cluster\]'"),
        open_executor(kind),
    ):
        pass


def test_a_scheduler_is_joined_by_its_address() -> None:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
        ) as cluster,
        open_executor(cluster.scheduler_address) as executor,
    ):
        assert dict(run(executor, digest, range(3))) == {item: digest(item) for item in range(3)}


def test_two_dask_clusters_do_not_get_in_each_others_way() -> None:
    pytest.importorskip("distributed")
    with open_executor("dask", 1) as one, open_executor("dask", 1) as other:
        for executor in (one, other):
            assert dict(run(executor, digest, [5])) == {5: digest(5)}


def test_only_this_file_imports_dask() -> None:
    root = Path(__file__).resolve().parents[1] / "wsiseg"
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
    assert found == ["compute.py"]
