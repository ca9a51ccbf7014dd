"""Ablations with intervals: the start and number of prototypes, and the resolution of the CAM.

    python benchmarks/ablations.py synthetic                  encoder tiny, on synthetic slides
    python benchmarks/ablations.py real ATLAS CRC             encoder small, on real tiles

Each seed trains a head on patch labels of its own slides and is scored on other slides, on CAMs
without the CRF. With `labels given`, only the classes that a picture shows are allowed; with `none
given`, all compete. On synthetic slides the truth is known. Real tiles have no masks, so tiles of
one slide that show one class each are joined along a random wavy line: the map of such a mosaic is
known. CRC's tiles come from another source, without patients. Intervals (95 %) resample slides
(CRC: mosaics), all seeds of a slide together, with the same draws for every row, so that
differences are paired. Learning rate, pooling and batches are those of configs/tissue.yaml and of
the demo; the diversity weight and everything else were set before scoring, and not tuned after.

`small` itself was trained on tiles of all slides of ATLAS, so the figures there are too high; the
table only compares heads.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from wsiseg.annotations import BACKGROUND
from wsiseg.config import TrainConfig
from wsiseg.demo.patches import sample_patches
from wsiseg.demo.synthesis import synthesize_slide
from wsiseg.evaluate import confusion_matrix
from wsiseg.evaluate.bootstrap import draw_means
from wsiseg.geometry import Box
from wsiseg.learn.precision import mean_known, precision_by_class
from wsiseg.model.encoders import ENCODERS, Entry, load_encoder
from wsiseg.model.trained import load_trained
from wsiseg.slide import open_slide
from wsiseg.train import Patches, load_patches, train_model

SIDE, SEEDS, DIVERSITY = 224, (1, 2, 3), 0.5
TISSUES = (
    "Epithelium",
    "Stroma",
    "Immune cells",
    "Necrosis",
    "Muscle",
    "Adipose",
    "Mucin",
    "Blood",
)
CRC = {"ADI": 5, "LYM": 2, "MUC": 6, "MUS": 4, "NORM": 0, "STR": 1, "TUM": 0}
TILES, ASKED, HELD, MOSAICS, CRC_MOSAICS = 200, 100, 13, 5, 60
BASE = "text, k = 1"

ARMS: dict[str, dict[str, Any]] = {
    f"{kind}, k = {k}": {"prototypes": kind, "prototypes_per_class": k}
    for k in (1, 3) for kind in ("text", "images", "both", "random")
} | {
    "images, k = 3, kept apart": {
        "prototypes": "images", "prototypes_per_class": 3, "diversity_weight": DIVERSITY
    }
}  # fmt: skip
CAMS: dict[str, dict[str, dict[str, Any]]] = {
    "tiny": {  # reads level 1, stride 8
        "CAM of the finer level (stride 4)": {"cam_levels": (0,)},
        "levels 8 and 16 fused": {"cam_levels": (1, 2)},
        "four looks (stride 4)": {"cam_overlap": 2},
    },
    "small": {  # reads level 2, stride 16
        "CAM of the finer level (stride 8)": {"cam_levels": (1,)},
        "levels 8 and 16 fused": {"cam_levels": (1, 2)},
        "four looks (stride 8)": {"cam_overlap": 2},
    },
}


class Kept(nn.Module):
    """An encoder that caches the features of whole patches, which every head needs."""

    seen: ClassVar[dict[tuple[str, str, object], Tensor]] = {}

    def __init__(self, name: str) -> None:
        super().__init__()
        self.inner: Any = load_encoder(name)
        self.kind = name

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.inner, name)

    def pyramid(self, images: Tensor, levels: Sequence[int] = (0, 1, 2, 3)) -> list[Tensor]:
        """Do as the encoder, from the cache."""
        return [
            self._recall(images, level, lambda one, at=level: self.inner.pyramid(one, [at])[0])
            for level in levels
        ]

    def embed_image(self, images: Tensor) -> Tensor:
        """Do as the encoder, from the cache."""
        return self._recall(images, "embedding", self.inner.embed_image)

    def _recall(self, images: Tensor, what: object, look: Any) -> Tensor:
        if images.shape[2] < SIDE:  # the contrast has new regions each time
            return look(images)
        found = []
        for image in images:
            key = (self.kind, hashlib.sha1(image.numpy().tobytes()).hexdigest(), what)
            if key not in self.seen:
                self.seen[key] = look(image[None])[0].half()
            found.append(self.seen[key].float())
        return torch.stack(found)


def keep_small() -> Kept:
    """Return `small` with a cache."""
    return Kept("small")


def keep_tiny() -> Kept:
    """Return `tiny` with a cache."""
    return Kept("tiny")


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


def train(case: Case, config: TrainConfig, folder: Path) -> Any:
    """Train a head as `wsiseg train` does."""
    out = folder / "model.safetensors"
    return load_trained(train_model(case.train, config, out, overwrite=True))


@torch.inference_mode()
def confusions(source: Any, pictures: Pictures, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """``(N, K + 1, K + 1)``: with the classes given, and with none."""
    given, free = [], []
    for pixels, truth in zip(pictures.pixels, pictures.truth, strict=True):
        images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        cams = source.cams(images)[:, :classes]
        maps = F.interpolate(cams, truth.shape, mode="bilinear", align_corners=False)[0].numpy()
        shown = np.unique(truth[truth < classes])
        masked = np.full_like(maps, -np.inf)
        masked[shown] = maps[shown]
        known = truth < classes
        for rows, scores in ((given, masked), (free, maps)):
            found = np.where(known, scores.argmax(0), BACKGROUND).astype(np.uint8)
            rows.append(confusion_matrix(truth, found, classes))
    return np.stack(given), np.stack(free)


def precision(source: Any, held: Patches) -> float:
    """Compute the mean average precision of tile labels."""
    logits = []
    with torch.inference_mode():
        for start in range(0, len(held), 16):
            which = range(start, min(start + 16, len(held)))
            images = torch.from_numpy(held.read(which)).permute(0, 3, 1, 2).float() / 255
            logits.append(source.pool(source.cams(images)).numpy())
    return float(mean_known(precision_by_class(np.concatenate(logits), held.labels)[0]))


# -- data ---------------------------------------------------------------------------------------


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


def real(seeds: Iterable[int], atlas: Path, crc: Path) -> tuple[dict[int, Case], tuple[str, ...]]:
    """Take tiles of most slides per seed, and mosaics of the others and of CRC to score."""
    with (atlas / "labels.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["Other"] == "0"]
    names = (*TISSUES, "Glass")
    labels = np.array([[float(row[name]) for name in names] for row in rows], np.float32)
    slides = np.array([row["slide"] for row in rows])
    paths = [atlas / row["image"] for row in rows]
    outside = join_crc(crc)
    cases = {}
    for seed in seeds:
        rng = np.random.default_rng(seed)
        held = rng.permutation(np.unique(slides))[:HELD]
        out = np.isin(slides, held)
        learned = rng.permutation(np.flatnonzero(~out))[:TILES]
        asked = rng.permutation(np.flatnonzero(out))[:ASKED]
        cases[seed] = Case(
            pick(paths, labels, learned),
            {"mosaics": join_slides(paths, labels, slides, held, rng), "CRC": outside},
            pick(paths, labels, asked),
        )
    return cases, names


def pick(paths: list[Path], labels: np.ndarray, which: np.ndarray) -> Patches:
    """Select some of the tiles."""
    return Patches(tuple(paths[i] for i in which), labels[which], SIDE)


def join_slides(
    paths: list[Path], labels: np.ndarray, slides: np.ndarray, held: np.ndarray,
    rng: np.random.Generator,
) -> Pictures:  # fmt: skip
    """Make mosaics of two tiles of one slide, each of a single and different class."""
    pure = (labels.sum(1) == 1) & (labels[:, -1] == 0)
    found = Pictures()
    for slide in held:
        by_class = {
            at: which for at in range(len(TISSUES))
            if len(which := np.flatnonzero(pure & (slides == slide) & (labels[:, at] == 1)))
        }  # fmt: skip
        for _ in range(MOSAICS if len(by_class) > 1 else 0):
            pair = rng.permutation(list(by_class))[:2]
            join([(paths[rng.choice(by_class[at])], int(at)) for at in pair], found, slide, rng)
    return found


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


# -- the table ----------------------------------------------------------------------------------


@dataclass
class Row:
    """The results of an arm over all seeds."""

    matrices: dict[str, np.ndarray] = field(default_factory=dict)
    slides: dict[str, list[str]] = field(default_factory=dict)
    precision: list[float] = field(default_factory=list)

    def draws(self, name: str) -> np.ndarray:
        """Return the mean IoU of 1,000 draws of slides; the last is without resampling."""
        matrices = self.matrices[name]
        whole = draw_means(matrices.sum(0, keepdims=True), resamples=1)
        return np.append(draw_means(matrices, cases=self.slides[name]), whole)


def run(
    keep: Path, encoder: str, seed: int, case: Case, common: dict[str, Any], names: Any,
    tissues: int, arms: Sequence[str],
) -> None:  # fmt: skip
    """Train and score every arm on one seed; stored results are reused."""
    torch.set_num_threads(1)
    ENCODERS["kept"] = Entry(f"{__name__}:keep_{encoder}", teacher="tiny")
    for number, (arm, settings) in enumerate((ARMS | CAMS[encoder]).items()):
        path = keep / f"{encoder}-{seed}-{number}.npz"
        if path.exists() or (arms and arm not in arms):
            continue
        config = TrainConfig.model_validate(
            {"encoder": "kept", "device": "cpu", "classes": names, **common, "seed": seed}
            | settings
        )
        with tempfile.TemporaryDirectory() as folder:
            source = train(case, config, Path(folder))
        found: dict[str, Any] = {}
        for name, pictures in case.sets.items():
            both = confusions(source, pictures, tissues)
            for gate, matrices in zip(("given", "free"), both, strict=True):
                found[f"{name} {gate}"] = matrices
                found[f"{name} {gate}/slides"] = np.array(pictures.slides)
        if case.held is not None:
            found["precision"] = np.array([precision(source, case.held)])
        np.savez(path, **found)
        print(f"seed {seed}: {arm}", file=sys.stderr, flush=True)


def gather(keep: Path, encoder: str) -> dict[str, Row]:
    """Gather the arms that are finished for all seeds."""
    rows = {}
    for number, arm in enumerate(ARMS | CAMS[encoder]):
        paths = [keep / f"{encoder}-{seed}-{number}.npz" for seed in SEEDS]
        if not all(path.exists() for path in paths):
            continue
        parts = [dict(np.load(path)) for path in paths]
        measures = [n for n in parts[0] if n != "precision" and not n.endswith("/slides")]
        rows[arm] = Row(
            {n: np.concatenate([part[n] for part in parts]) for n in measures},
            {n: [s for part in parts for s in part[f"{n}/slides"].tolist()] for n in measures},
            [float(part["precision"][0]) for part in parts if "precision" in part],
        )
    return rows


def show(rows: dict[str, Row]) -> None:
    """Print the table: mean IoU with its interval, and the paired difference from the base."""
    measures = list(next(iter(rows.values())).matrices)
    base = {name: rows[BASE].draws(name) for name in measures}
    head = [f"{m.replace('given', 'labels given').replace('free', 'none given')} | difference"
            for m in measures]  # fmt: skip
    print(f"\n| | {' | '.join(head)} | AP of tiles |")
    print("|---" * (2 * len(measures) + 2) + "|")
    for arm, row in rows.items():
        cells = []
        for name in measures:
            draws = row.draws(name)
            low, high = np.nanpercentile(draws[:-1], (2.5, 97.5))
            cells.append(f"{draws[-1]:.3f} ({low:.3f} to {high:.3f})")
            apart = draws - base[name]
            low, high = np.nanpercentile(apart[:-1], (2.5, 97.5))
            cells.append("" if arm == BASE else f"{apart[-1]:+.3f} ({low:+.3f} to {high:+.3f})")
        tiles = [f"{value:.3f}" for value in row.precision]
        cells.append(f"{np.mean(row.precision):.3f} ({', '.join(tiles)})" if tiles else "")
        print(f"| {arm} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=("synthetic", "real"))
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--keep", type=Path, default=Path("ablations"), help="what is done")
    parser.add_argument("--arms", nargs="*", default=(), help="rows of the table; all if none")
    parser.add_argument("--workers", type=int, default=len(SEEDS), help="seeds at a time")
    given = parser.parse_args()
    given.keep.mkdir(parents=True, exist_ok=True)
    encoder = "tiny" if given.data == "synthetic" else "small"
    if given.data == "synthetic":
        common = {"epochs": 12, "batch_size": 8, "contrast_shrink": 4}
        cases, names = synthetic(SEEDS, given.keep)
    else:
        common = {
            "epochs": 8, "batch_size": 32, "pooling": "smooth", "turns": False,
            "contrast_weight": 0.0, "struct_weight": 0.0, "background": ["Glass"],
        }  # fmt: skip
        cases, names = real(SEEDS, *given.folders)
    tissues = len(names) - len(common.get("background", ()))
    with ProcessPoolExecutor(given.workers) as pool:
        parts = [
            pool.submit(run, given.keep, encoder, seed, case, common, names, tissues, given.arms)
            for seed, case in cases.items()
        ]
        for part in parts:
            part.result()
    show(gather(given.keep, encoder))


if __name__ == "__main__":
    main()
