"""`wsiseg learn` on real tiles labelled for one organ, tested on slides of other patients.

    python benchmarks/learning.py ATLAS [--organ colon] [--encoders tiny lite] [--tiles 60]
    python benchmarks/learning.py ATLAS --encoders lite --folder FOLDER

ATLAS has labels.csv, slides.csv and SLIDE/NAME.jpg. The tiles of each slide are laid side by side
as a store, and labelled by a table. Each patient (repository) is left out in turn: `learn`, which
holds out patients among the others to choose its epochs, is scored on the tiles of that patient.
Finally it is trained on the whole organ and scored on slides of all other organs. For comparison,
stain statistics and textures with the best of several classifiers. Intervals are over slides.

The encoder `tiny` was not trained on real tissue. `lite` was trained on all slides of the atlas,
including the test slides: its figures show the effect of labels, not what to expect on new slides.
With FOLDER, which holds encoders of pipelines/tile_encoder.py --without 0 to 4 or some of them,
each test slide is asked with the encoder that was trained without it; slides of folds without an
encoder are left out of the tests.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent / "tissue"))
sys.path.insert(0, str(Path(__file__).parents[1] / "pipelines"))

from baseline import describe, fit_and_ask
from scores import Figure, average_precision, by_slide
from stores import Tiles, write_slides
from stores import ask as ask_model
from tissue_checkpoint import find_encoders, read_folds

from wsiseg.learn import learn_model
from wsiseg.model.trained import load_trained

CLASSES = ("Epithelium", "Stroma", "Immune cells", "Muscle", "Adipose", "Mucin", "Blood")
BASELINE = "colour and texture"
LEAST = 10  # tiles with a class


def read_tiles(
    atlas: Path, most: int, organ: str, others: int, weights: dict[str, str] | None
) -> tuple[Tiles, Tiles]:
    """Read up to `most` tiles per slide of the organ, and `others` of each other slide, evenly.

    `weights` are the folders of encoders for the slides that may be tested.
    """
    with (atlas / "slides.csv").open() as file:
        slides = {row["slide"]: row for row in csv.DictReader(file)}
    rows: dict[str, list[dict[str, str]]] = {}
    with (atlas / "labels.csv").open() as file:
        for row in csv.DictReader(file):
            if row["sampling"] == "random" and row["unsure"] != "1":
                rows.setdefault(row["slide"], []).append(row)
    chosen = {True: [], False: []}
    for name, own in rows.items():
        inside = slides[name]["organ"] == organ
        at = np.linspace(0, len(own) - 1, min(len(own), most if inside else others))
        chosen[inside] += [own[i] for i in np.unique(at.round().astype(int))]
    return tuple(
        Tiles(
            np.stack([np.asarray(Image.open(atlas / row["image"]).convert("RGB")) for row in part]),
            np.array([[row[name] == "1" for name in CLASSES] for row in part]),
            np.array([row["slide"] for row in part]),
            np.array([slides[row["slide"]]["repo"] for row in part]),
            np.array(["" if weights is None else weights.get(row["slide"], "-") for row in part]),
        )
        for part in (chosen[True], chosen[False])
    )


def find_weights(atlas: Path, folder: Path) -> dict[str, str]:
    """Find the folder of encoders for each slide of the folds that have one."""
    found, fold, _ = read_folds(atlas)
    files = {number: str(files.encoders) for number, files in find_encoders(folder).items()}
    pairs = zip(found.tiles.slides, fold, strict=True)
    return {found.slides[slide]: files[number] for slide, number in pairs if number in files}


def learn_and_ask(known: Tiles, asked: Tiles, encoder: str, classes: list[str]) -> np.ndarray:
    """Learn, and return class logits ``(M, K)`` for tiles of other patients."""
    logits = np.zeros(asked.labels.shape, np.float32)
    for weights in np.unique(asked.weights):
        own = asked.weights == weights
        logits[own] = _learn_and_ask(known, asked.pixels[own], encoder, str(weights), classes)
    return logits


def _learn_and_ask(
    known: Tiles, asked: np.ndarray, encoder: str, weights: str, classes: list[str]
) -> np.ndarray:
    options = {"encoder_options": {"weights": weights}} if weights else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_slides(known, classes, folder)
        learned = learn_model(
            sorted(folder.glob("*.zarr")), folder / "labels.csv", folder / "my.safetensors",
            manifest=folder / "slides.csv",
            settings={"encoder": encoder, "classes": classes} | options,
        )  # fmt: skip
        model = load_trained(learned.out, options.get("encoder_options")).model
    return ask_model(model, asked)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("atlas", type=Path)
    parser.add_argument("--organ", default="colon")
    parser.add_argument("--encoders", nargs="*", default=["tiny", "lite"])
    parser.add_argument("--tiles", type=int, default=60, help="of each slide of the organ")
    parser.add_argument("--others", type=int, default=12, help="of each other slide")
    parser.add_argument("--folder", type=Path, help="encoders that were trained without a fold")
    given = parser.parse_args()
    torch.set_num_threads(1)
    weights = find_weights(given.atlas, given.folder) if given.folder else None
    organ, others = read_tiles(given.atlas, given.tiles, given.organ, given.others, weights)
    organ, others, classes = keep_classes(organ, others)
    tested, others = organ.pick(organ.weights != "-"), others.pick(others.weights != "-")
    parts, patients = (tested, others), list(dict.fromkeys(tested.patients))
    print(
        f"{given.organ}: {len(organ.labels)} tiles of {len(set(organ.slides))} slides, "
        f"{len(tested.labels)} of {len(patients)} patients tested; others: {len(others.labels)} "
        f"of {len(set(others.slides))}"
    )
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for way in [*given.encoders, BASELINE]:
        began = time.process_time()
        inside = np.zeros(tested.labels.shape, np.float32)
        for patient in patients:
            held = tested.patients == patient
            known = organ.pick(organ.patients != patient)
            inside[held] = ask(way, known, tested.pick(held), classes)
        found[way] = inside, ask(way, organ, others, classes)
        print(f"\n{way}: {time.process_time() - began:.0f} s of CPU")
        show_all(given.organ, classes, parts, {way: found[way]})
    show_all(given.organ, classes, parts, found)


def show_all(
    organ: str, classes: list[str], parts: tuple[Tiles, Tiles],
    found: dict[str, tuple[np.ndarray, np.ndarray]],
) -> None:  # fmt: skip
    """Print the tables of both tests, one column per way."""
    titles = f"{organ}, patients left out", f"{organ} to other organs"
    for at, (title, tiles) in enumerate(zip(titles, parts, strict=True)):
        figures = {way: score(tiles, both[at]) for way, both in found.items()}
        show(title, classes, tiles, figures)


def score(tiles: Tiles, logits: np.ndarray) -> Figure:
    """Compute each class's average precision over all tiles, with intervals over slides."""
    return by_slide(average_precision, tiles.labels, logits, tiles.slides)


def keep_classes(organ: Tiles, others: Tiles) -> tuple[Tiles, Tiles, list[str]]:
    """Keep the classes that enough tiles of at least three patients show."""
    useful = [
        at for at in range(len(CLASSES))
        if len(set(organ.patients[organ.labels[:, at]])) >= 3 and organ.labels[:, at].sum() >= LEAST
    ]  # fmt: skip
    picked = (tiles._replace(labels=tiles.labels[:, useful]) for tiles in (organ, others))
    return *picked, [CLASSES[at] for at in useful]


def ask(way: str, known: Tiles, asked: Tiles, classes: list[str]) -> np.ndarray:
    """Train on `known`, and return scores ``(M, K)`` for `asked`."""
    if way != BASELINE:
        return learn_and_ask(known, asked, way, classes)
    facts = [describe(tiles.pixels) for tiles in (known, asked)]
    return fit_and_ask(facts[0], known.labels, known.patients, facts[1])


def show(title: str, classes: list[str], tiles: Tiles, figures: dict[str, Figure]) -> None:
    """Print a row per class and a column per way; a random guess reaches the share of tiles."""
    print(f"\n{title}: average precision\n| class | tiles | a guess | {' | '.join(figures)} |")
    print(f"|---|---|---|{'---|' * len(figures)}")
    shares = tiles.labels.mean(0)
    for at, name in enumerate([*classes, "mean"]):
        mean = name == "mean"
        rows = [figure.mean if mean else figure.classes[at] for figure in figures.values()]
        cells = [f"{value:.3f} [{low:.2f}, {high:.2f}]" for value, low, high in rows]
        shown = "" if mean else str(int(tiles.labels[:, at].sum()))
        guess = shares[shares > 0].mean() if mean else shares[at]
        print(f"| {name} | {shown} | {guess:.3f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
