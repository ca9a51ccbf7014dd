"""The checkpoint `tissue` on held-out slides: labels, borders, confidence, stains.

    python benchmarks/tissue ATLAS FOLDER --parts labels mosaics confidence stains likeness
    python benchmarks/tissue ATLAS FOLDER --parts baseline tiny        (slow: an hour)

FOLDER has the results of pipelines/tissue_checkpoint.py. Every tile is scored by the model of its
fold, which was not trained on slides of the tile's repository. Intervals are over slides (500
draws). Slow results are cached in FOLDER; its scores.yaml goes into the model card.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import yaml

sys.path.insert(0, str(Path(__file__).parents[2] / "pipelines"))

import pictures
from scores import Figure, average_precision, by_slide, f1, miou
from tissue_checkpoint import CONFIG, FOLDS, read_folds, to_patches

from wsiseg.evaluate.reliability import measure_reliability
from wsiseg.model.calibration import fit_calibration
from wsiseg.model.checkpoint import load_checkpoint
from wsiseg.model.device import to_images
from wsiseg.model.trained import load_trained
from wsiseg.train import train_model
from wsiseg.train.calibrate import read_cells

NAMES = CONFIG.classes[: len(CONFIG.classes) - len(CONFIG.background)]
K = len(NAMES)
MOSAICS = 60  # a fold


class Bench:
    """All tiles, and the model of each fold."""

    def __init__(self, atlas: Path, folder: Path) -> None:
        self.calibration: dict[str, object] | None = None
        self.folder = folder
        self.found, self.fold, self.pure = read_folds(atlas)
        self.tiles = self.found.tiles
        self.truth = self.tiles.labels[:, :K].astype(bool)
        self.sources = []
        for number in range(FOLDS):
            weights = folder / f"fold{number}.safetensors"
            made = folder / f"fold{number}_tissue.safetensors"
            self.sources.append(load_trained(made, {"weights": str(weights)}))
        self.models = [source.model for source in self.sources]
        self.cards: list[dict[str, object]] = []

    def ask(self, change=None, mpp: float = 0.5) -> np.ndarray:
        """Predict class logits ``(N, K)``, each tile by its fold's model."""
        logits = np.zeros((len(self.fold), K), np.float32)
        for number, model in enumerate(self.models):
            for at in batches(np.flatnonzero(self.fold == number)):
                pixels = self.tiles.pixels[at]
                images = to_images(pixels if change is None else change(pixels))
                if mpp != 0.5:
                    images = pictures.other_scale(images, mpp)
                with torch.inference_mode():
                    logits[at] = model(images).logits[:, :K].numpy()
        return logits

    def calibrations(self) -> list[torch.Tensor]:
        """Fit a calibration for each fold on the other folds' held-out predictions."""
        self.cells = [
            read_cells(
                self.sources[n],
                to_patches(self.found),
                np.flatnonzero(self.pure & (self.fold == n)),
            )
            for n in range(FOLDS)
        ]
        found = []
        for number in range(FOLDS):
            parts = [self.cells[n] for n in range(FOLDS) if n != number]
            found.append(fit_calibration(*(torch.cat(p) for p in zip(*parts, strict=True))))
        return found


def batches(which: np.ndarray, size: int = 32) -> list[np.ndarray]:
    """Yield numbers in batches."""
    return np.array_split(which, -(-len(which) // size)) if len(which) else []


def show(title: str, figures: dict[str, Figure]) -> None:
    """Print a table with a row per class and a column per figure."""
    print(f"\n{title}\n| class | {' | '.join(figures)} |\n|---|{'---|' * len(figures)}")
    for k, name in enumerate((*NAMES, "mean")):
        cells = []
        for figure in figures.values():
            value, low, high = figure.mean if name == "mean" else figure.classes[k]
            cells.append(f"{value:.3f} [{low:.2f}, {high:.2f}]")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def measure_labels(bench: Bench) -> None:
    """Measure average precision and F1 of the tile labels."""
    logits, slides = bench.ask(), bench.tiles.slides
    found = np.zeros_like(bench.truth)
    for number in range(FOLDS):
        others = bench.fold != number
        for k in range(K):
            limits = np.quantile(logits[others, k], np.linspace(0, 1, 200))
            best = max(
                limits, key=lambda t, k=k: f1(bench.truth[others, k], logits[others, k] >= t)
            )
            found[~others, k] = logits[~others, k] >= best
    ap = by_slide(average_precision, bench.truth, logits, slides)
    both = {"AP": ap, "F1": by_slide(f1, bench.truth, found, slides)}
    show("Tile labels, leave-slides-out over 53 slides", both)
    for metric, figure in both.items():
        value, low, high = (round(float(v), 4) for v in figure.mean)
        per = {n: round(float(v[0]), 4) for n, v in zip(NAMES, figure.classes, strict=True)}
        bench.cards.append({
            "protocol": "leave-slides-out, five folds", "metric": f"macro {metric}",
            "over": "tiles", "value": value, "low": low, "high": high, "by_class": per,
            "note": "of models trained alike without the fold; 95 % interval over slides",
        })  # fmt: skip


def measure_mosaics(bench: Bench) -> None:
    """Measure mean IoU on pictures of pure tiles, from calibrated CAMs alone."""
    confusion = np.zeros((K + 1, K + 1), np.int64)
    for number, calibration in enumerate(bench.calibrations()):
        at = np.flatnonzero(bench.pure & (bench.fold == number))
        classes = bench.tiles.labels[at].argmax(1)
        at, classes = at[classes < K], classes[classes < K]
        made = pictures.mosaics(
            bench.tiles.pixels[at], classes, bench.tiles.slides[at], MOSAICS, number
        )
        for image, truth in made:
            with torch.inference_mode():
                cams = bench.models[number](to_images(image[None])).cams
            cams = cams * calibration[:, 0, None, None] + calibration[:, 1, None, None]
            big = F.interpolate(cams, truth.shape, mode="bilinear", align_corners=False)
            label = big[0].argmax(0).numpy()
            confusion += np.bincount(
                (truth * (K + 1) + label).ravel(), minlength=(K + 1) ** 2
            ).reshape(K + 1, K + 1)
    iou, _ = miou(confusion)
    print(
        f"\nMosaics of pure held-out tiles ({MOSAICS} a fold): mean IoU {np.nanmean(iou[:K]):.3f}"
    )
    print("| class | IoU |\n|---|---|")
    for name, value in zip(NAMES, iou, strict=False):
        print(f"| {name} | {value:.3f} |")
    print("rows truth, columns found (last: glass), %")
    print(
        np.round(100 * confusion[:K] / np.maximum(confusion[:K].sum(1, keepdims=True), 1)).astype(
            int
        )
    )
    bench.cards.append({
        "protocol": "mosaics of pure tiles of held-out slides", "metric": "mIoU", "over": "pixels",
        "value": round(float(np.nanmean(iou[:K])), 4),
        "by_class": {n: round(float(v), 4) for n, v in zip(NAMES, iou, strict=False) if v == v},
        "note": "two by two and three by three tiles, calibrated CAMs alone",
    })  # fmt: skip


def measure_confidence(bench: Bench) -> None:
    """Measure the expected calibration error, with each fold calibrated on the others."""
    before = after = None
    for number, calibration in enumerate(bench.calibrations()):
        logits, classes = bench.cells[number]
        for calibrated in (False, True):
            values = logits * calibration[:, 0] + calibration[:, 1] if calibrated else logits
            sure, label = values.softmax(1).max(1)
            part = measure_reliability(sure.numpy(), (label == classes).numpy())
            if calibrated:
                after = part if after is None else after + part
            else:
                before = part if before is None else before + part
    print(
        f"\nECE of cells of pure held-out tiles: {before.ece:.3f} as trained, "
        f"{after.ece:.3f} calibrated"
    )
    print("| confidence | right | cells |\n|---|---|---|")
    bins = [
        (round(float(c), 4), round(float(a), 4), int(n))
        for c, a, n in zip(after.confidence, after.accuracy, after.counts, strict=True) if n
    ]  # fmt: skip
    for said, right, count in bins:
        print(f"| {said:.3f} | {right:.3f} | {count} |")
    bench.calibration = {
        "method": "scale and offset a class (vector scaling)",
        "fitted_on": "cells of tiles of one tissue, of slides that the models never saw",
        "ece": round(after.ece, 4), "bins": [list(row) for row in bins],
    }  # fmt: skip


def measure_stains(bench: Bench) -> None:
    """Measure macro average precision under other dyes and at other scales."""
    print("\n| change | macro AP |\n|---|---|")
    for name, dyes in pictures.DYES.items():
        logits = bench.ask(partial(pictures.other_dyes, dyes=dyes))
        print(f"| dyes: {name} | {macro(bench, logits):.3f} |", flush=True)
    for mpp in (0.3, 0.5, 0.75, 1.0):
        print(f"| {mpp} µm/px | {macro(bench, bench.ask(mpp=mpp)):.3f} |", flush=True)


def macro(bench: Bench, logits: np.ndarray) -> float:
    """Return the mean average precision of the classes."""
    return float(np.mean([average_precision(bench.truth[:, k], logits[:, k]) for k in range(K)]))


def measure_likeness(bench: Bench) -> None:
    """Measure the share of each held-out slide's tiles reported as unlike; also with other dyes."""
    swapped = pictures.DYES["brown and blue (IHC)"]
    shares: dict[str, list[float]] = {"as it is": [], "IHC": []}
    for number, model in enumerate(bench.models):
        for slide in np.unique(bench.tiles.slides[bench.fold == number]):
            pixels = bench.tiles.pixels[np.flatnonzero(bench.tiles.slides == slide)]
            for kind, shown in (
                ("as it is", pixels),
                ("IHC", pictures.other_dyes(pixels, swapped)),
            ):
                with torch.inference_mode():
                    far = model.familiar(model.encoder.embed_image(to_images(shown))) > 1
                shares[kind].append(float(far.float().mean()))
    print(
        "\nShare of a held-out slide's tiles beyond 99 % of the training tiles; "
        "slides told as unlike"
    )
    for kind, values in shares.items():
        row = np.quantile(values, (0, 0.5, 0.9, 1))
        print(
            f"{kind}: least {row[0]:.2f}, median {row[1]:.2f}, 90 % {row[2]:.2f}, "
            f"most {row[3]:.2f}; {sum(v > 0.5 for v in values)} of {len(values)} slides"
        )


def measure_baseline(bench: Bench) -> None:
    """Measure stain statistics and local binary patterns, tuned within the training folds."""
    from baseline import describe, fit_and_ask

    kept = bench.folder / "baseline.npy"
    if not kept.exists():
        facts, scores = describe(bench.tiles.pixels), np.zeros(bench.truth.shape)
        for number in range(FOLDS):
            known, asked = bench.fold != number, bench.fold == number
            scores[asked] = fit_and_ask(
                facts[known], bench.truth[known], bench.tiles.slides[known], facts[asked]
            )
        np.save(kept, scores)
    show(
        "Colour and texture",
        {"AP": by_slide(average_precision, bench.truth, np.load(kept), bench.tiles.slides)},
    )


def measure_tiny(bench: Bench) -> None:
    """Measure `tiny`, trained on the same folds and labels."""
    kept = bench.folder / "tiny.npy"
    if not kept.exists():
        logits = np.zeros(bench.truth.shape, np.float32)
        config = CONFIG.model_copy(update={"encoder": "tiny"})
        for number in range(FOLDS):
            known = np.flatnonzero(bench.fold != number)
            patches = to_patches(bench.found, known)
            with tempfile.TemporaryDirectory() as folder:
                model, _ = load_checkpoint(
                    train_model(patches, config, Path(folder, "m.safetensors"))
                )
            for at in batches(np.flatnonzero(bench.fold == number)):
                with torch.inference_mode():
                    logits[at] = model(to_images(bench.tiles.pixels[at])).logits[:, :K].numpy()
        np.save(kept, logits)
    show(
        "tiny, trained on the same folds",
        {"AP": by_slide(average_precision, bench.truth, np.load(kept), bench.tiles.slides)},
    )


PARTS = {
    "labels": measure_labels, "mosaics": measure_mosaics, "confidence": measure_confidence,
    "stains": measure_stains, "likeness": measure_likeness, "baseline": measure_baseline,
    "tiny": measure_tiny,
}  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("atlas", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(given.atlas, given.folder)
    for part in given.parts:
        PARTS[part](bench)
    if bench.cards:
        made = {"scores": bench.cards, "calibration": bench.calibration}
        (given.folder / "scores.yaml").write_text(yaml.safe_dump(made, sort_keys=False, width=100))


if __name__ == "__main__":
    main()
