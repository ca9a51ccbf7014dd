"""The slide's context compared with single tiles and with the true classes.

    python benchmarks/context.py slides FOLDER [--seeds 21 22 ...] [--models 1 4 5] [--crf]
    python benchmarks/context.py patches FOLDER [--seeds 21 22 ...] [--models 1 4 5]
    python benchmarks/context.py tiles FOLDER ATLAS

`slides`: synthetic slides with truth, by models trained on other slides; FOLDER caches results. The
map of each gate is scored on every pixel. `oracle` allows the classes that have pixels in a tile.
Settings were chosen on slides 2, 3 and 7 to 11, which are not reported.

`patches`: the tiles of such slides as patches, scored by `wsiseg evaluate` in its three protocols.

`tiles`: real tiles with labels and positions, by models trained on other slides; FOLDER has the
results of pipelines/tissue_checkpoint.py. No setting was chosen here.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from wsiseg.config import (
    Config,
    ContextConfig,
    CrfConfig,
    EvaluateConfig,
    StitchConfig,
    TrainConfig,
)
from wsiseg.context import weigh_context
from wsiseg.demo import Truth, sample_patches, synthesize_slide
from wsiseg.evaluate import confusion_matrix, evaluate_checkpoint, score
from wsiseg.model.checkpoint import read_info
from wsiseg.model.device import to_images
from wsiseg.model.trained import load_trained
from wsiseg.predict import predict_tiles
from wsiseg.stitch import stitch_labels
from wsiseg.stitch.context import context_digest
from wsiseg.store import SlideStore
from wsiseg.tile import tile_slide
from wsiseg.train import load_patches, train_model

WIDTH, HEIGHT = 8192, 6144
GATES = ("predicted", "context", "none", "oracle")
ORACLE = ContextConfig(neighbours=0, sharpness=0)  # in whose place the truth is put


class Model(NamedTuple):
    """The training data of a model."""

    slide: int
    seed: int
    width: int = WIDTH
    height: int = HEIGHT
    epochs: int = 6


MODELS = (Model(1, 42, 12_288, 9_216, 12), Model(4, 43), Model(5, 44))  # the first is the demo's


def make_slide(folder: Path, seed: int, width: int, height: int) -> tuple[Path, Truth]:
    """Make a slide and its truth."""
    path = folder / f"s{seed}.svs"
    truth = path.with_suffix(".npz")
    if not truth.exists():
        synthesize_slide(path, width, height, seed).save(truth)
    return path, Truth.load(truth)


def make_model(folder: Path, model: Model) -> Path:
    """Train a checkpoint on 400 patches of its slide."""
    path = folder / f"m{model.slide}.safetensors"
    if not path.exists():
        slide, truth = make_slide(folder, model.slide, model.width, model.height)
        table = sample_patches(slide, truth, folder / f"p{model.slide}", 400, model.slide)
        config = TrainConfig(epochs=model.epochs, seed=model.seed)
        train_model(load_patches(table, config.classes), config, path)
    return path


def make_store(folder: Path, model: Model, seed: int) -> tuple[SlideStore, Truth]:
    """Make a store of a slide with the model's CAMs."""
    checkpoint = make_model(folder, model)
    slide, truth = make_slide(folder, seed, WIDTH, HEIGHT)
    path = folder / f"m{model.slide}_s{seed}.zarr"
    config = Config.model_validate({"predict": {"checkpoint": str(checkpoint)}})
    with ThreadPoolExecutor(2) as pool:
        tile_slide(slide, path, config, pool)
        predict_tiles(path, config, pool)
    return SlideStore(path), truth


def put_truth(store: SlideStore, truth: Truth, config: StitchConfig) -> None:
    """Write the true classes of the tiles where the context of `config` would be."""
    grid, classes = store.grid, len(truth.names)
    gates = np.zeros((grid.rows, grid.cols, classes), np.uint8)
    for row, col in np.ndindex(grid.rows, grid.cols):
        inside = truth.labels[grid.tile_box(row, col).intersect(grid.box).slices()]
        gates[row, col] = 255 * np.isin(np.arange(classes), inside)
    store.write_context(gates, context_digest(config, store.finished("predict")), [0.0] * classes)


def score_map(store: SlideStore, truth: Truth, gate: str, crf: bool) -> float:
    """Compute the mean IoU of a gate's map."""
    settings = {"gate": "context" if gate == "oracle" else gate, "refine": crf}
    config = Config.model_validate({"stitch": settings})
    if gate == "oracle":
        stitch = config.stitch.model_copy(update={"context": ORACLE})
        config = config.model_copy(update={"stitch": stitch})
        put_truth(store, truth, stitch)
    with ThreadPoolExecutor(2) as pool:
        stitch_labels(store.path, config, pool)
    confusion = confusion_matrix(truth.labels, store.read_labels(store.grid.box), len(truth.names))
    return score(confusion).miou


def measure_slides(folder: Path, models: list[Model], seeds: list[int], crf: bool) -> None:
    """Print a row per model and slide, and the total."""
    print(f"| model, slide | {' | '.join(GATES)} | closed |\n|---|{'---|' * (len(GATES) + 1)}")
    rows = []
    for model, seed in product(models, seeds):
        store, truth = make_store(folder, model, seed)
        rows.append([100 * score_map(store, truth, gate, crf) for gate in GATES])
        tell(f"{model.slide}, {seed}", rows[-1])
    sum_up(np.array(rows), len(seeds))


def sum_up(rows: np.ndarray, slides: int) -> None:
    """Return the mean, and an interval over draws of slides, all models of a slide together."""
    tell("mean", list(rows.mean(0)))
    gained, rng = rows[:, 1] - rows[:, 0], np.random.default_rng(0)
    by_slide = rows.reshape(-1, slides, rows.shape[1]).mean(0)
    drawn = by_slide[rng.integers(slides, size=(2000, slides))].mean(1)
    closed = (drawn[:, 1] - drawn[:, 0]) / (drawn[:, -1] - drawn[:, 0])
    low, high = np.percentile(closed, (2.5, 97.5))
    print(
        f"\ncontext against predicted: {gained.mean():+.2f}, least {gained.min():+.2f}; closed "
        f"[{low:.2f}, {high:.2f}] over draws of slides"
    )


def tell(name: str, values: list[float]) -> None:
    """Print a row."""
    before, now, true = values[0], values[1], values[-1]
    cells = " | ".join(f"{value:.2f}" for value in values)
    print(f"| {name} | {cells} | {(now - before) / (true - before):.2f} |", flush=True)


def cut_patches(store: SlideStore, truth: Truth, folder: Path, seed: int) -> Path:
    """Cut the tiles with tissue, and their masks."""
    grid, classes = store.grid, len(truth.names)
    for name in ("img", "mask"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    logits = store.read_class_logits(slice(0, grid.rows), slice(0, grid.cols))
    for row, col in np.argwhere(np.isfinite(logits[..., 0])):
        box = grid.tile_box(int(row), int(col))
        labels = np.full((grid.tile, grid.tile), classes, np.uint8)
        inside = truth.labels[box.intersect(grid.box).slices()]
        labels[: inside.shape[0], : inside.shape[1]] = np.minimum(inside, classes)
        name = f"slide {seed}_x{box.x}_y{box.y}.png"
        Image.fromarray(store.read_image(box)).save(folder / "img" / name, compress_level=1)
        Image.fromarray(labels).save(folder / "mask" / name)
    return folder


def measure_patches(folder: Path, models: list[Model], seeds: list[int]) -> None:
    """Print mean IoU by protocol per model and slide, without augmentation and CRF."""
    protocols = ("deploy", "slide", "oracle")
    crf = CrfConfig(backend="numba", iterations=0)
    config = EvaluateConfig(protocols=protocols, tta=1, resamples=1, crf=crf)
    rows = []
    print(f"| model, slide | {' | '.join(protocols)} | closed |\n|---|---|---|---|---|")
    for model, seed in product(models, seeds):
        store, truth = make_store(folder, model, seed)
        data = folder / f"grid{seed}"
        if not data.exists():
            cut_patches(store, truth, data, seed)
        with ThreadPoolExecutor(2) as pool:
            found = evaluate_checkpoint(make_model(folder, model), data, config, executor=pool)
        by = {one.protocol: 100 * one.scores.miou for one in found}
        rows.append([by["deploy"], by["slide"], by["oracle"]])
        tell(f"{model.slide}, {seed}", rows[-1])
    sum_up(np.array(rows), len(seeds))


class Seen(NamedTuple):
    """Predictions for tiles of held-out slides."""

    logits: np.ndarray
    """``(N, C)`` class logits."""
    shares: Callable[[np.ndarray], np.ndarray]
    """Main class ``(N,)`` of weights ``(N, K)``: of the largest part of the tile's cells."""


def look(folder: Path, found, fold: np.ndarray) -> Seen:
    """Predict each tile by its fold's model."""
    kept = folder / "context_cams.npz"
    if not kept.exists():
        from tissue_checkpoint import find_encoders

        logits: list = [None] * len(fold)
        cams: list = [None] * len(fold)
        files = find_encoders(folder)
        for number in range(int(fold.max()) + 1):
            weights, checkpoint = files[number]
            source = load_trained(checkpoint, {"weights": str(weights)})
            which = np.flatnonzero(fold == number)
            for at in np.array_split(which, -(-len(which) // 32)):
                with torch.inference_mode():
                    seen = source.cams(to_images(found.tiles.pixels[at]))
                    pooled = source.pool(seen)
                for place, one, two in zip(at, seen.half().numpy(), pooled.numpy(), strict=True):
                    cams[place], logits[place] = one, two
        np.savez(kept, cams=np.stack(cams), logits=np.stack(logits))
    data = np.load(kept)
    scale, offset = np.array(read_info("tissue").calibration).T[:, None, :, None]
    cams = data["cams"].reshape(*data["logits"].shape, -1) * scale[0] + offset[0]

    def main_class(weights: np.ndarray) -> np.ndarray:
        classes = weights.shape[1]
        with np.errstate(divide="ignore"):
            won = (cams[:, :classes] + np.log(weights)[..., None]).argmax(1)
        return (won[..., None] == np.arange(classes)).sum(1).argmax(1)

    return Seen(data["logits"], main_class)


def measure_tiles(folder: Path, atlas: Path) -> None:
    """Compare the allowed classes with the labels, and with the largest class."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "pipelines"))
    from tissue_checkpoint import CONFIG, read_folds

    found, fold, _ = read_folds(atlas)
    names = CONFIG.classes[: len(CONFIG.classes) - len(CONFIG.background)]
    truth, slides = found.tiles.labels[:, : len(names)].astype(bool), found.tiles.slides
    with (atlas / "labels.csv").open(newline="", encoding="utf-8") as file:
        table = {row["image"]: row for row in csv.DictReader(file)}
    rows = [table[str(path.relative_to(atlas))] for path in found.paths]
    places = np.array([[float(r["y"]), float(r["x"])] for r in rows])
    places /= np.array([[float(r["size_px"])] for r in rows])
    main = np.array([names.index(r["main"]) if r["main"] in names else -1 for r in rows])
    seen = look(folder, found, fold)
    logits, config = seen.logits[:, : len(names)], ContextConfig()
    predicted = logits >= np.log(0.25 / 0.75)
    ways = {"predicted": predicted.astype(float), "none": np.ones(predicted.shape)}
    settings = {
        "context": config,
        "context, slide_prior 1": config.model_copy(update={"slide_prior": 1.0}),
        "context, slide_prior 0.5": config.model_copy(update={"slide_prior": 0.5}),
        "context, neighbours 0.5": config.model_copy(update={"neighbours": 0.5}),
    }
    for name, chosen in settings.items():
        weights = np.zeros(predicted.shape)
        for slide in np.unique(slides):
            at = np.flatnonzero(slides == slide)
            weights[at] = weigh_context(logits[at], places[at], chosen).weights
        ways[name] = weights
    ways["oracle"] = truth.astype(float)
    print(
        "| gate | F1 of the classes let through | wrong gates | main class right |"
        "\n|---|---|---|---|"
    )
    known = (main >= 0) & truth.any(1)
    for name, weights in ways.items():
        gates = weights > 0
        hit = (gates & truth).sum(0)
        f1 = 2 * hit / (gates.sum(0) + truth.sum(0))
        right = seen.shares(np.where(gates.any(1, keepdims=True), weights, 1))[known] == main[known]
        per = [right[slides[known] == s].mean() for s in np.unique(slides[known])]
        rng = np.random.default_rng(0)
        draws = np.array(per)[rng.integers(len(per), size=(500, len(per)))].mean(1)
        low, high = np.percentile(draws, (2.5, 97.5))
        print(
            f"| {name} | {f1.mean():.3f} | {(gates != truth).mean():.3f} | {right.mean():.3f} "
            f"(mean of slides {np.mean(per):.3f} [{low:.3f}, {high:.3f}]) |", flush=True,
        )  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", choices=("slides", "patches", "tiles"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("atlas", type=Path, nargs="?")
    parser.add_argument("--seeds", type=int, nargs="+", default=[*range(21, 27)])
    parser.add_argument("--models", type=int, nargs="+", default=[one.slide for one in MODELS])
    parser.add_argument("--crf", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    models = [one for one in MODELS if one.slide in given.models]
    if given.part == "slides":
        given.folder.mkdir(parents=True, exist_ok=True)
        measure_slides(given.folder, models, given.seeds, given.crf)
    elif given.part == "patches":
        measure_patches(given.folder, models, given.seeds)
    else:
        measure_tiles(given.folder, given.atlas)


if __name__ == "__main__":
    main()
