"""The CRF of real blocks and of made-up ones, before and after a change: CPU time and labels.

    python benchmarks/crf_blocks.py STORE [--before CHECKOUT] [--rounds 3] [--most 4]

STORE is a finished `slides/NAME.zarr` of `wsiseg annotate`, of which the fullest blocks are taken.
Each way runs in a process of its own, in turn; CPU milliseconds of one thread for the area of a
tile of 224 x 224 (what `wsiseg.stitch` does around the CRF left out), medians of the rounds. Labels
are compared where a class is possible, as the CRF gives them and after smoothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from wsiseg.stitch.majority import majority_filter

ROOT = Path(__file__).resolve().parents[1]
CHILD = """
import sys, json, time
root, store, most, made, crf, out = sys.argv[1:]
sys.path.insert(0, root)
import numpy as np, torch
torch.set_num_threads(1)
import wsiseg.stitch as stitch
from tests.model.crf.cases import make_case
from wsiseg.config import CrfConfig, StitchConfig
from wsiseg.geometry import Box
from wsiseg.store import SlideStore
from wsiseg.tissue import sample_tissue
config = CrfConfig.model_validate({"backend": "numba", **json.loads(crf)})
def timed(values, image, box):
    start = time.thread_time()
    q = stitch._refine(values, image, box, config)
    return 1e3 * (time.thread_time() - start) * 224 ** 2 / values[0].size, q
values, image = make_case(64, 64, 6, 1)
timed(values[0].numpy(), image[0].permute(1, 2, 0).numpy(), Box(0, 0, 64, 64))  # compiles
taken = []
timed_blocks = stitch._refine
if store:
    opened, settings = SlideStore(store), StitchConfig()
    def note(values, image, box, _):
        taken.append((values.copy(), image, box))
        return values
    stitch._refine = note
    def tissue(block):
        return int(sample_tissue(opened, opened.grid.block_box(block)).sum())
    for block in sorted(range(opened.grid.n_blocks), key=tissue)[-int(most):]:
        stitch._classify(opened, settings, block)
    stitch._refine = timed_blocks
else:
    values, image = make_case(int(made), int(made), 6, 0, cell=24)
    box = Box(0, 0, int(made), int(made))
    taken.append((values[0].numpy(), image[0].permute(1, 2, 0).numpy(), box))
times, labels = [], {}
for i, (values, image, box) in enumerate(taken):
    spent, q = timed(values, image, box)
    times.append((spent, values[0].size))
    labels[f"labels{i}"], labels[f"possible{i}"] = q.argmax(0).astype(np.uint8), values[-1] < 1
    if not store:
        labels[f"possible{i}"][:] = True
np.savez(out, **labels)
print(sum(t * n for t, n in times) / sum(n for _, n in times))
"""
WAYS = {"before": {}, "scale 1, band 0": {}, "scale 1, band 32": {"band": 32}}
WAYS["scale 2, band 32 (default)"] = {"scale": 2, "band": 32}


def run(way: str, args: argparse.Namespace, made: int, out: Path) -> float:
    """CPU ms a tile's area of one way, whose labels go to `out`."""
    root = args.before if way == "before" else ROOT
    store = "" if made else str(args.store)
    line = [sys.executable, "-c", CHILD, str(root), store, str(args.most), str(made)]
    line += [json.dumps(WAYS[way]), str(out)]
    kept = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, env=kept, cwd=root, check=True, capture_output=True, text=True)
    return float(done.stdout)


def agreement(one: Path, other: Path) -> tuple[float, float]:
    """Per cent of labels in common, raw and smoothed by 3 µm at 0.5 µm/px."""
    a, b = np.load(one), np.load(other)
    same = []
    for key in (name for name in a if name.startswith("labels")):
        possible = a[key.replace("labels", "possible")]
        smooth = [majority_filter(found[key], 6, 32) for found in (a, b)]
        same.append((a[key] == b[key])[possible])
        same.append((smooth[0] == smooth[1])[possible])
    return tuple(100 * float(np.concatenate(same[i::2]).mean()) for i in (0, 1))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--before", type=Path, help="another checkout, as it was before")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--most", type=int, default=4, help="blocks of the store")
    args = parser.parse_args()
    ways = [way for way in WAYS if way != "before" or args.before]
    print("| input | way | CPU ms a tile's area | of the first | same labels % | smoothed % |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, made in ((args.store.stem, 0), ("made up, 768 x 768", 768)):
            times: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(args.rounds):
                for i, way in enumerate(ways):
                    times[way].append(run(way, args, made, Path(folder) / f"{i}.npz"))
            first = statistics.median(times[ways[0]])
            for i, way in enumerate(ways):
                spent = statistics.median(times[way])
                raw, smooth = agreement(Path(folder) / "0.npz", Path(folder) / f"{i}.npz")
                row = f"| {name} | {way} | {spent:.1f} | {spent / first:.2f} | {raw:.2f} | "
                print(f"{row}{smooth:.2f} |", flush=True)


if __name__ == "__main__":
    main()
