"""Kill `wsiseg annotate` at random, resume, and hold the result against an undisturbed run.

    python -m tests.kills [--kills 100] [--executor threads] [--seed 0]

Every run is a process of its own that ends by ``kill -9``, or by itself; it is forked from one that
has imported everything. Most are killed when so many blocks are done, a number drawn anew, and a
moment; the others at any time, which mostly is while files are made of the map. A few of them are a
test (`tests/faults`).
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from wsiseg.cli import app
from wsiseg.demo.synthesis import synthesize_slide

SIZE = {"width": 2240, "height": 1792}
BY_BLOCKS = 0.8
SETTINGS = ("tile.block=224", "predict.checkpoint=tiny", "stitch.refine=false")
SETTINGS += ("stitch.probabilities=true",)


def main() -> None:
    """Print what became of it; ends with 1 if bytes differ."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--executor", default="threads")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kill_at_random(Path(folder), given.kills, given.executor, given.seed)


def kill_at_random(folder: Path, kills: int, executor: str, seed: int) -> None:
    """Kill as often as that, in as many runs as it takes."""
    import wsiseg.predict  # noqa: F401  # heavy: before the forks

    draw, killed, ended, kept = random.Random(seed), 0, 0, []
    (folder / "slides").mkdir()
    synthesize_slide(folder / "slides" / "a.svs", **SIZE, seed=3)
    begun = time.perf_counter()
    assert run(folder, "whole", executor, None), "the undisturbed run failed"
    whole, length = contents(folder / "whole"), time.perf_counter() - begun
    total = count_marks(folder / "whole")
    while killed < kills:
        out = f"out-{ended}"
        while not run(folder, out, executor, choose_moment(draw, folder / out, total, length)):
            killed += 1
            kept.append(count_marks(folder / out))
            sys.stderr.write(f"killed {killed} times, at {kept[-1]} blocks\n")
        ours = contents(folder / out)
        differ = sorted(n for n in {*ours, *whole} if ours.get(n) != whole.get(n))
        assert not differ, f"after {killed} kills these differ: {differ}"
        ended += 1
    spread = sorted(kept)[:: max(1, len(kept) // 16)]
    sys.stdout.write(
        f"{killed} kills of {executor} in {ended} runs of {length:.1f} s; each ended with the same "
        f"{len(whole)} files; blocks of {total} that were done at a kill: {spread}\n"
    )


def choose_moment(draw: random.Random, out: Path, total: int, length: float) -> Callable[[], bool]:
    """What says when to kill."""
    known, moment = count_marks(out), draw.uniform(0, 0.1)
    if known < total and draw.random() < BY_BLOCKS:
        wanted = draw.randint(known, total - 1)
        reached: list[float] = []

        def is_time() -> bool:
            if not reached and count_marks(out) >= wanted:
                reached.append(time.monotonic())
            return bool(reached) and time.monotonic() >= reached[0] + moment

        return is_time
    deadline = time.monotonic() + draw.uniform(0, length)
    return lambda: time.monotonic() >= deadline


def run(folder: Path, out: str, executor: str, is_time: Callable[[], bool] | None) -> bool:
    """Whether a run ended by itself, before it was killed."""
    child = os.fork()
    if not child:
        _annotate(folder, out, executor)
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            assert status == 0, (folder / "said.txt").read_text()
            return True
        if is_time is not None and is_time():
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return False
        time.sleep(0.002)


def _annotate(folder: Path, out: str, executor: str) -> None:
    """Run the command in this process, and end it."""
    said = os.open(folder / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    command = ["annotate", str(folder / "slides"), "-o", str(folder / out), "--workers", "2"]
    command += ["--executor", executor, "--quiet"]
    for setting in SETTINGS:
        command += ["--set", setting]
    code = 1
    try:
        app(command, standalone_mode=False)
        code = 0
    finally:
        sys.stdout.flush()
        os._exit(code)


def contents(out: Path) -> dict[str, bytes]:
    """Every file of the store, the polygons and pictures; not what a killed writer never named."""
    places = (out / "slides", out / "geojson", out / "overlays", out / "tissue")
    return {
        file.relative_to(out).as_posix(): file.read_bytes()
        for place in places
        for file in place.rglob("*")
        if file.is_file() and not file.name.endswith((".partial", ".part"))
    }


def count_marks(out: Path) -> int:
    """Blocks that are marked as done."""
    return len(list(out.glob("slides/*.zarr/done/*/c.*")))


if __name__ == "__main__":
    main()
