"""Runs of `wsiseg annotate` in processes of their own, and what they leave behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import files
from wsiseg.config import Config

ROOT = Path(__file__).resolve().parents[2]
CONFIG = Config.model_validate({"tile": {"block": 224}, "predict": {"checkpoint": "tiny"}})
NAMES = ("a", "b")
PATIENCE = 1800
"""Seconds until a process counts as stuck; a busy machine takes minutes for what takes one."""
posix = pytest.mark.skipif(sys.platform == "win32", reason="kills and limits are POSIX")


def contents(out: Path) -> dict[str, bytes]:
    """Every file of the stores and polygons; not what a killed writer began and never named."""
    return files.contents(out, "slides", "geojson", unnamed=False)


def marks(out: Path) -> int:
    return len(list(out.glob("slides/*.zarr/done/*/c.*")))


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", **more}


@contextmanager
def process(*command: str, **more: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, *command], env=environment(**more), text=True, cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,  # a group of its own, as a terminal gives to a command
    ) as started:  # fmt: skip
        try:
            yield started
        finally:
            started.kill()


def wsiseg_annotate(folder: Path, out: Path, *options: str, **more: str):
    command = ["annotate", str(folder), "-o", str(out), "--set", "tile.block=224"]
    command += ["--set", "predict.checkpoint=tiny", *options]
    return process("-c", "from wsiseg.cli import app; app()", *command, **more)
