"""The gain by `wsiseg suggest`: the places that it chooses against random ones, over seeds.

    python benchmarks/suggesting.py FOLDER SEED... [--steps 300] [--times 2] [--rare 0.03]

The slides, the first 30 rectangles and the simulated person are those of examples/loop/loop.py:
synthetic slides, two labelled and one held out, whose truth is known. The two ways differ only in
the choice of places: every model is trained for the same number of steps and scored on all pixels
of the held-out slide, without the CRF. Settings of `suggest` were chosen on seeds 11 to 13. With
`--times 2` slides are twice as wide and high, so that a sixth of them is labelled. `--rare`: the
share of the tissue that necrosis covers, and of the rest immune cells.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "loop"))

import loop

import wsiseg
from wsiseg.compute import open_executor
from wsiseg.evaluate import Scores, confusion_matrix, score
from wsiseg.geometry import Box
from wsiseg.labels import Labelling, label_slides
from wsiseg.learn.start import extend_config
from wsiseg.predict import predict_tiles
from wsiseg.stitch import stitch_labels
from wsiseg.store import SlideStore
from wsiseg.train import gather_tiles, train_model

STEPS, BATCH, ROUNDS = 100, 16, 2
WAYS = ("suggested", "at random")


def train_alike(found: Labelling, out: Path, steps: int = STEPS, **settings: object) -> int:
    """Train for so many steps, or little more; return the number of windows."""
    tiles = gather_tiles(found.slides)
    epochs = -(-steps // -(-len(tiles) // BATCH))
    given = {"epochs": epochs, "batch_size": BATCH, **settings}
    train_model(tiles, extend_config(None, found.classes, given), out, overwrite=True)
    return len(tiles)


class Way(loop.Loop):
    """One way through the loop, without folds, reports and outlines."""

    steps = STEPS

    def learn(self, whole: bool = True) -> None:
        """Train on all labels so far, map the slides, and score the one without labels."""
        found = label_slides(self.root / "labels", [self.out])
        windows = train_alike(found, self.model, self.steps)
        config = loop.config(self.model)
        with open_executor("serial") as pool:
            for name in (*loop.TRAIN, loop.TEST) if whole else (loop.TEST,):
                predict_tiles(self.store(name), config, pool)
            stitch_labels(self.store(loop.TEST), config, pool)
        scores = self.score()
        self.found.append(scores.miou)
        iou = " ".join(f"{value:.2f}" for value in scores.iou)
        print(f"  {windows} windows, mean IoU {scores.miou:.3f} ({iou})", flush=True)

    def store(self, name: str) -> Path:
        """Return the path of a slide's store."""
        return self.out / "slides" / f"{name}.zarr"

    def score(self) -> Scores:
        """Score every pixel of the held-out slide."""
        store, truth = SlideStore(self.store(loop.TEST)), self.truths[loop.TEST].labels
        names = store.palette.classes.names
        order = np.full(256, 255, np.uint8)
        order[: len(names)] = [names.index(name) for name in loop.PALETTE.names]
        height, width = np.minimum(truth.shape, (store.grid.height, store.grid.width)).tolist()
        found = store.read_labels(Box(0, 0, width, height))
        return score(confusion_matrix(order[truth[:height, :width]], found, len(names)))

    def run(self) -> list[float]:
        """Return the mean IoU of the held-out slide, initially and after each round."""
        chosen = self.how == WAYS[0]
        for number in range(1, ROUNDS + 1):
            places = (self.suggest if chosen else self.pick_any)(loop.PLACES)
            self.draw(f"labels/round{number}", places)
            self.learn(whole=chosen and number < ROUNDS)
        return self.found


def begin(root: Path, seed: int) -> Way:
    """Make the slides, their stores and the first round, which both ways share."""
    truths = loop.make_slides(root / "slides", seed)
    first = Way(root / "first", root / "slides", truths, seed, False)
    shutil.rmtree(first.root, ignore_errors=True)
    (first.out / "slides").mkdir(parents=True)
    with open_executor("serial") as pool:
        for name in truths:
            slide = root / "slides" / f"{name}.svs"
            wsiseg.tile_slide(slide, first.store(name), loop.config(), pool)
    first.draw("labels/first", first.pick_clear(loop.FIRST))
    first.learn()
    return first


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("seeds", type=int, nargs="+")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each training")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--rare", type=float, default=loop.RARE)
    given = parser.parse_args()
    Way.steps, loop.RARE = given.steps, given.rare
    loop.WIDTH, loop.HEIGHT = given.times * loop.WIDTH, given.times * loop.HEIGHT
    scores: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for seed in given.seeds:
        began, root = time.process_time(), given.folder / f"seed{seed}"
        print(f"seed {seed}", flush=True)
        first = begin(root, seed)
        for way, rows in scores.items():
            print(f" {way}", flush=True)
            branch = root / way.replace(" ", "_")
            shutil.rmtree(branch, ignore_errors=True)
            rows.append(first.branch(branch, way).run())
        print(f" {time.process_time() - began:.0f} s of CPU", flush=True)
        show({way: np.array(rows) for way, rows in scores.items()}, given.seeds)


def show(scores: dict[str, np.ndarray], seeds: list[int]) -> None:
    """Print a row per finished seed, then mean and standard deviation, also of the difference."""
    print(
        "| seed | first |" + "".join(f" {w}, round {r + 1} |" for r in range(ROUNDS) for w in WAYS)
    )
    print("|---|---|" + "---|" * (ROUNDS * len(WAYS)))
    both = [scores[way] for way in WAYS]
    table = np.column_stack(
        [both[0][:, 0], *(rows[:, r + 1] for r in range(ROUNDS) for rows in both)]
    )
    for seed, row in zip(seeds, table, strict=False):
        print(f"| {seed} | " + " | ".join(f"{value:.3f}" for value in row) + " |")
    print(f"mean: {loop.summarize(table)}")
    print(f"suggested less at random, by round: {loop.summarize((both[0] - both[1])[:, 1:])}")


if __name__ == "__main__":
    main()
