"""Workers and schedulers that are killed."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.faults.runs import CONFIG, PATIENCE, contents, marks, posix, process, wsiseg_annotate
from tests.waiting import wait_until
from wsiseg.compute import Step
from wsiseg.errors import ClusterError
from wsiseg.run import annotate
from wsiseg.store import SlideStore

SPY = """
import os
from wsiseg.store import SlideStore
def spied(name, do=None):
    do = getattr(SlideStore, name)
    def method(self, step, block, *rest):
        if name == "mark_done":
            do(self, step, block, *rest)
        with open(os.environ["SPY"], "a") as log:
            log.write(f"{name} {os.getpid()} {self.path.name} {step} {block}\\n")
        if name == "begin":
            do(self, step, block, *rest)
    setattr(SlideStore, name, method)
if not hasattr(SlideStore, "spied"):  # dask runs a preload more than once
    SlideStore.spied = True
    spied("begin"), spied("mark_done")
"""


@pytest.fixture
def spy(tmp_path):
    """A worker's preload that logs each block when it begins and when it is marked."""
    pytest.importorskip("distributed")
    (tmp_path / "spy.py").write_text(SPY)
    (tmp_path / "log").write_text("")
    return tmp_path / "spy.py"


def read_log(spy: Path) -> list[list[str]]:
    return [line.split() for line in spy.with_name("log").read_text().splitlines()]


@contextmanager
def cluster(spy: Path, workers: int) -> Iterator[tuple[str, list[subprocess.Popen[str]]]]:
    """A scheduler and workers as one starts them by hand: its address, and the processes."""
    file = spy.with_name("scheduler.json")
    file.unlink(missing_ok=True)
    command = ["-m", "distributed.cli.dask_scheduler", "--host=127.0.0.1", "--port=0"]
    command += ["--no-dashboard", f"--scheduler-file={file}"]
    with ExitStack() as stack:
        stack.callback(lambda: [one.kill() for one in started])
        started = [stack.enter_context(process(*command))]
        wait_until(lambda: read_address(file), PATIENCE)  # whoever connects may wait for less
        address = read_address(file)
        for _ in range(workers):
            command = ["-m", "distributed.cli.dask_worker", address, "--nthreads=1", "--no-nanny"]
            command += ["--no-dashboard", f"--preload={spy}", f"--local-directory={spy.parent}"]
            one = process(*command, SPY=str(spy.with_name("log")))
            started.append(stack.enter_context(one))
        yield address, started


def read_address(file: Path) -> str:
    """Where a scheduler says that it listens; empty until it does."""
    with suppress(OSError, ValueError):
        return str(json.loads(file.read_text())["address"])
    return ""


@posix
def test_workers_are_killed_one_after_another(folder, finished, spy, tmp_path):
    """`kill -9` of two of three workers: same bytes, and only what they held is done again."""
    out, dead = tmp_path / "out", []
    with cluster(spy, workers=3) as (address, started):

        def kill_one(job, step, done, total):
            log = read_log(spy)
            if len(dead) < 2 and len(log) > 16 * (len(dead) + 1):
                busy = [int(line[1]) for line in log if int(line[1]) not in dead]
                os.kill(busy[-1], signal.SIGKILL)
                dead.append(busy[-1])

        results = annotate(folder, out, CONFIG, executor=address, progress=kill_one)
        assert {one.pid for one in started[1:]} > set(dead)
    assert len(dead) == 2
    assert [result.status for result in results] == ["done", "done"], results
    assert contents(out) == finished
    began = Counter(tuple(line[2:]) for line in read_log(spy) if line[0] == "begin")
    again = [block for block, times in began.items() if times > 1]
    assert sum(began.values()) - len(began) <= 2, again
    for block in again:
        by = [int(line[1]) for line in read_log(spy) if tuple(line[2:]) == block]
        assert by[0] in dead, "a living worker's block was done again"


@posix
def test_the_scheduler_is_killed_and_the_run_resumes(folder, finished, spy, tmp_path):
    out = tmp_path / "out"
    with (
        cluster(spy, workers=1) as (address, started),
        wsiseg_annotate(
            folder, out, "--scheduler", address, DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT="10s"
        ) as run,
    ):
        wait_until(lambda: len(read_log(spy)) > 16, PATIENCE)
        started[0].kill()
        _, said = run.communicate(timeout=PATIENCE)
    assert run.returncode == 1
    assert re.search(r"the dask scheduler at tcp://.* was lost; finished blocks are kept", said)
    rows = {row["slide"]: row for row in csv.DictReader((out / "summary.csv").open())}
    assert {row["status"] for row in rows.values()} == {"failed"}
    kept = marks(out)
    assert kept > 8
    with cluster(spy, workers=1) as (address, _):
        before = len([line for line in read_log(spy) if line[0] == "mark_done"])
        results = annotate(folder, out, CONFIG, executor=address)
        after = len([line for line in read_log(spy) if line[0] == "mark_done"])
    assert [result.status for result in results] == ["done", "done"], results
    assert contents(out) == finished
    total = sum("/done/" in name and "/c." in name for name in finished)
    assert after - before <= total - kept, "finished blocks were done again"


def test_nobody_answers_at_the_address(folder, tmp_path, monkeypatch):
    dask = pytest.importorskip("dask")
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "300ms"}),
        pytest.raises(ClusterError, match=r"tcp://127\.0\.0\.1:9: no dask scheduler answers"),
    ):
        annotate(folder, tmp_path / "out", CONFIG, executor="tcp://127.0.0.1:9")


def test_a_block_that_is_done_is_not_begun_again(folder, finished, tmp_path, monkeypatch):
    """By a cluster that lost the worker which had just done it, while others read its mark."""
    out, begun, begin, task = tmp_path / "out", Counter(), SlideStore.begin, Step.task

    def note(self, step, block):
        begun[step, block] += 1
        begin(self, step, block)

    def twice(self, block):
        call = task(self, block)
        return lambda: (call(), call())

    monkeypatch.setattr(SlideStore, "begin", note)
    monkeypatch.setattr(Step, "task", twice)
    (result,) = annotate(folder / "a.svs", out, CONFIG, executor="serial")
    assert result.status == "done", result.error
    assert {step for step, _ in begun} >= {"tile", "predict", "stitch"}
    assert set(begun.values()) == {1}
    assert contents(out) == {name: data for name, data in finished.items() if "/b." not in name}
