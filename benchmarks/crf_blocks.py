"""The CRF on real and synthetic blocks, before and after a change: CPU time and labels.

    python benchmarks/crf_blocks.py STORE [--before CHECKOUT] [--rounds 3] [--most 4]

STORE is a finished `slides/NAME.zarr` of `wsiseg annotate`, whose fullest blocks are used. Each way
runs in its own process, in turn, on inputs from this checkout; times are CPU milliseconds of one
thread per area of a tile of 224 x 224, from probabilities to labels, medians of the rounds; each
process does each block once, after a small one that loads the compiled code (0.9 s). Labels
are compared where a class is possible, before and after smoothing.
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

import wsiseg.stitch as stitch
from wsiseg.config import StitchConfig
from wsiseg.stitch.majority import majority_filter
from wsiseg.store import SlideStore
from wsiseg.tissue import sample_tissue

ROOT = Path(__file__).resolve().parents[1]
CHILD = """
import sys, json, time, inspect
root, inputs, crf, out = sys.argv[1:]
sys.path.insert(0, root)
import numpy as np, torch
torch.set_num_threads(1)
import wsiseg.stitch as stitch
from wsiseg.config import CrfConfig
from wsiseg.geometry import Box
from wsiseg.stitch.weigh import pick_labels
config = CrfConfig.model_validate({"backend": "numba", **json.loads(crf)})
gives_labels = "winners" in inspect.signature(stitch._refine).parameters
def timed(values, image, box):
    winners, every = values.argmax(0).astype(np.uint8), np.ones(values.shape[1:], bool)
    start = time.thread_time()
    if gives_labels:
        labels = stitch._refine(values, image, winners, box, config)
    else:
        labels = pick_labels(stitch._refine(values, image, box, config), every).winner
    return 1e3 * (time.thread_time() - start) * 224 ** 2 / labels.size, labels
blocks = np.load(inputs)
count = len(blocks) // 3
def block(i):
    values, image = blocks[f"values{i}"], blocks[f"image{i}"]
    return values, image, Box(*blocks[f"corner{i}"].tolist(), *values.shape[:0:-1])
classes = len(blocks["values0"])  # small patches of each, so that every kernel is loaded
patch = np.indices((96, 96)).sum(0) // 24 % classes
values = np.where(np.arange(classes)[:, None, None] == patch, 0.9, 0.1 / (classes - 1))
image = np.repeat(np.uint8(patch * 20)[..., None], 3, 2)
timed(values.astype(np.float32), image, Box(0, 0, 96, 96))
times, labels = [], {}
for i in range(count):
    spent, found = timed(*block(i))
    times.append((spent, found.size))
    labels[f"labels{i}"] = found
np.savez(out, **labels)
print(sum(t * n for t, n in times) / sum(n for _, n in times))
"""
WAYS = {"before": {}, "scale 1, band 0": {}, "scale 1, band 24": {"band": 24}}
WAYS["scale 2, band 24 (default)"] = {"scale": 2, "band": 24}


def save_blocks(store: Path, most: int, out: Path) -> None:
    """Save the CRF's inputs for the fullest blocks of a store."""
    opened, settings = SlideStore(store), StitchConfig()
    saved: dict[str, np.ndarray] = {}
    refine = stitch._refine

    def note(values, image, winners, box, _):  # type: ignore[no-untyped-def] # as `_refine`
        i = len(saved) // 3
        saved[f"values{i}"], saved[f"image{i}"] = values.copy(), image
        saved[f"corner{i}"] = np.array([box.x, box.y])
        return winners

    def tissue(block: int) -> int:
        return int(sample_tissue(opened, opened.grid.block_box(block)).sum())

    stitch._refine = note
    for block in sorted(range(opened.grid.n_blocks), key=tissue)[-most:]:
        stitch._classify(opened, settings, block)
    stitch._refine = refine
    np.savez(out, **saved)


def make_block(side: int, out: Path) -> None:
    """Make a block with patches some 24 px wide of six classes."""
    sys.path.insert(0, str(ROOT))
    from tests.model.crf.cases import make_case

    values, image = make_case(side, side, 6, 0, cell=24)
    pixels = image[0].permute(1, 2, 0).numpy()
    np.savez(out, values0=values[0].numpy(), image0=pixels, corner0=np.array([0, 0]))


def run(way: str, before: Path | None, inputs: Path, out: Path) -> float:
    """Measure CPU ms per tile area of one way; its labels go to `out`."""
    root = before if way == "before" else ROOT
    line = [sys.executable, "-c", CHILD, str(root), str(inputs), json.dumps(WAYS[way]), str(out)]
    kept = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, env=kept, cwd=root, check=True, capture_output=True, text=True)
    return float(done.stdout)


def agreement(inputs: Path, one: Path, other: Path) -> tuple[float, float]:
    """Return the percentage of equal labels, raw and smoothed by 3 µm at 0.5 µm/px."""
    blocks, a, b = np.load(inputs), np.load(one), np.load(other)
    same = []
    for key in a:
        possible = blocks[key.replace("labels", "values")][-1] < 1
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
        inputs = [Path(folder) / "blocks.npz", Path(folder) / "made.npz"]
        save_blocks(args.store, args.most, inputs[0])
        make_block(768, inputs[1])
        for name, given in zip((args.store.stem, "made up, 768 x 768"), inputs, strict=True):
            times: dict[str, list[float]] = {way: [] for way in ways}
            out = [Path(folder) / f"{i}.npz" for i in range(len(ways))]
            for _ in range(args.rounds):
                for way, labels in zip(ways, out, strict=True):
                    times[way].append(run(way, args.before, given, labels))
            first = statistics.median(times[ways[0]])
            for way, labels in zip(ways, out, strict=True):
                spent = statistics.median(times[way])
                raw, smooth = agreement(given, out[0], labels)
                row = f"| {name} | {way} | {spent:.1f} | {spent / first:.2f} | {raw:.2f} | "
                print(f"{row}{smooth:.2f} |", flush=True)


if __name__ == "__main__":
    main()
