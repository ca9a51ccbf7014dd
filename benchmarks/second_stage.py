"""The second stage against the first: agreement with the truth, and tiles per second on one core.

    python benchmarks/second_stage.py synthetic FOLDER
    python benchmarks/second_stage.py real FOLDER --atlas ATLAS --encoders ENCODERS

Stage one predicts with six augmentations and the dense CRF, stage two in one pass without it; both
label tile by tile, gated by the classes that they predict. FOLDER caches results. `synthetic`:
ConStruct `tiny` is trained on patch labels of one generated slide, its pseudo-masks of these
patches train the second stage, and patches of other slides, whose masks are known, are scored.
`real`: for each fold of the slides of ATLAS, the checkpoint `tissue` that was taught without it
(ENCODERS is the FOLDER of pipelines/tissue_checkpoint.py) labels tiles of the other folds, gated by
their labels, and tiles of the fold are scored: those that show one tissue, which is the truth for
all of their pixels, alone and four side by side. Intervals: 1,000 draws of patches; of slides, for
tiles alone.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from wsiseg.annotations import PALETTES
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
from wsiseg.train.encoder import TileSet, read_tile_set

FIRST = EvaluateConfig(tta=6, device="cpu")
SECOND = EvaluateConfig(tta=1, device="cpu")
TEACH = MasksConfig(confidence=True, device="cpu")
TRAIN_SLIDE, TEST_SLIDES = 1, (21, 22, 23)
WIDTH, HEIGHT = 6_144, 4_608
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


def teach(masks: Path, images: Path, out: Path, config: DistillConfig) -> CamSource:
    """Train the second stage, unless it is there."""
    if out.exists():
        return load_source(out)
    return load_source(distill_model(load_masks(masks, images, mpp=0.5), config, out, tell))


def teach_each(masks: Path, images: Path, configs: list[DistillConfig]) -> dict[str, CamSource]:
    """Train the second stages, into the folder of the masks' folder."""
    found = {}
    for config in configs:
        out = masks.parent / f"{config.network}-{config.seed}.safetensors"
        name = f"stage two on {config.network}, seed {config.seed}"
        found[name] = teach(masks, images, out, config)
    return found


def tell(step: str, done: int, total: int) -> None:
    """Print the progress of a training."""
    if done % 25 == 0:
        print(f"  {step} {done}/{total}", flush=True)


def name_stages(
    first: CamSource, seconds: dict[str, CamSource]
) -> dict[str, tuple[CamSource, bool]]:
    """Name the ways to label: each a model, and whether it labels as stage one does."""
    ways = {"stage one, TTA 6, CRF": (first, True), "stage one, one pass": (first, False)}
    return ways | {name: (second, False) for name, second in seconds.items()}


def compare(name: str, found: dict[str, np.ndarray]) -> None:
    """Print a table of the confusions ``(N, K + 1, K + 1)`` of each way; the first is stage one."""
    one = next(iter(found.values()))
    print(f"\n| {name}, {len(one)} | mIoU | against stage one |\n|---|---|---|")
    for way, matrices in found.items():
        print(f"| {way} | {describe(matrices, None if matrices is one else one)} |", flush=True)


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


def synthetic(folder: Path, configs: list[DistillConfig], count: int, tests: int) -> None:
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
    seconds = teach_each(folder / "masks", table, configs)
    parts = [cut_patches(folder, seed, tests) for seed in TEST_SLIDES]
    asked = Scored(*(np.concatenate(part) for part in zip(*parts, strict=True)))
    ways = name_stages(first, seconds)
    found = {way: confusions(source, asked, first) for way, (source, first) in ways.items()}
    compare("patches of other synthetic slides", found)
    other_seeds = tuple(
        f"seed {config.seed}" for config in configs if config.seed != configs[0].seed
    )
    once = {way: stage for way, stage in ways.items() if not way.endswith(other_seeds)}
    speed(once, asked.images)


# -- real ---------------------------------------------------------------------------------------


def choose_tiles(tile_set: TileSet, free: np.ndarray, out: Path, count: int) -> Path:
    """Write a table of `count` of the `free` tiles, drawn at random, with classes of `tissue`."""
    names = PALETTES["tissue"].names
    chosen = np.sort(np.random.default_rng(0).permutation(free)[:count])
    with out.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", *names])
        for tile in chosen:
            shown = tile_set.tiles.labels[tile, : len(names)].astype(int)
            table.writerow([tile_set.paths[tile].resolve(), *shown])
    return out


def lay_beside(images: np.ndarray, labels: np.ndarray, count: int) -> Scored:
    """Make pictures of parts of four tiles side by side, of classes drawn uniformly."""
    mixed = Scored(np.empty((count, SIDE, SIDE, 3), np.uint8), np.empty((count, SIDE, SIDE), int))
    rng, half = np.random.default_rng(0), SIDE // 2
    for image, mask in zip(*mixed, strict=True):
        for at, name in enumerate(np.resize(rng.permutation(np.unique(labels)), 4)):
            tile = rng.choice(np.flatnonzero(labels == name))
            y, x = (half * side for side in divmod(at, 2))
            top, left = rng.integers(0, SIDE - half, 2)
            image[y : y + half, x : x + half] = images[tile][top : top + half, left : left + half]
            mask[y : y + half, x : x + half] = name
    return mixed


def make_stages(
    weights: Path, one: Path, table: Path, configs: list[DistillConfig]
) -> dict[str, tuple[CamSource, bool]]:
    """Load stage one of a fold, on its encoders, and train stage two on its masks of a table."""
    options, masks = {"weights": str(weights)}, table.parent / "masks"
    teaching = TEACH.model_copy(update={"encoder_options": options})
    write_masks(one, table, masks, teaching, executor=SerialExecutor(), progress=tell)
    configs = [config.model_copy(update={"network_options": options}) for config in configs]
    return name_stages(load_source(one, options), teach_each(masks, table, configs))


def real(
    folder: Path, configs: list[DistillConfig], count: int, tests: int, atlas: Path, encoders: Path
) -> None:
    """Measure on slides that neither stage has seen."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "pipelines"))
    from tile_encoder import WORDS, find_folds
    from tissue_checkpoint import find_encoders

    tile_set = read_tile_set(atlas, tuple(WORDS))
    pixels, labels, slides = tile_set.tiles
    fold = find_folds(tile_set)[slides]
    named = labels[:, : len(PALETTES["tissue"].names)].any(1)
    other = labels[:, list(WORDS).index("Other")] > 0
    alone, mixed = defaultdict(list), defaultdict(list)
    for number, (weights, one) in find_encoders(encoders).items():
        table = folder / f"fold{number}" / "tiles.csv"
        table.parent.mkdir(parents=True, exist_ok=True)
        choose_tiles(tile_set, np.flatnonzero(named & ~other & (fold != number)), table, count)
        asked = np.flatnonzero(named & (labels.sum(1) == 1) & (fold == number))
        truth = labels[asked].argmax(1)
        single = Scored(pixels[asked], np.tile(truth[:, None, None], (1, SIDE, SIDE)))
        pictures = lay_beside(pixels[asked], truth, tests)
        for way, (source, first) in make_stages(weights, one, table, configs).items():
            matrices = confusions(source, single, first)
            alone[way] += [matrices[slides[asked] == s].sum(0) for s in np.unique(slides[asked])]
            mixed[way] += list(confusions(source, pictures, first))
    for name, found in {"slides, tiles alone": alone, "four side by side": mixed}.items():
        compare(name, {way: np.stack(matrices) for way, matrices in found.items()})


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", choices=("synthetic", "real"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--networks", nargs="+", default=["lite"], help="of stage two")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--count", type=int, default=300, help="patches that are learned from")
    parser.add_argument("--tests", type=int, default=60, help="patches of each slide, scored")
    parser.add_argument("--atlas", type=Path)
    parser.add_argument("--encoders", type=Path, help="folder of pipelines/tissue_checkpoint.py")
    given = parser.parse_args()
    torch.set_num_threads(1)
    configs = [
        DistillConfig(network=network, seed=seed, epochs=given.epochs, device="cpu")
        for network in given.networks
        for seed in given.seeds
    ]
    common = (given.folder, configs, given.count)
    if given.part == "synthetic":
        synthetic(*common, given.tests)
    else:
        real(*common, given.tests, given.atlas, given.encoders)


if __name__ == "__main__":
    main()
