"""The checkpoint `tissue` on held-out slides: labels, borders, confidence, stains.

    python benchmarks/tissue ATLAS FOLDER --parts labels mosaics confidence stains likeness
    python benchmarks/tissue ATLAS FOLDER --parts baseline tiny        (slow: an hour)

FOLDER has the results of pipelines/tissue_checkpoint.py. Every tile is scored by the model of its
fold, which was not trained on slides of the tile's repository; folds without a model are left out.
Thresholds and calibrations are fitted on the other folds, or, if there is only one, on the other
half of its slides. Intervals are over slides (500 draws). Slow results are cached in FOLDER;
pipelines/tissue_checkpoint.py puts its scores.yaml into the model card.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import yaml

sys.path.insert(0, str(Path(__file__).parents[2] / "pipelines"))

import pictures
from scores import Figure, average_precision, by_slide, f1, macro_precision, miou
from tissue_checkpoint import (
    CONFIG,
    EVENNESS,
    FOLDS,
    calibrate,
    find_encoders,
    read_folds,
    to_patches,
)

from wsiseg.evaluate.reliability import measure_reliability
from wsiseg.model.checkpoint import load_checkpoint
from wsiseg.model.device import to_images
from wsiseg.model.trained import load_trained
from wsiseg.run.slide import UNLIKE_SHARE
from wsiseg.train import train_model
from wsiseg.train.calibrate import read_cells

NAMES = CONFIG.classes[: len(CONFIG.classes) - len(CONFIG.background)]
K = len(NAMES)
MOSAICS = 60  # a fold, or half of the only one


class Bench:
    """All tiles, and the model of each fold."""

    def __init__(self, atlas: Path, folder: Path) -> None:
        self.calibration: dict[str, object] | None = None
        self.folder = folder
        self.found, self.fold, self.pure = read_folds(atlas)
        self.tiles = self.found.tiles
        self.truth = self.tiles.labels[:, :K].astype(bool)
        self.sources = {
            number: load_trained(files.checkpoint, {"weights": str(files.encoders)})
            for number, files in find_encoders(folder).items()
        }
        self.numbers = list(self.sources)
        self.parts = self.split()
        self.scored = np.isin(self.fold, self.numbers)
        self.cards: list[dict[str, object]] = []

    def split(self) -> list[tuple[int, np.ndarray]]:
        """List what is held out together: the number of its fold's model, and its tiles."""
        if len(self.numbers) > 1:
            return [(number, self.fold == number) for number in self.numbers]
        (number,) = self.numbers
        half = np.unique(self.tiles.slides[self.fold == number])[::2]
        first = np.isin(self.tiles.slides, half)
        return [(number, (self.fold == number) & part) for part in (first, ~first)]

    def count_slides(self) -> int:
        """Count the slides that a model held out."""
        return len(np.unique(self.tiles.slides[self.scored]))

    def kept(self, name: str) -> Path:
        """Return the file of logits that take long, of these folds."""
        return self.folder / f"{name}{''.join(map(str, self.numbers))}.npy"

    def figure(self, measure, scores: np.ndarray) -> Figure:
        """Measure `scores` ``(N, K)`` on the tiles that a model held out."""
        at = self.scored
        return by_slide(measure, self.truth[at], scores[at], self.tiles.slides[at])

    def ask(self, change=None, mpp: float = 0.5) -> np.ndarray:
        """Predict class logits ``(N, K)``, each tile by its fold's model."""
        logits = np.zeros((len(self.fold), K), np.float32)
        for number, source in self.sources.items():
            for at in batches(np.flatnonzero(self.fold == number)):
                pixels = self.tiles.pixels[at]
                images = to_images(pixels if change is None else change(pixels))
                if mpp != 0.5:
                    images = pictures.other_scale(images, mpp)
                with torch.inference_mode():
                    logits[at] = source.model(images).logits[:, :K].numpy()
        return logits

    @cached_property
    def cells(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Logits ``(N, C)`` and classes ``(N,)`` of each part's cells, in tiles of one class."""
        patches = to_patches(self.found)
        return [
            read_cells(self.sources[number], patches, np.flatnonzero(self.pure & tiles))
            for number, tiles in self.parts
        ]

    def calibrations(self, even: bool = False) -> list[torch.Tensor]:
        """Fit a calibration for each part on the other parts' held-out predictions.

        As for what ships, or, with `even`, as if all classes were as frequent.
        """
        found = []
        for own in range(len(self.parts)):
            others = [cells for at, cells in enumerate(self.cells) if at != own]
            logits, labels = (torch.cat(p) for p in zip(*others, strict=True))
            found.append(calibrate(logits, labels, 1.0 if even else EVENNESS))
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
    logits, found = bench.ask(), np.zeros_like(bench.truth)
    for _, own in bench.parts:
        others = bench.scored & ~own
        for k in range(K):
            limits = np.quantile(logits[others, k], np.linspace(0, 1, 200))
            best = max(
                limits, key=lambda t, k=k: f1(bench.truth[others, k], logits[others, k] >= t)
            )
            found[own, k] = logits[own, k] >= best
    both = {"AP": bench.figure(average_precision, logits), "F1": bench.figure(f1, found)}
    slides = bench.count_slides()
    show(f"Tile labels, leave-slides-out over {slides} slides", both)
    for metric, figure in both.items():
        value, low, high = (round(float(v), 4) for v in figure.mean)
        per = {n: round(float(v[0]), 4) for n, v in zip(NAMES, figure.classes, strict=True)}
        protocol = f"leave-slides-out, {len(bench.numbers)} of {FOLDS} folds"
        bench.cards.append({
            "protocol": protocol, "metric": f"macro {metric}",
            "over": "tiles", "value": value, "low": low, "high": high, "by_class": per,
            "note": f"of models trained alike without the fold, on its slides, {slides} in all; "
            "95 % interval over slides",
        })  # fmt: skip


def measure_mosaics(bench: Bench) -> None:
    """Measure mean IoU on pictures of pure tiles, from calibrated CAMs alone, in three ways.

    As shipped; calibrated for classes that are all as frequent, as they are in these pictures; and
    with the classes of each picture given too, as weakly supervised methods are mostly scored.
    """
    ways = ("as shipped", "classes as frequent", "classes given")
    confusions = np.zeros((len(ways), K + 1, K + 1), np.int64)
    both = zip(bench.calibrations(), bench.calibrations(even=True), strict=True)
    for (number, own), (shipped, even) in zip(bench.parts, both, strict=True):
        for cams, truth in see_mosaics(bench, number, own):
            every, given = torch.zeros(K + 1), torch.full((K + 1,), -torch.inf)
            given[np.unique(truth)] = 0
            settings = ((shipped, every), (even, every), (even, given))
            for confusion, (calibration, allowed) in zip(confusions, settings, strict=True):
                scale, offset = calibration[:, 0], calibration[:, 1] + allowed
                label = (cams[0] * scale[:, None, None] + offset[:, None, None]).argmax(0)
                pairs = truth * (K + 1) + label.numpy()
                confusion += np.bincount(pairs.ravel(), minlength=(K + 1) ** 2).reshape(K + 1, -1)
    show_mosaics(dict(zip(ways, confusions, strict=True)))
    iou, mean = mosaic_scores(confusions[0])
    bench.cards.append({
        "protocol": "mosaics of pure tiles of held-out slides", "metric": "mIoU", "over": "pixels",
        "value": round(mean, 4),
        "by_class": {n: round(float(v), 4) for n, v in zip(NAMES, iou, strict=False) if v == v},
        "note": "two by two and three by three tiles, calibrated CAMs alone; "
        f"{bench.count_slides()} slides of {len(bench.numbers)} folds",
    })  # fmt: skip


def see_mosaics(
    bench: Bench, number: int, own: np.ndarray
) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
    """Yield the CAMs ``(1, K + 1, H, W)`` of each picture of a part, and its truth."""
    at = np.flatnonzero(bench.pure & own)
    classes = bench.tiles.labels[at].argmax(1)
    at, classes = at[classes < K], classes[classes < K]
    pixels, slides = bench.tiles.pixels[at], bench.tiles.slides[at]
    for image, truth in pictures.mosaics(pixels, classes, slides, MOSAICS, number):
        with torch.inference_mode():
            cams = bench.sources[number].model(to_images(image[None])).cams
        yield F.interpolate(cams, truth.shape, mode="bilinear", align_corners=False), truth


def mosaic_scores(confusion: np.ndarray) -> tuple[np.ndarray, float]:
    """Compute the IoU ``(K,)`` of each class, and their mean; glass is in no picture."""
    iou = miou(confusion)[0][:K]
    return iou, float(np.nanmean(iou))


def show_mosaics(confusions: dict[str, np.ndarray]) -> None:
    """Print the IoU by class of each way, and where the pixels of each class go as shipped."""
    scores = {way: mosaic_scores(confusion) for way, confusion in confusions.items()}
    print(f"\nMosaics of pure held-out tiles ({MOSAICS} a part): IoU")
    print(f"| class | {' | '.join(confusions)} |\n|---|{'---|' * len(confusions)}")
    for k, name in enumerate(NAMES):
        print(f"| {name} | {' | '.join(f'{iou[k]:.3f}' for iou, _ in scores.values())} |")
    print(f"| mean | {' | '.join(f'{mean:.3f}' for _, mean in scores.values())} |")
    for way, confusion in confusions.items():
        shares = confusion[:K] / np.maximum(confusion[:K].sum(1, keepdims=True), 1)
        print(f"{way}: rows truth, columns found (last: glass), %")
        print(np.round(100 * shares).astype(int), flush=True)


def measure_confidence(bench: Bench) -> None:
    """Measure the expected calibration error, with each fold calibrated on the others."""
    before = after = None
    for own, calibration in enumerate(bench.calibrations()):
        logits, classes = bench.cells[own]
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
        "fitted_on": f"cells of tiles of one tissue, of {bench.count_slides()} slides that the "
        "models did not see; ece: each part calibrated on the others",
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
    return macro_precision(bench.truth[bench.scored], logits[bench.scored])


def measure_likeness(bench: Bench) -> None:
    """Measure the share of each held-out slide's tiles reported as unlike; also with other dyes."""
    swapped = pictures.DYES["brown and blue (IHC)"]
    shares: dict[str, list[float]] = {"as it is": [], "IHC": []}
    for number, source in bench.sources.items():
        model = source.model
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
            f"most {row[3]:.2f}; {sum(v > UNLIKE_SHARE for v in values)} of {len(values)} slides"
        )


def measure_baseline(bench: Bench) -> None:
    """Measure stain statistics and local binary patterns, tuned within the training folds."""
    from baseline import describe, fit_and_ask

    kept = bench.kept("baseline")
    if not kept.exists():
        facts, scores = describe(bench.tiles.pixels), np.zeros(bench.truth.shape)
        for number in bench.numbers:
            known, asked = bench.fold != number, bench.fold == number
            scores[asked] = fit_and_ask(
                facts[known], bench.truth[known], bench.tiles.slides[known], facts[asked]
            )
        np.save(kept, scores)
    show(
        "Colour and texture",
        {"AP": bench.figure(average_precision, np.load(kept))},
    )


def measure_tiny(bench: Bench) -> None:
    """Measure `tiny`, trained on the same folds and labels."""
    kept = bench.kept("tiny")
    if not kept.exists():
        logits = np.zeros(bench.truth.shape, np.float32)
        config = CONFIG.model_copy(update={"encoder": "tiny"})
        for number in bench.numbers:
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
        {"AP": bench.figure(average_precision, np.load(kept))},
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
    if bench.cards or bench.calibration:
        keep_scores(given.folder / "scores.yaml", bench)


def keep_scores(path: Path, bench: Bench) -> None:
    """Write the scores for the model card; those that were not measured now stay as they are."""
    made = yaml.safe_load(path.read_text()) if path.exists() else {}
    scores = {score["metric"]: score for score in [*made.get("scores", ()), *bench.cards]}
    made["scores"] = list(scores.values())
    if bench.calibration:
        made["calibration"] = bench.calibration
    path.write_text(yaml.safe_dump(made, sort_keys=False, width=100))


if __name__ == "__main__":
    main()
