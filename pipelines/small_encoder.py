"""Train the encoder `small` on labelled tiles, of all slides or of all but one fold.

    python pipelines/small_encoder.py ATLAS small.safetensors
    python pipelines/small_encoder.py ATLAS fold0.safetensors --without 0

ATLAS holds labels.csv (image, slide, and a column per class) and the images. All is seeded: on
one CPU two runs give the same bytes. An hour on one core, less with --precision bfloat16 where the
processor has it; with --device cuda, minutes.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from wsiseg.train.encoder import (
    FitSettings,
    TileSet,
    fit_network,
    pack_network,
    read_tile_set,
    split_slides,
)

WORDS = {
    "Epithelium": ("epitheli", "tumor", "tumour", "carcinoma", "gland"),
    "Stroma": ("strom", "connective"),
    "Immune cells": ("immune", "lymphocyt", "inflamm"),
    "Necrosis": ("necro", "debris"),
    "Muscle": ("muscle",),
    "Adipose": ("adipos", "fat"),
    "Mucin": ("mucin", "mucus"),
    "Blood": ("blood", "erythrocyt"),
    "Other": ("other",),
    "Glass": ("glass", "background"),
}
"""Classes, and the beginnings of the words that name them in texts."""
NOTE = {
    "licence": "CC BY 4.0",
    "attribution": "Pathology Atlas, Serdar Balci, Memorial Patoloji, doi 10.5281/zenodo.6382734",
}


def find_folds(tile_set: TileSet) -> np.ndarray:
    """``(S,)`` fold of each slide; slides that may be of one patient stay together."""
    groups = [group_of(name) for name in tile_set.slides]
    return split_slides(tile_set.tiles.labels[:, :-1], tile_set.tiles.slides, groups)


def group_of(slide: str) -> str:
    """Return what slides that may be of one patient have in common."""
    return slide.partition("_")[0].removesuffix("-flat")


def make(tile_set: TileSet, out: Path, settings: FitSettings, without: int | None) -> None:
    """Train the encoder and write its file."""
    fold = find_folds(tile_set)[tile_set.tiles.slides]
    tiles = tile_set.tiles.take(np.flatnonzero(fold != (-1 if without is None else without)))
    network, _ = fit_network(tiles, settings, report)
    note = NOTE | {"settings": json.dumps(asdict(settings)), "tiles": str(len(tiles.labels))}
    out.write_bytes(pack_network(network, tiles, list(WORDS.values()), note))


def report(step: int, loss: float) -> None:
    """Print the progress of the training."""
    if step % 100 == 0:
        print(f"\rstep {step}, loss {loss:.3f}", end="", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("atlas", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--without", type=int, choices=range(5))
    parser.add_argument("--steps", type=int, default=FitSettings.steps)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    args = parser.parse_args()
    torch.set_num_threads(1)  # so that sums round the same everywhere
    settings = FitSettings(steps=args.steps, device=args.device, precision=args.precision)
    make(read_tile_set(args.atlas, tuple(WORDS)), args.out, settings, args.without)
