"""The second stage against the first: agreement with the truth, and tiles per second on one core.

    python benchmarks/second_stage.py synthetic FOLDER
    python benchmarks/second_stage.py real FOLDER --atlas ATLAS --kather KATHER

Stage one predicts with six augmentations and the dense CRF, stage two in one pass without it; both
label tile by tile, gated by the classes that they predict. FOLDER caches results. `synthetic`:
ConStruct `tiny` is trained on patch labels of one generated slide, its pseudo-masks of these
patches train the second stage, and patches of other slides, whose masks are known, are scored.
`real`: the shipped `tissue` labels tiles of ATLAS, gated by their labels, and tiles of Kather et
al., from other laboratories, are scored: each shows one tissue, which is the truth for all of its
pixels, alone and four side by side. Intervals: 1,000 draws of tiles or pictures.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from wsiseg.annotations import BACKGROUND, PALETTES
from wsiseg.compute import SerialExecutor
from wsiseg.config import DistillConfig, EvaluateConfig, MasksConfig, TrainConfig
from wsiseg.demo.patches import SIDE, pick_boxes
from wsiseg.demo.synthesis import Truth, synthesize_slide
from wsiseg.distill import distill_model, load_masks
from wsiseg.evaluate import confusion_matrix, score
from wsiseg.evaluate.protocols import predict_maps, predicted_gates, refine_maps
from wsiseg.masks import write_masks
from wsiseg.model.load import load_source
from wsiseg.model.source import CamSource
from wsiseg.slide import open_slide
from wsiseg.train import load_patches, train_model

FIRST = EvaluateConfig(tta=6, device="cpu")
SECOND = EvaluateConfig(tta=1, device="cpu")
TEACH = MasksConfig(confidence=True, device="cpu")
TRAIN_SLIDE, TEST_SLIDES = 1, (21, 22, 23)
WIDTH, HEIGHT = 6_144, 4_608
KATHER = {
    "ADI": "Adipose", "LYM": "Immune cells", "MUC": "Mucin", "MUS": "Muscle",
    "NORM": "Epithelium", "STR": "Stroma", "TUM": "Epithelium",
}  # fmt: skip
ROUNDS, TIMED = 3, 20


class Scored(NamedTuple):
    """Images with known labels of all pixels."""

    images: np.ndarray
    """``(N, H, W, 3)`` uint8."""
    truth: np.ndarray
    """``(N, H, W)`` uint8 labels."""


# -- the two stages -----------------------------------------------------------------------------


def label(source: CamSource, images: np.ndarray, first: bool) -> np.ndarray:
    """Label images ``(B, H, W)`` as in protocol `deploy`."""
    config = FIRST if first else SECOND
    found = predict_maps(source, images, config)
    gates = predicted_gates(found, len(source.palette), config.gate_threshold)
    return refine_maps(found, gates, images, config.crf if first else None).labels


def confusions(source: CamSource, scored: Scored, first: bool) -> np.ndarray:
    """``(N, K + 1, K + 1)``."""
    classes, found = len(source.palette), []
    for start in range(0, len(scored.images), 10):
        images = scored.images[start : start + 10]
        for truth, labels in zip(
            scored.truth[start : start + 10], label(source, images, first), strict=True
        ):
            found.append(confusion_matrix(truth, labels, classes))
    return np.stack(found)


def describe(matrices: np.ndarray, beside: np.ndarray | None = None) -> str:
    """Format mean IoU with its interval, and the paired difference from `beside`."""
    rng = np.random.default_rng(0)
    draws = rng.integers(len(matrices), size=(1000, len(matrices)))
    drawn = np.array([score(matrices[rows].sum(0)).miou for rows in draws])
    text = "{:.3f} [{:.3f}, {:.3f}]".format(
        score(matrices.sum(0)).miou, *np.quantile(drawn, (0.025, 0.975))
    )
    if beside is None:
        return f"{text} | "
    other = np.array([score(beside[rows].sum(0)).miou for rows in draws])
    gain = score(matrices.sum(0)).miou - score(beside.sum(0)).miou
    return "{} | {:+.3f} [{:+.3f}, {:+.3f}]".format(
        text, gain, *np.quantile(drawn - other, (0.025, 0.975))
    )


def speed(stages: dict[str, tuple[CamSource, bool]], images: np.ndarray) -> None:
    """Measure CPU seconds of one thread, in turn; medians."""
    images, spent = images[:TIMED], {name: [] for name in stages}
    for turn in range(ROUNDS + 1):
        for name, (source, first) in stages.items():
            begun = time.process_time()
            label(source, images, first)
            if turn:  # the first compiles
                spent[name].append((time.process_time() - begun) / len(images))
    slowest = max(map(np.median, spent.values()))
    print("\n| on one core | ms CPU a tile | tiles a second | times as fast |\n|---|---|---|---|")
    for name, seconds in spent.items():
        one = float(np.median(seconds))
        print(f"| {name} | {1e3 * one:.1f} | {1 / one:.1f} | {slowest / one:.1f} |")


def teach(masks: Path, images: Path, out: Path, epochs: int, seed: int) -> CamSource:
    """Train the second stage with some seed."""
    if out.exists():
        return load_source(out)
    windows = load_masks(masks, images, mpp=0.5)
    config = DistillConfig(epochs=epochs, seed=seed, device="cpu")
    return load_source(distill_model(windows, config, out, tell))


def tell(step: str, done: int, total: int) -> None:
    """Print the progress of a training."""
    if done % 25 == 0:
        print(f"  {step} {done}/{total}", flush=True)


def compare(first: CamSource, seconds: dict[int, CamSource], sets: dict[str, Scored]) -> None:
    """Print the tables."""
    for name, scored in sets.items():
        print(f"\n| {name}, {len(scored.images)} | mIoU | against stage one |\n|---|---|---|")
        one = confusions(first, scored, True)
        print(f"| stage one, TTA 6, CRF | {describe(one)} |", flush=True)
        plain = confusions(first, scored, False)
        print(f"| stage one, one pass | {describe(plain, one)} |", flush=True)
        for seed, second in seconds.items():
            two = describe(confusions(second, scored, False), one)
            print(f"| stage two, seed {seed} | {two} |", flush=True)
    some = next(iter(sets.values())).images
    both = {"stage one, TTA 6, CRF": (first, True), "stage one, one pass": (first, False)}
    speed(both | {"stage two": (next(iter(seconds.values())), False)}, some)


# -- synthetic ----------------------------------------------------------------------------------


def cut_patches(folder: Path, seed: int, count: int) -> Scored:
    """Cut patches of a generated slide and their masks; also write the patches with labels."""
    path = folder / f"{seed}.svs"
    if not path.with_suffix(".npz").exists():
        synthesize_slide(path, WIDTH, HEIGHT, seed).save(path.with_suffix(".npz"))
    truth = Truth.load(path.with_suffix(".npz"))
    boxes = pick_boxes(truth, count, np.random.default_rng(seed))
    with open_slide(path) as slide:
        images = np.stack([slide.read(box, truth.mpp) for box in boxes])
    masks = np.stack([truth.labels[box.slices()] for box in boxes])
    return Scored(images, masks)


def write_patches(scored: Scored, folder: Path) -> Path:
    """Write patches with labels as a person would give: classes that cover a twentieth of each."""
    folder.mkdir(parents=True, exist_ok=True)
    names = PALETTES["bcss"].names
    rows = [["image", *names]]
    for number, (image, truth) in enumerate(zip(*scored, strict=True)):
        Image.fromarray(image).save(folder / f"{number:04d}.png")
        shown = [int((truth == k).mean() >= 0.05) for k in range(len(names))]
        rows.append([f"{number:04d}.png", *map(str, shown)])
    with (folder / "patches.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "patches.csv"


def synthetic(folder: Path, seeds: list[int], epochs: int, count: int, tests: int) -> None:
    """Measure on generated slides, whose truth is known."""
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "patches" / "patches.csv"
    if not table.exists():
        write_patches(cut_patches(folder, TRAIN_SLIDE, count), table.parent)
    known = load_patches(table, PALETTES["bcss"].names)
    one = folder / "first.safetensors"
    if not one.exists():
        train_model(known, TrainConfig(epochs=12, device="cpu"), one, tell)
    first = load_source(one)
    write_masks(one, table, folder / "masks", TEACH, progress=tell)
    seconds = {
        seed: teach(folder / "masks", table, folder / f"second-{seed}.safetensors", epochs, seed)
        for seed in seeds
    }
    parts = [cut_patches(folder, seed, tests) for seed in TEST_SLIDES]
    asked = Scored(*(np.concatenate(part) for part in zip(*parts, strict=True)))
    compare(first, seconds, {"patches of other synthetic slides": asked})


# -- real ---------------------------------------------------------------------------------------


def choose_atlas(atlas: Path, out: Path, count: int) -> Path:
    """Choose a table of tiles, rare classes first, with the classes of `tissue`."""
    names = PALETTES["tissue"].names
    with (atlas / "labels.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["Other"] == "0"]
    rows = [row for row in rows if any(row[name] == "1" for name in names)]
    shown = np.array([[int(row[name]) for name in names] for row in rows])
    rng, chosen = np.random.default_rng(0), []
    for k in np.argsort(shown.sum(0)):
        have = shown[chosen, k].sum() if chosen else 0
        free = np.setdiff1d(np.flatnonzero(shown[:, k]), chosen)
        wanted = max(0, count // len(names) - have)
        chosen += rng.permutation(free)[:wanted].tolist()
    with out.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "slide", *names])
        for number in sorted(chosen):
            row = rows[number]
            table.writerow([(atlas / row["image"]).resolve(), row["slide"], *shown[number]])
    return out


def read_kather(folder: Path) -> dict[str, Scored]:
    """Read the tiles, and make pictures of four side by side."""
    names = PALETTES["tissue"].names
    paths = sorted(folder.glob("*.jpg"))
    images = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    labels = [names.index(KATHER[path.name.split("_")[0]]) for path in paths]
    truth = np.broadcast_to(np.array(labels, np.uint8)[:, None, None], images.shape[:3]).copy()
    rng, half = np.random.default_rng(0), SIDE // 2
    mixed = Scored(np.empty((70, SIDE, SIDE, 3), np.uint8), np.full((70, SIDE, SIDE), BACKGROUND))
    for image, mask in zip(*mixed, strict=True):
        for at, tile in enumerate(rng.permutation(len(images))[:4]):
            y, x = (half * side for side in divmod(at, 2))
            cut = rng.integers(0, SIDE - half, 2)
            part = tuple(slice(c, c + half) for c in cut)
            image[y : y + half, x : x + half] = images[tile][part]
            mask[y : y + half, x : x + half] = truth[tile][part]
    return {"tiles of one tissue": Scored(images, truth), "four side by side": mixed}


def real(
    folder: Path, seeds: list[int], epochs: int, count: int, atlas: Path, kather: Path
) -> None:
    """Measure on real tiles."""
    folder.mkdir(parents=True, exist_ok=True)
    table = choose_atlas(atlas, folder / "atlas.csv", count)
    write_masks("tissue", table, folder / "masks", TEACH, executor=SerialExecutor(), progress=tell)
    seconds = {
        seed: teach(folder / "masks", table, folder / f"second-{seed}.safetensors", epochs, seed)
        for seed in seeds
    }
    compare(load_source("tissue"), seconds, read_kather(kather))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", choices=("synthetic", "real"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--count", type=int, default=300, help="patches that are learned from")
    parser.add_argument("--tests", type=int, default=60, help="patches of each slide, scored")
    parser.add_argument("--atlas", type=Path)
    parser.add_argument("--kather", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    common = (given.folder, given.seeds, given.epochs, given.count)
    if given.part == "synthetic":
        synthetic(*common, given.tests)
    else:
        real(*common, given.atlas, given.kather)


if __name__ == "__main__":
    main()
