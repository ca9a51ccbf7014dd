"""Disks that are full, limited or closed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.faults.runs import CONFIG, PATIENCE, contents, marks, posix, process, wsiseg_annotate
from wsiseg.errors import StoreError
from wsiseg.run import annotate


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
