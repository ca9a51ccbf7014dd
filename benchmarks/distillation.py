"""The gain by the teacher: models trained with and without distillation.

    python benchmarks/distillation.py FOLDER [--seeds 1 2 3]         FOLDER holds CLASS___*.jpg

Preset `wsiseg` with the encoder pair `tiny`, whose teacher guides the level that the CAM reads.
Synthetic: models are trained on patches of one slide, and CAMs scored on masks of patches of
another (mean IoU of the largest CAM, without gate and CRF). Real: seven tissues of Kather et al.,
each tile scored once by a model that was not trained on its fold (share of tiles whose largest
class logit is right; there are no masks). A seed is a pair of slides, a split, and a start. Both
models of a seed see the same patches in the same order. Intervals: 1,000 draws of patches, the same
for both.

The paper's pair, CONCH and SegFormer MiT-B1, needs their weights and is not measured here.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from real_he import Tiles, find_tiles, split

from wsiseg.annotations import BACKGROUND
from wsiseg.config import TrainConfig
from wsiseg.demo import Truth, sample_patches, synthesize_slide
from wsiseg.evaluate import confusion_matrix, score
from wsiseg.geometry import Box
from wsiseg.model.device import to_images
from wsiseg.model.trained import load_trained
from wsiseg.slide import open_slide
from wsiseg.train import Patches, load_patches, train_model

WEIGHTS = {"with": 1.5, "without": 0.0}
WIDTH, HEIGHT, SIDE, MPP = 3072, 2560, 224, 0.5
PATCHES, ASKED, FOLDS, DRAWS = 96, 60, 5, 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, nargs=2, default=[12, 30], help="synthetic, real")
    given = parser.parse_args()
    torch.set_num_threads(1)
    tiles = find_tiles(given.folder)
    print("| data | seed | with | without | difference |\n|---|---|---|---|---|")
    measure("synthetic, mean IoU", given.seeds, miou, lambda s, w: synthetic(s, w, given.epochs[0]))
    measure(
        "real, share right", given.seeds, share, lambda s, w: real(tiles, s, w, given.epochs[1])
    )


def measure(
    name: str, seeds: list[int], value: Callable[[np.ndarray], float],
    run: Callable[[int, float], np.ndarray],
) -> None:  # fmt: skip
    """Print a row per seed, then the mean with the interval of the difference."""
    began, found = time.process_time(), []
    for seed in seeds:
        found.append([run(seed, weight) for weight in WEIGHTS.values()])
        row = [value(one) for one in found[-1]]
        print(
            f"| {name} | {seed} | {row[0]:.3f} | {row[1]:.3f} | {row[0] - row[1]:+.3f} |",
            flush=True,
        )
    rows = np.array([[value(one) for one in pair] for pair in found])
    random, draws = np.random.default_rng(0), []
    for _ in range(DRAWS):
        gains = []
        for with_teacher, without in found:
            at = random.integers(len(without), size=len(without))
            gains.append(value(with_teacher[at]) - value(without[at]))
        draws.append(np.mean(gains))
    low, high = np.percentile(draws, (2.5, 97.5))
    mean, spread = rows.mean(0), rows.std(0, ddof=1)
    gain = f"{mean[0] - mean[1]:+.3f} [{low:+.3f}, {high:+.3f}]"
    cells = " | ".join(f"{m:.3f} ± {s:.3f}" for m, s in zip(mean, spread, strict=True))
    print(f"| {name} | mean ± spread | {cells} | {gain} |")
    print(f"\n{name}: {time.process_time() - began:.0f} s of CPU\n", flush=True)


# -- synthetic slides ----------------------------------------------------------------------------


def synthetic(seed: int, weight: float, epochs: int) -> np.ndarray:
    """Return the confusion ``(N, K + 1, K + 1)`` of each patch of the pair's second slide."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        learned, asked = (folder / f"{at}.svs" for at in (1, 2))
        truths = [
            synthesize_slide(path, WIDTH, HEIGHT, 100 * seed + at)
            for at, path in enumerate((learned, asked))
        ]
        table = sample_patches(learned, truths[0], folder / "patches", PATCHES, seed)
        config = TrainConfig(
            classes=truths[0].names, device="cpu", seed=seed, epochs=epochs, struct_weight=weight
        )
        patches = load_patches(table, config.classes)
        model = load_trained(train_model(patches, config, folder / "m.safetensors")).model
        return np.stack(
            [
                confusion_matrix(
                    truth[known], find_largest(model, pixels)[known], len(config.classes)
                )
                for pixels, truth, known in ask(asked, truths[1], seed)
            ]
        )


def ask(path: Path, truth: Truth, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Cut pixels, true labels and tissue masks of patches that are mostly tissue."""
    random, left = np.random.default_rng(seed), ASKED
    height, width = truth.labels.shape
    with open_slide(path) as slide:
        while left:
            x, y = (int(random.integers(n - SIDE)) for n in (width, height))
            labels = truth.labels[y : y + SIDE, x : x + SIDE]
            known = labels != BACKGROUND
            if known.mean() >= 0.75:
                left -= 1
                yield slide.read(Box(x, y, SIDE, SIDE), MPP), labels, known


def find_largest(model: torch.nn.Module, pixels: np.ndarray) -> np.ndarray:
    """Return the class with the largest CAM at each pixel, ``(H, W)`` uint8."""
    with torch.inference_mode():
        cams = model(to_images(pixels[None])).cams
        large = F.interpolate(cams, size=pixels.shape[:2], mode="bilinear")
    return large[0].argmax(0).numpy().astype(np.uint8)


def miou(confusions: np.ndarray) -> float:
    """Compute the mean IoU over all patches."""
    return score(confusions.sum(0)).miou


# -- real tiles ----------------------------------------------------------------------------------


def real(tiles: Tiles, seed: int, weight: float, epochs: int) -> np.ndarray:
    """Return ``(N,)`` bool: whether the model of its fold classified each tile correctly."""
    fold, right = split(tiles.labels, FOLDS, seed), np.zeros(len(tiles.labels), bool)
    for number in range(FOLDS):
        (known,), (asked,) = np.nonzero(fold != number), np.nonzero(fold == number)
        config = TrainConfig(
            classes=tiles.classes, device="cpu", seed=seed, epochs=epochs, struct_weight=weight,
            contrast_weight=0.0,
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as name:
            model = load_trained(
                train_model(gather(tiles, known), config, Path(name, "m.safetensors"))
            )
            images = to_images(gather(tiles, asked).read(range(len(asked))))
            with torch.inference_mode():
                found = model.model(images).logits.argmax(1).numpy()
        right[asked] = found == tiles.labels[asked]
    return right


def gather(tiles: Tiles, which: np.ndarray) -> Patches:
    """Select some of the tiles with their labels."""
    labels = np.eye(len(tiles.classes), dtype=np.float32)[tiles.labels[which]]
    return Patches(tuple(tiles.paths[at] for at in which), labels, SIDE)


def share(right: np.ndarray) -> float:
    """Return the share of correctly classified tiles."""
    return float(right.mean())


if __name__ == "__main__":
    main()
