"""What a round of `learn --from` gains and what it forgets, on slides that the encoder never saw.

    python benchmarks/forgetting.py ATLAS FOLDER [--tries 10]

FOLDER holds encoders and checkpoints of pipelines/tissue_checkpoint.py, each made without a fold of
the slides of ATLAS. In every try, eight tiles of each of up to three classes are labelled on three
slides of a fold, with these classes only; `tissue` goes on from there for 60 steps, with the term
that keeps its exemplars' CAMs and without. Scored are the other tiles of the fold, of the labelled
slides and of the rest: average precision, and the share of the cells of tiles of one tissue that
get its label, for the classes that were labelled and for those that were not. Errors are standard
errors over the tries.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent / "tissue"))
sys.path.insert(0, str(Path(__file__).parents[1] / "pipelines"))

from scores import average_precision
from tissue_checkpoint import CONFIG, find_encoders, read_folds, to_patches

from wsiseg.learn.start import extend_config, start_from
from wsiseg.model.device import to_images
from wsiseg.model.trained import TrainedModel, load_trained
from wsiseg.train import Patches, train_model
from wsiseg.train.encoder import TileSet
from wsiseg.train.setup import make_model

CLASSES = len(CONFIG.classes) - len(CONFIG.background)
SLIDES, SHOWN, TILES, STEPS = 3, 3, 8, 60
LEAST = 3  # tiles of a class that is scored
WAYS = {
    "the checkpoint": None,
    "learned, nothing kept": 0.0,
    "learned, weight 0.01": 0.01,
    "weight 0.03": 0.03,
    "weight 0.1": 0.1,
}
PARTS = [(labelled, same) for labelled in (True, False) for same in (True, False)]


class Fold(NamedTuple):
    """The tiles of a fold, which the checkpoint was trained without."""

    tile_set: TileSet
    pure: np.ndarray
    """``(N,)`` whether a tile shows one class only."""
    start: str
    weights: str
    """Of the encoder."""

    @property
    def shown(self) -> np.ndarray:
        """``(N, K)`` bool."""
        return self.tile_set.tiles.labels[:, :CLASSES] > 0

    def load(self, checkpoint: str | Path) -> TrainedModel:
        """Load a checkpoint on the fold's encoder."""
        return load_trained(checkpoint, {"weights": self.weights})


class Try(NamedTuple):
    """What a person labels."""

    tiles: np.ndarray
    """Numbers of the tiles."""
    classes: np.ndarray
    """Numbers of the classes that are labelled in each."""


def read(atlas: Path, folder: Path) -> Iterator[tuple[int, Fold]]:
    """Yield the folds whose checkpoint is there."""
    tile_set, fold, pure = read_folds(atlas)
    for number, (weights, start) in find_encoders(folder).items():
        own = np.flatnonzero(fold == number)
        part = TileSet(
            tile_set.tiles.take(own), tuple(tile_set.paths[i] for i in own), tile_set.slides
        )  # fmt: skip
        yield number, Fold(part, pure[own], str(start), str(weights))


def choose(fold: Fold, rng: np.random.Generator) -> Try | None:
    """Choose slides, classes and tiles; None if these slides do not show two classes."""
    slides, shown = fold.tile_set.tiles.slides, fold.shown
    chosen = rng.permutation(np.unique(slides))[:SLIDES]
    pool = np.flatnonzero(np.isin(slides, chosen))
    common = np.flatnonzero(shown[pool].sum(0) >= TILES)
    classes = np.sort(rng.permutation(common)[:SHOWN])
    if len(classes) < 2:
        return None
    tiles: list[int] = []
    for label in classes:
        left = np.setdiff1d(pool[shown[pool, label]], tiles)
        tiles += rng.permutation(left)[:TILES].tolist()
    return Try(np.sort(tiles), classes)


def learn(fold: Fold, labelled: Try, weight: float, folder: Path) -> TrainedModel:
    """Go on from the fold's checkpoint; labels of other classes are unknown."""
    patches = to_patches(fold.tile_set, labelled.tiles)
    labels = np.full_like(patches.labels, np.nan)
    labels[:, labelled.classes] = patches.labels[:, labelled.classes]
    known = Patches(patches.paths, labels, patches.side)
    settings = {
        "recall_weight": weight, "encoder_options": {"weights": fold.weights}, "device": "cpu",
        "epochs": STEPS,
    }  # fmt: skip
    config = extend_config(fold.start, [], settings)
    state = start_from(fold.start, make_model(config), known, config)
    return fold.load(train_model(known, config, folder / f"{weight}.safetensors", start=state))


@torch.inference_mode()
def ask(source: TrainedModel, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return class logits ``(N, C)``, and the class of each cell, ``(N, cells)``."""
    logits, cells = [], []
    for start in range(0, len(pixels), 32):
        cams = source.cams(to_images(pixels[start : start + 32], source.device))
        logits.append(source.pool(cams).numpy())
        cells.append(cams.argmax(1).flatten(1).numpy())
    return np.concatenate(logits), np.concatenate(cells)


def measure(
    fold: Fold, labelled: Try, found: tuple[np.ndarray, np.ndarray]
) -> list[tuple[float, float]]:
    """Return average precision and the share of right cells, for each of `PARTS`."""
    logits, cells = found
    slides, shown = fold.tile_set.tiles.slides, fold.shown
    rest = np.setdiff1d(np.arange(len(slides)), labelled.tiles)
    near = np.isin(slides[rest], slides[labelled.tiles])
    result = []
    for is_labelled, same in PARTS:
        tiles = rest[near == same]
        classes = [k for k in range(CLASSES) if (k in labelled.classes) == is_labelled]
        precision = [
            average_precision(shown[tiles, k], logits[tiles, k])
            for k in classes if shown[tiles, k].sum() >= LEAST
        ]  # fmt: skip
        pure = {k: tiles[shown[tiles, k] & fold.pure[tiles]] for k in classes}
        right = [(cells[own] == k).mean() for k, own in pure.items() if len(own) >= LEAST]
        result.append(tuple(np.mean(part) if part else np.nan for part in (precision, right)))
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("atlas", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tries", type=int, default=10, help="of each fold")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, list[list[tuple[float, float]]]] = defaultdict(list)
    for number, fold in read(given.atlas, given.folder):
        pixels = fold.tile_set.tiles.pixels
        before = ask(fold.load(fold.start), pixels)
        for seed in range(given.tries):
            labelled = choose(fold, np.random.default_rng((number, seed)))
            if labelled is None:
                continue
            with tempfile.TemporaryDirectory() as name:
                for way, weight in WAYS.items():
                    found = before
                    if weight is not None:
                        found = ask(learn(fold, labelled, weight, Path(name)), pixels)
                    rows[way].append(measure(fold, labelled, found))
            print(f"fold {number}, try {seed}", flush=True)
    show({way: np.array(scores) for way, scores in rows.items()})


def show(scores: dict[str, np.ndarray]) -> None:
    """Print a row per way from ``(T, 4, 2)`` scores; the last rows are differences."""
    where = [
        f"{'labelled' if labelled else 'other'} classes, {'these' if same else 'other'} slides"
        for labelled, same in PARTS
    ]
    titles = [f"{part}: {what}" for part in where for what in ("AP", "cells right")]
    print(f"\n| {len(next(iter(scores.values())))} tries | " + " | ".join(titles) + " |")
    print("|---|" + "---|" * len(titles))
    base = next(iter(scores.values()))
    for way, table in scores.items():
        cells = [f"{mean:.3f}" for mean in np.nanmean(table, 0).ravel()]
        print(f"| {way} | " + " | ".join(cells) + " |")
        if table is not base:
            gain = table - base
            error = np.nanstd(gain, 0, ddof=1) / np.sqrt(np.isfinite(gain).sum(0))
            pairs = zip(np.nanmean(gain, 0).ravel(), error.ravel(), strict=True)
            print("| gain | " + " | ".join(f"{m:+.3f} ± {e:.3f}" for m, e in pairs) + " |")


if __name__ == "__main__":
    main()
