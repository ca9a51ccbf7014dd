"""Runs that are killed, interrupted, or meet one another."""

from __future__ import annotations

import csv
import os
import re
import signal
import time

import pytest

from tests.faults.runs import (
    CONFIG,
    PATIENCE,
    contents,
    marks,
    posix,
    process,
    wsiseg_annotate,
)
from tests.waiting import wait_until
from wsiseg.run import annotate
from wsiseg.store import SlideStore


@posix
def test_random_kills_leave_no_trace():
    """Three of the hundred that ``python -m tests.kills`` does."""
    with process("-m", "tests.kills", "--kills=3", "--executor=serial") as run:
        told, errors = run.communicate(timeout=PATIENCE)
    assert run.returncode == 0, errors
    assert re.match(r"\d+ kills of serial in \d+ runs", told), told


PAUSED = """
import sys, time
from wsiseg.run import annotate
from wsiseg.config import Config
def report(job, step, done, total):
    if step == "predict" and done >= 2:
        print("now", flush=True)
        time.sleep(600)
annotate(sys.argv[1], sys.argv[2], Config.model_validate(
    {"tile": {"block": 224}, "predict": {"checkpoint": "tiny"}}),
         executor="serial", progress=report)
"""


@posix
def test_a_second_run_is_refused_until_the_first_is_gone(folder, finished, tmp_path):
    out, slide = tmp_path / "out", folder / "a.svs"
    with process("-c", PAUSED, str(slide), str(out)) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "now\n"
        (refused,) = annotate(slide, out, CONFIG, executor="serial")
        assert refused.status == "failed"
        assert f"another run writes it (process {first.pid} on" in refused.error
        other = annotate(folder / "b.svs", out, CONFIG, executor="serial")
        assert other[0].status == "done", "another slide in the same output is free"
        first.kill()
        first.wait()
        # No waiting after a crash: the holder is known to be gone.
        (result,) = annotate(slide, out, CONFIG, executor="serial")
    assert result.status == "done", result.error
    assert contents(out) == finished
    assert not list(out.rglob("*.lock*"))
    rows = {row["slide"]: row for row in csv.DictReader((out / "summary.csv").open())}
    assert {row["status"] for row in rows.values()} == {"done"}
    assert rows.keys() == {"a", "b"}


WORKING = """
import time
from wsiseg.compute import open_executor
with open_executor("processes", 2) as pool:
    list(pool.map(abs, range(8)))
    at_work = [pool.submit(time.sleep, 240) for _ in range(2)]
    while not all(future.running() for future in at_work):
        time.sleep(0.01)
    print("now", flush=True)
"""


@posix
def test_worker_processes_end_with_the_one_that_is_killed():
    """They stayed for ever, with all their memory."""
    with process("-c", WORKING) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "now\n"
        run.kill()
        run.communicate(timeout=120)  # the workers hold its ends of the pipes as long as they live


STARTING = """
import time
from wsiseg.compute import open_executor
with open_executor("processes", 2) as pool:
    at_work = [pool.submit(time.sleep, 2) for _ in range(2)]
    print("now", flush=True)
    try:
        time.sleep(240)
    except KeyboardInterrupt:
        print([future.result() for future in at_work])
"""


@posix
@pytest.mark.parametrize("seconds", [0.1, 0.2, 1.0])
def test_ctrl_c_in_a_terminal_leaves_worker_processes_alone(seconds):
    """Each printed a traceback, some while they started."""
    with process("-c", STARTING) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "now\n"
        time.sleep(seconds)
        os.killpg(run.pid, signal.SIGINT)
        told, errors = run.communicate(timeout=PATIENCE)
    assert (told, errors) == ("[None, None]\n", "")


KILLED_BEFORE_THE_MARK = """
import os, sys
from wsiseg.run import annotate
from wsiseg.config import Config
from wsiseg.store import SlideStore
mark_done = SlideStore.mark_done
def die(self, step, block, digest):
    if (step, block) == ("stitch", 4):
        os.kill(os.getpid(), 9)
    mark_done(self, step, block, digest)
SlideStore.mark_done = die
annotate(sys.argv[1], sys.argv[2], Config.model_validate(
    {"tile": {"block": 224}, "predict": {"checkpoint": "tiny"},
     "stitch": {"refine": False, "gate": "none"}}), executor="serial")
"""


@posix
def test_a_block_of_other_settings_is_not_taken_for_ours(folder, finished, tmp_path):
    """Finished, begun again with other settings, killed between a block and its mark, and back."""
    out, slide = tmp_path / "out", folder / "a.svs"
    annotate(slide, out, CONFIG, executor="serial")
    store = SlideStore(out / "slides" / "a.zarr")
    ours = store.read_labels(store.grid.block_box(4)).tobytes()
    with process("-c", KILLED_BEFORE_THE_MARK, str(slide), str(out)) as run:
        assert run.wait(timeout=PATIENCE) == -signal.SIGKILL
    assert store.read_labels(store.grid.block_box(4)).tobytes() != ours
    (result,) = annotate(slide, out, CONFIG, executor="serial")
    assert result.status == "done", result.error
    theirs = {name: data for name, data in finished.items() if "/b." not in name}
    assert contents(out) == theirs


SLOW = """
import sys, time
from wsiseg.run import annotate
from wsiseg.config import Config
from wsiseg.store import SlideStore
mark_done = SlideStore.mark_done
def slowly(self, step, block, digest):
    if step == "predict":
        sys.stdout.write("now\\n")  # one write: of two threads, print's word and newline would mix
        sys.stdout.flush()
        time.sleep(1)
    mark_done(self, step, block, digest)
SlideStore.mark_done = slowly
annotate(sys.argv[1], sys.argv[2], Config.model_validate(
    {"tile": {"block": 224}, "predict": {"checkpoint": "tiny"}}), executor="threads", workers=2)
"""


@posix
def test_ctrl_c_frees_the_store_when_its_blocks_have_ended(folder, finished, tmp_path):
    out, slide = tmp_path / "out", folder / "a.svs"
    with process("-c", SLOW, str(slide), str(out)) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "now\n"
        run.send_signal(signal.SIGINT)
        wait_until(lambda: not list(out.glob("slides/*.lock")), PATIENCE)
        left = contents(out)
        run.wait(timeout=PATIENCE)
        assert contents(out) == left, "blocks wrote after the lock was free"
    assert run.returncode != 0
    (result,) = annotate(slide, out, CONFIG, executor="serial")
    assert result.status == "done", result.error
    assert contents(out) == {name: data for name, data in finished.items() if "/b." not in name}


@posix
def test_sigterm_ends_a_run_as_ctrl_c_does(folder, finished, tmp_path):
    """It died without a word, as under a batch system at the end of its time."""
    out, slide = tmp_path / "out", folder / "a.svs"
    options = ("--executor", "serial", "--workers", "1")
    with wsiseg_annotate(slide, out, *options) as run:
        wait_until(lambda: marks(out), PATIENCE)
        run.send_signal(signal.SIGTERM)
        _, told = run.communicate(timeout=PATIENCE)
    assert run.returncode == 143
    assert "interrupted: what was finished is kept, and the same command continues" in told
    assert not list(out.glob("slides/*.lock"))
    (result,) = annotate(slide, out, CONFIG, executor="serial")
    assert result.status == "done", result.error
    assert contents(out) == {name: data for name, data in finished.items() if "/b." not in name}
