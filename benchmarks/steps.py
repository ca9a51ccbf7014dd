"""CPU time of `tile_slide` and `stitch_labels` in this and another checkout, in turn.

    python benchmarks/steps.py SLIDE --before WORKTREE [--rounds 5]

WORKTREE is a checkout of an earlier commit (`git worktree add`). Each checkout has its own process,
which does everything once before it is measured; medians of the rounds, which alternate the order.
The CRF is off, as it is not compared.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

WORKER = """
import json, shutil, sys, tempfile, time
from pathlib import Path
from wsiseg.compute import open_executor
from wsiseg.config import Config
from wsiseg.predict import predict_tiles
from wsiseg.stitch import stitch_labels
from wsiseg.store import SlideStore
from wsiseg.tile import tile_slide

config = Config.model_validate({
    "predict": {"checkpoint": "tiny"}, "stitch": {"refine": False, "probabilities": False},
})

def timed(work):
    begun = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - begun[0], time.perf_counter() - begun[1]

with tempfile.TemporaryDirectory() as folder, open_executor("threads", 2) as pool:
    kept, path = Path(folder, "kept.zarr"), Path(folder, "a.zarr")
    tile_slide(sys.argv[1], kept, config, pool)
    predict_tiles(kept, config, pool)
    stitch_labels(kept, config, pool)
    print("ready", flush=True)
    for _ in sys.stdin:
        shutil.rmtree(path, ignore_errors=True)
        tiled = timed(lambda: tile_slide(sys.argv[1], path, config, pool))
        SlideStore(kept).clear_marks("stitch")
        shutil.rmtree(kept / "done" / "stitch-pyramid", ignore_errors=True)
        stitched = timed(lambda: stitch_labels(kept, config, pool))
        print(json.dumps({"tile": tiled, "stitch": stitched}), flush=True)
"""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    trees = {"before": given.before, "now": Path(__file__).resolve().parents[1]}
    workers = {name: start(tree, given.slide) for name, tree in trees.items()}
    taken: dict[str, list[dict[str, list[float]]]] = {name: [] for name in trees}
    for turn in range(given.rounds):
        for name in list(trees)[:: 1 if turn % 2 else -1]:
            taken[name].append(ask(workers[name]))
    for worker in workers.values():
        worker.communicate()
    print("| step | before, s CPU | now, s CPU | ratio (CPU) | ratio (clock) | rounds (CPU) |")
    print("|---|---|---|---|---|---|")
    for step in ("tile", "stitch"):
        cpu, clock = (
            [median(one[step][i] for one in taken[name]) for name in trees] for i in (0, 1)
        )
        pairs = zip(*(taken[name] for name in trees), strict=True)
        ratios = ", ".join(f"{now[step][0] / old[step][0]:.2f}" for old, now in pairs)
        print(
            f"| {step} | {cpu[0]:.2f} | {cpu[1]:.2f} | {cpu[1] / cpu[0]:.3f} | "
            f"{clock[1] / clock[0]:.3f} | {ratios} |"
        )


def start(tree: Path, slide: Path) -> subprocess.Popen[str]:
    """Start a process with the code of `tree`, and wait until it is ready."""
    worker = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", WORKER, str(slide)], text=True,
        env={**os.environ, "PYTHONPATH": str(tree)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert worker.stdout is not None
    assert worker.stdout.readline() == "ready\n"
    return worker


def ask(worker: subprocess.Popen[str]) -> dict[str, list[float]]:
    """Request CPU and wall seconds of each step."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write("go\n")
    worker.stdin.flush()
    return dict(json.loads(worker.stdout.readline()))


if __name__ == "__main__":
    main()
