"""The gain by `wsiseg suggest` on real tiles: the places that it chooses against random ones.

    python benchmarks/suggesting_tiles.py ATLAS FOLDER [--splits 2]

ATLAS has labels.csv and the tiles, FOLDER encoders of pipelines/tile_encoder.py --without 0 to 4
or some of them. The slides of a fold, which its encoder never saw, are split at random by patient:
tiles of one half may be labelled, all tiles of the other half score. The first 30 labelled tiles
show the classes in turn, each as purely as possible, as people start. Then 20 are added twice,
chosen by `suggest` from the model's map, or at random. Each model starts anew and takes the same
number of steps. The score is the mean of the classes' average precision.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent / "tissue"))
sys.path.insert(0, str(Path(__file__).parents[1] / "pipelines"))

from scores import macro_precision
from stores import Tiles, ask, find_places, write_slides
from suggesting import ROUNDS, loop, train_alike
from tile_encoder import group_of
from tissue_checkpoint import CONFIG, find_encoders, read_folds

from wsiseg.compute import open_executor
from wsiseg.config import Config
from wsiseg.labels import label_slides
from wsiseg.model.trained import load_trained
from wsiseg.predict import predict_tiles
from wsiseg.suggest import suggest_places

LEAST = 3  # tiles with a class, on either side; other classes are left out


class Way:
    """Labels, model and map of the tiles that may be labelled, in a folder."""

    def __init__(self, folder: Path, pool: Tiles, asked: Tiles, classes: list[str]) -> None:
        self.folder, self.pool, self.asked, self.classes = folder, pool, asked, classes
        write_slides(pool, classes, folder)
        self.stores = sorted(folder.glob("*.zarr"))
        self.places = find_places(pool.slides)
        self.model, self.labels = folder / "my.safetensors", folder / "known.csv"
        self.options = {"weights": str(pool.weights[0])}

    def learn(self, known: list[int]) -> float:
        """Train on the labels of the tiles `known`, and score the tiles of other slides."""
        with self.labels.open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["slide", "row", "col", *self.classes])
            table.writerows(
                [*self.places[tile], *self.pool.labels[tile].astype(int).tolist()] for tile in known
            )
        found = label_slides(self.labels, self.stores, self.classes)
        train_alike(found, self.model, encoder_options=self.options)
        model = load_trained(self.model, self.options).model
        return macro_precision(self.asked.labels, ask(model, self.asked.pixels))

    def suggest(self) -> list[int]:
        """Map the tiles with the model that was trained last, and choose some of them."""
        # Neighbours in the store are no neighbours on the slide, so tiles are seen alone.
        predict = {"checkpoint": str(self.model), "context": 0, "encoder_options": self.options}
        config = Config.model_validate({"predict": predict})
        with open_executor("serial") as pool:
            for store in self.stores:
                predict_tiles(store, config, pool)
        places = suggest_places(self.stores, loop.PLACES, [self.labels])
        return [self.places.index((one.store.path.stem, one.row, one.col)) for one in places]


class Row(NamedTuple):
    """Scores after each round."""

    suggested: list[float]
    random: list[float]


def compare(way: Way, rng: np.random.Generator) -> Row:
    """Add labels round by round, both ways, from the same first ones."""
    known = begin(way.pool.labels, rng)
    first = way.learn(known)
    suggested, told = [first], [*known]
    for _ in range(ROUNDS):
        told += way.suggest()
        suggested.append(way.learn(told))
    rest = rng.permutation(np.setdiff1d(np.arange(len(way.pool.labels)), known)).tolist()
    counts = [loop.PLACES * number for number in range(1, ROUNDS + 1)]
    return Row(suggested, [first, *(way.learn(known + rest[:count]) for count in counts)])


def begin(labels: np.ndarray, rng: np.random.Generator) -> list[int]:
    """Choose the first tiles: classes in turn, of each the tiles with fewest others."""
    known: list[int] = []
    while len(known) < loop.FIRST:
        shown = labels[:, len(known) % labels.shape[1]].copy()
        shown[known] = False
        left = np.flatnonzero(shown)
        if not len(left):
            left = np.setdiff1d(np.arange(len(labels)), known)
        count = labels[left].sum(1)
        known.append(int(rng.choice(left[count == count.min()])))
    return known


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("atlas", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--splits", type=int, default=2, help="of each fold")
    given = parser.parse_args()
    torch.set_num_threads(1)
    tile_set, fold, _ = read_folds(given.atlas)
    rows: list[tuple[str, Row]] = []
    for number, files in find_encoders(given.folder).items():
        weights = str(files.encoders)
        own = tile_set.tiles.take(np.flatnonzero(fold == number))
        names = np.array(tile_set.slides)[own.slides]
        groups = np.array([group_of(name) for name in names])
        tiles = Tiles(own.pixels, own.labels > 0, names, groups, np.full(len(names), weights))
        for split in range(given.splits):
            began, rng = time.process_time(), np.random.default_rng((number, split))
            pool, asked, classes = halve(tiles, rng)
            with tempfile.TemporaryDirectory() as folder:
                row = compare(Way(Path(folder), pool, asked, classes), rng)
            rows.append((f"{number}, {split}", row))
            print(f"{time.process_time() - began:.0f} s of CPU, {len(classes)} classes")
            show(rows)


def halve(tiles: Tiles, rng: np.random.Generator) -> tuple[Tiles, Tiles, list[str]]:
    """Split the patients into two halves; keep the classes that both show."""
    names = np.unique(tiles.patients)
    first = np.isin(tiles.patients, rng.permutation(names)[: len(names) // 2])
    shown = [tiles.labels[side].sum(0) >= LEAST for side in (first, ~first)]
    useful = np.flatnonzero(shown[0] & shown[1])
    kept = tiles._replace(labels=tiles.labels[:, useful])
    return kept.pick(first), kept.pick(~first), [CONFIG.classes[at] for at in useful]


def show(rows: list[tuple[str, Row]]) -> None:
    """Print a row per split, then mean and standard error of the difference."""
    print(
        "| fold, split | first |"
        + "".join(f" suggested, round {n} | at random, round {n} |" for n in range(1, ROUNDS + 1))
    )
    print("|---|---|" + "---|" * (2 * ROUNDS))
    table = np.array([row for _, row in rows])
    for (name, _), (suggested, random) in zip(rows, table, strict=True):
        pairs = [f"{a:.3f} | {b:.3f}" for a, b in zip(suggested[1:], random[1:], strict=True)]
        print(f"| {name} | {suggested[0]:.3f} | " + " | ".join(pairs) + " |")
    gain = table[:, 0, 1:] - table[:, 1, 1:]
    error = gain.std(0, ddof=1) / len(gain) ** 0.5 if len(gain) > 1 else gain[0] * np.nan
    text = ", ".join(f"{g:+.3f} ± {e:.3f}" for g, e in zip(gain.mean(0), error, strict=True))
    won = ", ".join(f"{count} of {len(gain)}" for count in (gain > 0).sum(0))
    print(f"suggested less random, by round, and its standard error: {text}; ahead on {won}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
