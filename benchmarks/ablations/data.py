"""Training and test data: synthetic slides, or real tiles and mosaics of them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "pipelines"))

from tissue_checkpoint import CONFIG, find_encoders, read_folds, to_patches

from wsiseg.demo.patches import sample_patches
from wsiseg.demo.synthesis import synthesize_slide
from wsiseg.geometry import Box
from wsiseg.slide import open_slide
from wsiseg.train import Patches, load_patches
from wsiseg.train.encoder import TileSet

SIDE, SEEDS = 224, (1, 2, 3)
TISSUES = CONFIG.classes[: -len(CONFIG.background)]
CRC = {"ADI": 5, "LYM": 2, "MUC": 6, "MUS": 4, "NORM": 0, "STR": 1, "TUM": 0}
TILES, ASKED, MOSAICS, CRC_MOSAICS = 200, 100, 5, 60


@dataclass
class Pictures:
    """Pictures with known maps."""

    pixels: list[np.ndarray] = field(default_factory=list)
    truth: list[np.ndarray] = field(default_factory=list)
    slides: list[str] = field(default_factory=list)

    def add(self, pixels: np.ndarray, truth: np.ndarray, slide: str) -> None:
        """Add a result."""
        self.pixels.append(pixels)
        self.truth.append(truth)
        self.slides.append(slide)


@dataclass
class Case:
    """The training and test data of one seed."""

    train: Patches
    sets: dict[str, Pictures]
    held: Patches | None = None
    options: dict[str, str] = field(default_factory=dict)
    """Of the encoder."""


def synthetic(seeds: Iterable[int], folder: Path) -> tuple[dict[int, Case], tuple[str, ...]]:
    """Make patches of one slide per seed, and windows of eight other slides to score."""
    windows, names = Pictures(), ()
    for number in range(8):
        path = folder / f"test{number}.svs"
        truth = synthesize_slide(path, 1536, 1536, 900 + number)
        with open_slide(path) as slide:
            for top in range(0, truth.labels.shape[0] - SIDE + 1, SIDE):
                for left in range(0, truth.labels.shape[1] - SIDE + 1, SIDE):
                    part = truth.labels[top : top + SIDE, left : left + SIDE]
                    if (part < len(truth.names)).mean() < 0.5:
                        continue
                    pixels = slide.read(Box(left, top, SIDE, SIDE), truth.mpp)
                    windows.add(pixels, part.copy(), path.stem)
        names = truth.names
    cases = {}
    for seed in seeds:
        path = folder / f"train{seed}.svs"
        truth = synthesize_slide(path, 2560, 2048, 100 + seed)
        table = sample_patches(path, truth, folder / f"patches{seed}", 64, seed)
        cases[seed] = Case(load_patches(table, truth.names), {"windows": windows})
    return cases, names


def real(
    seeds: Iterable[int], atlas: Path, crc: Path, folder: Path
) -> tuple[dict[int, Case], tuple[str, ...]]:
    """Per seed, hold out a fold's slides, and CRC; take tiles of the other slides to train on."""
    found, fold, pure = read_folds(atlas)
    names = np.array(found.slides)[found.tiles.slides]
    outside, cases = join_crc(crc), {}
    seeds, files = list(seeds), find_encoders(folder)
    if len(files) < len(seeds):
        raise SystemExit(f"{folder}: {len(files)} encoders for {len(seeds)} seeds; each takes one")
    for seed, number in zip(seeds, files, strict=False):
        rng = np.random.default_rng(seed)
        learned = rng.permutation(np.flatnonzero(fold != number))[:TILES]
        asked = rng.permutation(np.flatnonzero(fold == number))[:ASKED]
        inside = join_slides(found, names, pure & (fold == number), rng)
        cases[seed] = Case(
            to_patches(found, learned), {"mosaics": inside, "CRC": outside},
            to_patches(found, asked), {"weights": str(files[number].encoders)},
        )  # fmt: skip
    return cases, CONFIG.classes


def join_slides(
    found: TileSet, names: np.ndarray, usable: np.ndarray, rng: np.random.Generator
) -> Pictures:
    """Make mosaics of two tiles of one slide, each of a single and different class."""
    classes, made = found.tiles.labels.argmax(1), Pictures()
    usable = usable & (classes < len(TISSUES))
    for slide in np.unique(names[usable]):
        own = usable & (names == slide)
        by_class = {
            int(at): np.flatnonzero(own & (classes == at)) for at in np.unique(classes[own])
        }
        for _ in range(MOSAICS if len(by_class) > 1 else 0):
            pair = rng.permutation(list(by_class))[:2].tolist()
            tiles = [(found.paths[rng.choice(by_class[at])], at) for at in pair]
            join(tiles, made, str(slide), rng)
    return made


def join_crc(folder: Path) -> Pictures:
    """Make mosaics of two tiles of CRC's classes."""
    tiles = [(path, CRC[path.name.split("_")[0]]) for path in sorted(folder.glob("*___*.jpg"))]
    rng, found = np.random.default_rng(0), Pictures()
    while len(found.pixels) < CRC_MOSAICS:
        first, second = (tiles[i] for i in rng.permutation(len(tiles))[:2])
        if first[1] != second[1]:
            join([first, second], found, str(len(found.pixels)), rng)
    return found


def join(
    pair: Sequence[tuple[Path, int]], found: Pictures, slide: str, rng: np.random.Generator
) -> None:
    """Join two tiles along a wavy line."""
    angle, phase, wave = rng.uniform(0, 2 * np.pi, 3)
    down, right = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    along = right * np.cos(angle) + down * np.sin(angle)
    across = down * np.cos(angle) - right * np.sin(angle)
    first = across + 18 * np.sin(along / (14 + 3 * wave) + phase) + rng.uniform(-30, 30) > 0
    images = [np.asarray(Image.open(path).convert("RGB")) for path, _ in pair]
    pixels = np.where(first[:, :, None], images[0], images[1])
    truth = np.where(first, pair[0][1], pair[1][1]).astype(np.uint8)
    found.add(np.ascontiguousarray(pixels), truth, slide)
