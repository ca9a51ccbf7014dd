"""Make the checkpoint `tissue`: on the encoder `small`, from tile labels, calibrated.

    python pipelines/tissue_checkpoint.py ATLAS FOLDER tissue.safetensors

FOLDER holds fold0.safetensors to fold4.safetensors, made by small_encoder.py --without 0 to 4. On
each a model is trained that never saw the fold's slides (FOLDER/fold0_tissue.safetensors ...); what
these say of those slides calibrates the last, which is trained on all slides with the encoder that
ships. benchmarks/tissue measures them, and its scores go into the card of configs/tissue_card.yaml.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from small_encoder import WORDS, find_folds

from wsiseg.config import TrainConfig, load_config
from wsiseg.model.calibration import fit_calibration
from wsiseg.model.card import load_card
from wsiseg.model.card_file import with_calibration
from wsiseg.model.trained import load_trained
from wsiseg.train import Patches, train_model
from wsiseg.train.calibrate import read_cells
from wsiseg.train.encoder import TileSet, read_tile_set

CONFIGS = Path(__file__).parents[1] / "configs"
CONFIG = load_config(CONFIGS / "tissue.yaml", TrainConfig)
FOLDS = 5


def train(found: TileSet, which: np.ndarray, out: Path, weights: Path | None) -> Path:
    """Train on some of the tiles; `weights` of the encoder, or those that ship."""
    options = {} if weights is None else {"weights": str(weights)}
    config = CONFIG.model_copy(update={"encoder_options": options})
    patches = to_patches(found, which)
    card = load_card(CONFIGS / "tissue_card.yaml", CONFIG.classes)
    return train_model(patches, config, out, report, card=card)


def to_patches(found: TileSet, which: np.ndarray | None = None) -> Patches:
    """Some of the tiles, or all, as `wsiseg train` takes them."""
    which = np.arange(len(found.paths)) if which is None else which
    paths = tuple(found.paths[at] for at in which)
    return Patches(paths, found.tiles.labels[which], found.tiles.pixels.shape[1])


def read_folds(atlas: Path) -> tuple[TileSet, np.ndarray, np.ndarray]:
    """The tiles with labels of `CONFIG`'s classes, the fold of each, and whether it is pure."""
    found = read_tile_set(atlas, tuple(WORDS))
    fold, labels = find_folds(found)[found.tiles.slides], found.tiles.labels
    named = labels[:, [list(WORDS).index(name) for name in CONFIG.classes]]
    pure = (labels.sum(1) == 1) & (named.sum(1) == 1)
    return found._replace(tiles=found.tiles._replace(labels=named)), fold, pure


def main(atlas: Path, folder: Path, out: Path) -> None:
    """Train the folds' models and the last, and calibrate it."""
    (found, fold, pure), seen = read_folds(atlas), []
    for number in range(FOLDS):
        weights = folder / f"fold{number}.safetensors"
        made = folder / f"fold{number}_tissue.safetensors"
        if not made.exists():
            train(found, np.flatnonzero(fold != number), made, weights)
        source = load_trained(made, {"weights": str(weights)})
        seen.append(read_cells(source, to_patches(found), np.flatnonzero(pure & (fold == number))))
    logits, classes = (torch.cat(part) for part in zip(*seen, strict=True))
    made = folder / "all_tissue.safetensors"
    if not made.exists():
        train(found, np.arange(len(fold)), made, None)
    with_calibration(made, fit_calibration(logits, classes).tolist(), out, overwrite=True)


def report(step: str, done: int, total: int) -> None:
    """Print where the training is."""
    print(f"\r{step} {done}/{total}", end="", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*map(Path, sys.argv[1:]))
