"""Real tiles as slides that `learn` and `suggest` can read: laid side by side in stores."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from wsiseg.config import digest_of
from wsiseg.grid import TileGrid
from wsiseg.model.construct import ConStruct
from wsiseg.model.device import to_images
from wsiseg.store import SlideStore

SIDE, MPP, COLS = 224, 0.5, 8


class Tiles(NamedTuple):
    """The tiles of some slides."""

    pixels: np.ndarray
    """``(N, 224, 224, 3)`` uint8."""
    labels: np.ndarray
    """``(N, K)`` bool."""
    slides: np.ndarray
    """``(N,)``."""
    patients: np.ndarray
    """``(N,)``: the repositories."""
    weights: np.ndarray
    """``(N,)``: the file of the encoder that was trained without the slide; "" for the shipped one,
    "-" if there is none, so that the slide cannot be tested."""

    def pick(self, which: np.ndarray) -> Tiles:
        """Select the tiles where `which` ``(N,)`` is true."""
        return Tiles(*(column[which] for column in self))


def find_places(slides: np.ndarray) -> list[tuple[str, int, int]]:
    """Find slide, row and column of each tile: those of a slide side by side, `COLS` in a row."""
    seen: Counter[str] = Counter()
    places = []
    for name in slides.tolist():
        places.append((name, *divmod(seen[name], COLS)))
        seen[name] += 1
    return places


def ask(model: ConStruct, pixels: np.ndarray) -> np.ndarray:
    """Return class logits ``(N, C)`` of tiles ``(N, H, W, 3)`` uint8."""
    with torch.inference_mode():
        parts = np.array_split(pixels, -(-len(pixels) // 32))
        return np.concatenate([model(to_images(part)).logits.numpy() for part in parts])


def write_slides(tiles: Tiles, classes: list[str], folder: Path) -> None:
    """Write a store per slide with its tiles side by side, labels.csv and slides.csv."""
    labels, patients = [["slide", "row", "col", *classes]], [["slide", "patient"]]
    for name in dict.fromkeys(tiles.slides):
        own = tiles.pick(tiles.slides == name)
        rows = -(-len(own.pixels) // COLS)
        grid = TileGrid(rows * SIDE, COLS * SIDE, SIDE, SIDE, COLS * SIDE)
        slide = {"name": name, "identity": name, "mpp": [MPP] * 2, "bounds": [0, 0, 1, 1]}
        store = SlideStore.create(folder / f"{name}.zarr", grid, MPP, slide)
        shown = np.arange(rows * COLS).reshape(rows, COLS) < len(own.pixels)
        store.write_tissue(shown, MPP * SIDE, "0")
        image = np.full((grid.height, grid.width, 3), 255, np.uint8)
        places = find_places(own.slides)
        for place, pixels, labelled in zip(places, own.pixels, own.labels, strict=True):
            image[grid.tile_box(*place[1:]).slices()] = pixels
            labels.append([*place, *(int(one) for one in labelled)])
        for block in range(grid.n_blocks):
            store.write_image(block, image[grid.block_box(block).slices()])
            store.mark_done("tile", block, digest_of(name))
        patients.append([name, own.patients[0]])
    for file, lines in (("labels.csv", labels), ("slides.csv", patients)):
        with (folder / file).open("w", newline="") as out:
            csv.writer(out).writerows(lines)
