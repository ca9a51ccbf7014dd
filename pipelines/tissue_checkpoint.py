"""Make the checkpoint `tissue`: on the encoder `ensemble`, from tile labels, calibrated.

    python pipelines/tissue_checkpoint.py ATLAS FOLDER tissue.safetensors

FOLDER holds the folders fold0 to fold4, or some of them, each with lite.safetensors and
small.safetensors made by tile_encoder.py --without 0 to 4. With each, a model is trained without
the fold's slides (FOLDER/fold0_tissue.safetensors ...). Their logits on those slides calibrate the
final model, which is trained on all slides with the shipped encoder. benchmarks/tissue measures
them, and leaves its scores in FOLDER; called again, this puts them into the model's card, beside
what configs/tissue_card.yaml says.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tile_encoder import WORDS, find_folds

from wsiseg.config import TrainConfig, load_config
from wsiseg.model.calibration import fit_calibration
from wsiseg.model.card import Card, load_card
from wsiseg.model.card_file import with_calibration, with_card
from wsiseg.model.trained import load_trained
from wsiseg.train import Patches, train_model
from wsiseg.train.calibrate import read_cells
from wsiseg.train.encoder import TileSet, read_tile_set

CONFIGS = Path(__file__).parents[1] / "configs"
CONFIG = load_config(CONFIGS / "tissue.yaml", TrainConfig)
CARD = CONFIGS / "tissue_card.yaml"
FOLDS = 5
EVENNESS = 0.25
"""How far rare classes count for more in the calibration: 0 not at all, 1 as much as common ones.

How frequent a class is differs between slides. Of 0, 0.25, 0.5, 0.75 and 1, this gives the lowest
calibration error on cells of slides that were left out. With 0.5 their mean IoU is higher, but on
tissue that has none of the classes, such as skin, more of it is taken for rare ones.
"""


def train(tile_set: TileSet, which: np.ndarray, out: Path, weights: Path | None) -> Path:
    """Train on the tiles `which`; `weights` of the encoder, or None for the shipped ones."""
    options = {} if weights is None else {"weights": str(weights)}
    config = CONFIG.model_copy(update={"encoder_options": options})
    patches = to_patches(tile_set, which)
    return train_model(patches, config, out, report, card=load_card(CARD, CONFIG.classes))


def to_patches(tile_set: TileSet, which: np.ndarray | None = None) -> Patches:
    """Turn the tiles `which`, or all, into patches to train on."""
    which = np.arange(len(tile_set.paths)) if which is None else which
    paths = tuple(tile_set.paths[at] for at in which)
    return Patches(paths, tile_set.tiles.labels[which], tile_set.tiles.pixels.shape[1])


def read_folds(atlas: Path) -> tuple[TileSet, np.ndarray, np.ndarray]:
    """Read tiles with labels of `CONFIG`'s classes, the fold of each, and whether it is pure."""
    tile_set = read_tile_set(atlas, tuple(WORDS))
    fold, labels = find_folds(tile_set)[tile_set.tiles.slides], tile_set.tiles.labels
    named = labels[:, [list(WORDS).index(name) for name in CONFIG.classes]]
    pure = (labels.sum(1) == 1) & (named.sum(1) == 1)
    return tile_set._replace(tiles=tile_set.tiles._replace(labels=named)), fold, pure


class FoldFiles(NamedTuple):
    """What is made without the slides of one fold."""

    encoders: Path
    """Folder of the encoders' weights."""
    checkpoint: Path
    """The model on them."""


def find_encoders(folder: Path) -> dict[int, FoldFiles]:
    """Find the folds without which encoders were trained, by number."""
    places = {n: folder / f"fold{n}" for n in range(FOLDS)}
    found = {
        number: FoldFiles(place, folder / f"{place.name}_tissue.safetensors")
        for number, place in places.items() if place.is_dir()
    }  # fmt: skip
    if not found:
        raise SystemExit(f"{folder}: no folders fold0 ...; see tile_encoder.py --without")
    return found


def calibrate(
    logits: torch.Tensor, classes: torch.Tensor, evenness: float = EVENNESS
) -> torch.Tensor:
    """Fit a calibration ``(C, 2)`` to cells ``(N, C)`` of known class ``(N,)``."""
    frequency = classes.bincount(minlength=logits.shape[1]).double()[classes]
    return fit_calibration(logits, classes, frequency**-evenness)


def main(atlas: Path, folder: Path, out: Path) -> None:
    """Train the folds' models and the final one, and calibrate that."""
    (tile_set, fold, pure), cells = read_folds(atlas), []
    for number, (weights, made) in find_encoders(folder).items():
        if not made.exists():
            train(tile_set, np.flatnonzero(fold != number), made, weights)
        source = load_trained(made, {"weights": str(weights)})
        unseen = np.flatnonzero(pure & (fold == number))
        cells.append(read_cells(source, to_patches(tile_set), unseen))
    logits, classes = (torch.cat(part) for part in zip(*cells, strict=True))
    made = folder / "all_tissue.safetensors"
    if not made.exists():
        train(tile_set, np.arange(len(fold)), made, None)
    with_calibration(made, calibrate(logits, classes).tolist(), out, overwrite=True)
    with_card(out, describe(folder), out, overwrite=True)


def describe(folder: Path) -> Card:
    """Read the card, and the scores in `folder`, if there are any."""
    scores = folder / "scores.yaml"
    return load_config([CARD, *([scores] if scores.exists() else [])], Card)


def report(step: str, done: int, total: int) -> None:
    """Print the progress of the training."""
    print(f"\r{step} {done}/{total}", end="", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*map(Path, sys.argv[1:]))
