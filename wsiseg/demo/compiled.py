"""Compile what a map needs beside the demo's training, which computes on one core.

    python -m wsiseg.demo.compiled FOLDER

maps a small slide in an empty folder: whatever that takes is then in numba's cache.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from wsiseg.compiling import loading
from wsiseg.config import Config, PredictConfig
from wsiseg.demo.synthesis import synthesize_slide
from wsiseg.run import annotate

__all__ = ["compiling_beside"]


@contextmanager
def compiling_beside() -> Iterator[Callable[[], int]]:
    """Compile in another process during the block; yields what waits for its exit status.

    It only saves time: what it has not compiled is compiled when it is needed.
    """
    quiet = subprocess.DEVNULL
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-P", "-m", __name__, folder]
        with subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet) as process:
            try:
                yield process.wait
            finally:
                process.kill()  # no effect once it has ended


def main(folder: Path) -> None:
    """Map a small slide, by compiled code alone."""
    with loading():
        import numba  # noqa: F401  # now code is compiled for a small slide as well
    slide = folder / "small.svs"
    synthesize_slide(slide, 3_072, 2_560, seed=1)
    config = Config(predict=PredictConfig(checkpoint="tiny"))
    annotate(slide, folder / "out", config, executor="serial")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
