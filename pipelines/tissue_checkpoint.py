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
import torch.nn.functional as F
from small_encoder import WORDS, find_folds

from wsiseg.config import TrainConfig, load_config
from wsiseg.model.calibration import fit_calibration
from wsiseg.model.card import load_card
from wsiseg.model.card_file import with_calibration
from wsiseg.model.checkpoint import load_checkpoint
from wsiseg.train import Patches, train_model
from wsiseg.train.encoder import TileSet, read_tile_set

CONFIGS = Path(__file__).parents[1] / "configs"
CONFIG = load_config(CONFIGS / "tissue.yaml", TrainConfig)
FOLDS = 5


def train(found: TileSet, which: np.ndarray, out: Path, weights: Path | None) -> Path:
    """Train on some of the tiles; `weights` of the encoder, or those that ship."""
    options = {} if weights is None else {"weights": str(weights)}
    config = CONFIG.model_copy(update={"encoder_options": options})
    paths = tuple(found.paths[at] for at in which)
    patches = Patches(paths, found.tiles.labels[which], found.tiles.pixels.shape[1])
    card = load_card(CONFIGS / "tissue_card.yaml", CONFIG.classes)
    return train_model(patches, config, out, report, card=card)


def read_folds(atlas: Path) -> tuple[TileSet, np.ndarray, np.ndarray]:
    """The tiles with labels of `CONFIG`'s classes, the fold of each, and whether it is pure."""
    found = read_tile_set(atlas, tuple(WORDS))
    fold, labels = find_folds(found)[found.tiles.slides], found.tiles.labels
    named = labels[:, [list(WORDS).index(name) for name in CONFIG.classes]]
    pure = (labels.sum(1) == 1) & (named.sum(1) == 1)
    return found._replace(tiles=found.tiles._replace(labels=named)), fold, pure


def see_cells(found: TileSet, pure: np.ndarray, model: torch.nn.Module) -> tuple[torch.Tensor, ...]:
    """Logits ``(M, C)`` and classes ``(M,)`` of the cells of tiles that show one class only."""
    classes = torch.from_numpy(found.tiles.labels[pure].argmax(1))
    cells = []
    for at in np.array_split(pure, -(-len(pure) // 32)):
        batch = torch.from_numpy(found.tiles.pixels[at]).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            cells.append(F.adaptive_avg_pool2d(model(batch).cams, 7).flatten(2).mT)
    logits = torch.cat(cells)
    return logits.flatten(0, 1), classes[:, None].expand(-1, logits.shape[1]).flatten()


def main(atlas: Path, folder: Path, out: Path) -> None:
    """Train the folds' models and the last, and calibrate it."""
    (found, fold, pure), seen = read_folds(atlas), []
    for number in range(FOLDS):
        weights = folder / f"fold{number}.safetensors"
        made = folder / f"fold{number}_tissue.safetensors"
        if not made.exists():
            train(found, np.flatnonzero(fold != number), made, weights)
        model, _ = load_checkpoint(made, {"weights": str(weights)})
        seen.append(see_cells(found, np.flatnonzero(pure & (fold == number)), model))
    logits, classes = (torch.cat(part) for part in zip(*seen, strict=True))
    made = train(found, np.arange(len(fold)), folder / "all_tissue.safetensors", None)
    with_calibration(made, fit_calibration(logits, classes).tolist(), out, overwrite=True)


def report(step: str, done: int, total: int) -> None:
    """Print where the training is."""
    print(f"\r{step} {done}/{total}", end="", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*map(Path, sys.argv[1:]))
