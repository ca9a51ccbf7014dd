"""Faults, on real processes: what was done is kept, nothing half-done is believed, all is said."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import tifffile

from tests.waiting import wait_until
from wsiseg.compute import Step
from wsiseg.config import Config
from wsiseg.demo.synthesis import synthesize_slide
from wsiseg.errors import ClusterError, StoreError
from wsiseg.run import annotate
from wsiseg.store import SlideStore

ROOT = Path(__file__).resolve().parents[1]
CONFIG = Config.model_validate({"tile": {"block": 224}, "predict": {"checkpoint": "tiny"}})
NAMES = ("a", "b")
PATIENCE = 1800
"""Seconds until a process counts as stuck; a busy machine takes minutes for what takes one."""

posix = pytest.mark.skipif(sys.platform == "win32", reason="kills and limits are POSIX")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    for seed, name in enumerate(NAMES):
        synthesize_slide(folder / f"{name}.svs", width=1344, height=1344, seed=seed + 3)
    return folder


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished")
    results = annotate(folder, out, CONFIG, executor="serial")
    assert [result.status for result in results] == ["done", "done"]
    return contents(out)


def contents(out: Path) -> dict[str, bytes]:
    """Every file of the stores and polygons; not what a killed writer began and never named."""
    files = [*out.glob("slides/**/*"), *out.glob("geojson/**/*")]
    return {
        str(file.relative_to(out)): file.read_bytes()
        for file in files
        if file.is_file() and not file.name.endswith((".partial", ".part"))
    }


def marks(out: Path) -> int:
    return len(list(out.glob("slides/*.zarr/done/*/c.*")))


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", **more}


@contextmanager
def process(*command: str, **more: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, *command], env=environment(**more), text=True, cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as started:  # fmt: skip
        try:
            yield started
        finally:
            started.kill()


def wsiseg_annotate(folder: Path, out: Path, *options: str, **more: str):
    command = ["annotate", str(folder), "-o", str(out), "--set", "tile.block=224"]
    command += ["--set", "predict.checkpoint=tiny", *options]
    return process("-c", "from wsiseg.cli import app; app()", *command, **more)


# -- a cluster ---------------------------------------------------------------------------------

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


@posix
def test_random_kills_leave_no_trace():
    """Three of the hundred that ``python -m tests.kills`` does."""
    with process("-m", "tests.kills", "--kills=3", "--executor=serial") as run:
        told, errors = run.communicate(timeout=PATIENCE)
    assert run.returncode == 0, errors
    assert re.match(r"\d+ kills of serial in \d+ runs", told), told


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


# -- slides ------------------------------------------------------------------------------------


@pytest.mark.parametrize("executor", ["serial", "threads"])
def test_a_slide_vanishes_in_the_middle(folder, finished, tmp_path, executor):
    slides, out = tmp_path / "slides", tmp_path / "out"
    slides.mkdir()
    for name in NAMES:
        (slides / f"{name}.svs").write_bytes((folder / f"{name}.svs").read_bytes())

    def vanish(job, step, done, total):
        if (job.name, step) == ("a", "tile") and done >= 2:  # tiles run far ahead of the rest
            job.path.unlink(missing_ok=True)

    results = annotate(slides, out, CONFIG, executor=executor, workers=2, progress=vanish)
    assert [result.status for result in results] == ["failed", "done"]
    assert re.search(r"a\.svs", results[0].error)
    rows = {row["slide"]: row for row in csv.DictReader((out / "summary.csv").open())}
    assert rows["a"]["error"] == results[0].error
    assert not (out / "geojson" / "a.geojson").exists()
    (slides / "a.svs").write_bytes((folder / "a.svs").read_bytes())
    # Its store names the other folder; the pixels, maps and polygons must be the same.
    first = annotate(slides, out, CONFIG, executor=executor, workers=2)[0]
    assert first.status == "done", first.error
    ours = contents(out)
    assert ours.keys() == finished.keys()
    assert sorted(name for name in ours if ours[name] != finished[name]) == [
        "slides/a.zarr/zarr.json", "slides/b.zarr/zarr.json"
    ]  # fmt: skip


def test_a_slide_fails_to_decode_in_the_middle(folder, tmp_path):
    slides, out = tmp_path / "slides", tmp_path / "out"
    slides.mkdir()
    data = bytearray((folder / "a.svs").read_bytes())
    with tifffile.TiffFile(folder / "a.svs") as tiff:
        page = tiff.pages[0]
        # The largest compressed tile holds tissue for certain.
        size, start = max(zip(page.databytecounts, page.dataoffsets, strict=True))
    data[start : start + size] = bytes(size)
    (slides / "a.svs").write_bytes(bytes(data))
    (slides / "b.svs").write_bytes((folder / "b.svs").read_bytes())
    results = annotate(slides, out, CONFIG, executor="threads", workers=2)
    assert [result.status for result in results] == ["failed", "done"]
    assert "a.svs" in results[0].error
    assert marks(out) > 0


# -- disks -------------------------------------------------------------------------------------


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[None]:
    """A file system of `size` at `path`, where the machine lets us mount one."""
    path.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    try:
        made = subprocess.run(["mount", *options], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command")
    if made.returncode:
        pytest.skip("mounting needs rights that we do not have")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@posix
def test_a_full_disk_and_then_room(folder, finished, tmp_path):
    out = tmp_path / "out"
    with small_disk(out, "900k"):
        assert "No space left on device" in annotate_in_vain(folder, out)
        kept = marks(out)
        assert kept > 0
        subprocess.run(["mount", "-o", "remount,size=200m", str(out)], check=True)
        seen: dict[tuple[str, str], int] = {}

        def report(job, step, done, total):
            seen.setdefault((job.name, step), done)

        results = annotate(folder, out, CONFIG, executor="threads", workers=2, progress=report)
        assert [result.status for result in results] == ["done", "done"], results
        assert contents(out) == finished
        assert max(seen.values()) > 0, "all was done again"


def annotate_in_vain(folder: Path, out: Path) -> str:
    with wsiseg_annotate(folder, out, "--workers=2") as run:
        _, said = run.communicate(timeout=PATIENCE)
    assert run.returncode == 1
    assert "Traceback" not in said, said
    return said


@posix
def test_a_file_size_limit_is_told_and_resumed(folder, finished, tmp_path):
    """A quota's way of failing: the write is refused in the middle of a file."""
    out = tmp_path / "out"
    code = (
        "import resource, sys\nfrom wsiseg.cli import app\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))\n"
        "sys.argv = ['wsiseg', *sys.argv[1:]]\napp()\n"
    )
    command = ["annotate", str(folder), "-o", str(out), "--set=tile.block=224", "--executor=serial"]
    command.append("--set=predict.checkpoint=tiny")
    with process("-c", code, *command) as run:
        _, errors = run.communicate(timeout=PATIENCE)
    assert run.returncode == 1
    assert "File too large" in errors
    assert "Traceback" not in errors
    results = annotate(folder, out, CONFIG, executor="serial")
    assert [result.status for result in results] == ["done", "done"], results
    assert contents(out) == finished


@posix
def test_an_output_that_cannot_be_written(folder, tmp_path):
    out = tmp_path / "out"
    with small_disk(out, "1m") if os.geteuid() == 0 else ExitStack():
        if os.geteuid() == 0:  # root may write what others may not
            subprocess.run(["mount", "-o", "remount,ro", str(out)], check=True)
        else:
            out.mkdir()
            out.chmod(0o555)
        with pytest.raises(StoreError, match=r"cannot be read or written: (Read-only|Permission)"):
            annotate(folder, out, CONFIG, executor="serial")


# -- other runs --------------------------------------------------------------------------------

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
