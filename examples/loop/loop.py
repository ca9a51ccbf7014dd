"""The annotation loop on synthetic slides: label, learn, map, score; suggest; correct; again.

A person is played by the known truth. Beside places that `suggest` chose, as many are labelled at
random, so that one sees what choosing is worth.

`learn` would hold each of the two labelled slides out in turn to choose its epochs, which takes
three times as long. Here both are said to be of one patient, so it trains for a fixed number;
with --folds it does as with slides of your own.

Run: python examples/loop/loop.py OUT [SEED ...] [--folds]
"""

import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import wsiseg
from wsiseg.annotations import BACKGROUND, PALETTES, Annotations
from wsiseg.compute import open_executor
from wsiseg.config import Config
from wsiseg.demo import Truth, synthesize_slide
from wsiseg.evaluate import evaluate_slides
from wsiseg.geometry import Box
from wsiseg.labels import draw_area
from wsiseg.qupath import read_geojson, write_geojson
from wsiseg.store import SlideStore
from wsiseg.suggest import suggest_places
from wsiseg.tissue import tile_fractions
from wsiseg.trace import trace_regions

PALETTE = PALETTES["bcss"]
TRAIN, TEST = ("one", "two"), "held_out"
WIDTH, HEIGHT = 4608, 3584
FIRST, PLACES, CORRECTIONS = 30, 20, 10
SIDE = 224  # of a first rectangle, in px at 0.5 µm/px: as large as a suggested place

ONE_PATIENT = "slide,patient\none,A\ntwo,A\n"
QUICK = {"epochs": 30, "batch_size": 16}  # of which half are trained where nothing is held out

Place = tuple[str, Box]


def main(out: str, *given: str) -> None:
    """Run the loop for each seed, both ways; print the mean IoU of the held-out slide by round."""
    scores: dict[str, list[list[float]]] = {"suggested": [], "at random": []}
    seeds = [int(one) for one in given if one != "--folds"] or [1]
    for seed in seeds:
        root = Path(out) / f"seed{seed}"
        truths = make_slides(root / "slides", seed)
        print(f"seed {seed}, first labels", flush=True)
        first = Loop(root / "first", root / "slides", truths, seed, "--folds" in given)
        first.begin()
        for how in scores:
            print(f"seed {seed}, places {how}", flush=True)
            scores[how].append(first.branch(root / how.replace(" ", "_"), how).run())
    for how, rows in scores.items():
        print(f"{how}: mean IoU by round {summarize(np.array(rows))}")
    gains = np.array(scores["suggested"])[:, :3] - np.array(scores["at random"])
    print(f"suggested less at random: {summarize(gains)}")


def summarize(table: np.ndarray) -> str:
    """Mean and standard deviation over the seeds ``(S, R)``, round by round."""
    spread = table.std(0, ddof=1) if len(table) > 1 else np.full(table.shape[1], np.nan)
    return ", ".join(f"{m:.3f} ± {s:.3f}" for m, s in zip(table.mean(0), spread, strict=True))


def make_slides(folder: Path, seed: int) -> dict[str, Truth]:
    """Three slides, of which the last is never labelled, and their truths."""
    folder.mkdir(parents=True, exist_ok=True)
    truths = {}
    for at, name in enumerate((*TRAIN, TEST)):
        known = folder / f"{name}.npz"
        if not known.exists():
            path = folder / f"{name}.svs"
            synthesize_slide(path, WIDTH, HEIGHT, 10 * seed + at).save(known)
        truths[name] = Truth.load(known)
    return truths


class Loop:
    """One way through the loop."""

    def __init__(
        self, root: Path, slides: Path, truths: dict[str, Truth], seed: int, folds: bool
    ) -> None:
        self.root, self.slides, self.truths = root, slides, truths
        self.seed, self.folds = seed, folds
        self.out, self.model = root / "out", root / "my.safetensors"
        self.rng = np.random.default_rng(seed)
        self.how, self.found = "", list[float]()

    def begin(self) -> None:
        """The round that both ways have in common."""
        self.draw("truth", [(TEST, Box(0, 0, WIDTH // 2, HEIGHT // 2))])
        self.draw("labels/first", self.pick_clear(FIRST))
        self.learn()

    def branch(self, root: Path, how: str) -> "Loop":
        """Go on from a copy, with places chosen another way."""
        shutil.copytree(self.root, root)
        other = type(self)(root, self.slides, self.truths, self.seed, self.folds)
        other.rng.bit_generator.state = self.rng.bit_generator.state
        other.how, other.found = how, [*self.found]
        return other

    def run(self) -> list[float]:
        """The mean IoU of the held-out slide after each round; corrections follow suggestions."""
        chosen = self.how == "suggested"
        for number in (1, 2):
            places = self.suggest(PLACES) if chosen else self.pick_any(PLACES)
            self.draw(f"labels/round{number}", places)
            self.learn(whole=chosen)
        if chosen:
            self.correct(CORRECTIONS)
            self.learn(whole=False)
        return self.found

    def learn(self, whole: bool = True) -> None:
        """Learn from all labels so far, map the slides, score the one that nobody labelled.

        The others' maps are made anew only where somebody will look at them (`whole`).
        """
        started = time.process_time()
        labels = [self.root / "labels", *filter(Path.exists, [self.out / "corrections"])]
        if not self.out.exists():  # the first round needs tiles, no map
            (self.out / "slides").mkdir(parents=True)
            with open_executor("threads") as pool:
                for name in self.truths:
                    slide = self.slides / f"{name}.svs"
                    wsiseg.tile_slide(slide, self.out / "slides" / f"{name}.zarr", config(), pool)
        manifest = self.root / "slides.csv"
        manifest.write_text(ONE_PATIENT)
        given = {} if self.folds else {"manifest": manifest, "settings": QUICK}
        learned = wsiseg.learn_model([self.out], labels, self.model, **given)
        middle = time.process_time()
        mapped_slides = self.slides if whole else self.slides / f"{TEST}.svs"
        wsiseg.annotate(mapped_slides, self.out, config(self.model))
        mapped = time.process_time()
        store = self.out / "slides" / f"{TEST}.zarr"
        scores = evaluate_slides([store], self.root / "truth").scores
        iou = " ".join(f"{value:.2f}" for value in scores.iou)
        print(
            f"  {learned.tiles} windows, mean IoU {scores.miou:.3f} ({iou}); CPU: learn "
            f"{middle - started:.0f} s, map {mapped - middle:.0f} s, "
            f"score {time.process_time() - mapped:.0f} s",
            flush=True,
        )
        self.found.append(scores.miou)

    # -- the person ------------------------------------------------------------------------------

    def draw(self, folder: str, places: Sequence[Place]) -> None:
        """Outline what the truth shows in each place, as drawn in QuPath; all of it was seen."""
        for name in dict.fromkeys(name for name, _ in places):
            shown = np.full_like(self.truths[name].labels, BACKGROUND)
            for _, box in (place for place in places if place[0] == name):
                shown[box.slices()] = self.truths[name].labels[box.slices()]
            regions = tuple(trace_regions(shown))
            drawn = Annotations(f"{name}.svs", PALETTE, regions, (2.0, 2.0), 0.5, exact=True)
            write_geojson(drawn, self.root / folder / f"{name}.geojson")
            checked = [frame(box) for slide, box in places if slide == name]
            path = self.root / folder / "checked" / f"{name}.geojson"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps({"type": "FeatureCollection", "features": checked}))

    def pick_clear(self, count: int) -> list[Place]:
        """Rectangles that a class fills, as people begin: the classes take turns."""
        places: list[Place] = []
        while len(places) < count:
            label = len(places) % len(PALETTE)
            name = TRAIN[len(places) // len(PALETTE) % len(TRAIN)]
            drawn = [box for slide, box in places if slide == name]
            places.append((name, self.pick_filled(self.truths[name].labels, label, drawn)))
        return places

    def pick_filled(self, labels: np.ndarray, label: int, drawn: Sequence[Box]) -> Box:
        """The fullest of a hundred squares about pixels of a class, beside what was drawn."""
        rows, cols = np.nonzero(labels == label)
        best, most = Box(0, 0, SIDE, SIDE), -1.0
        for at in self.rng.integers(len(rows), size=100):
            y, x = (
                int(np.clip(v - SIDE // 2, 0, n - SIDE))
                for v, n in zip((rows[at], cols[at]), labels.shape, strict=True)
            )
            box = Box(x, y, SIDE, SIDE)
            share = float((labels[box.slices()] == label).mean())
            share -= any(min(box.intersect(other)[2:]) > 0 for other in drawn)
            if share > most:
                best, most = box, share
        return best

    def suggest(self, count: int) -> list[Place]:
        """The places that `wsiseg suggest` chooses."""
        stores = [self.out / "slides" / f"{name}.zarr" for name in TRAIN]
        found = suggest_places(stores, count, [self.root / "labels"])
        return [(one.store.path.stem, one.store.grid.tile_box(one.row, one.col)) for one in found]

    def pick_any(self, count: int) -> list[Place]:
        """Tiles that are mostly tissue, as suggested ones are, whichever."""
        places = []
        for name in TRAIN:
            store = SlideStore(self.out / "slides" / f"{name}.zarr")
            mask, mpp, _ = store.read_tissue()
            rows, cols = np.nonzero(tile_fractions(mask, mpp, store.grid, store.mpp) >= 0.5)
            tiles = zip(rows.tolist(), cols.tolist(), strict=True)
            places += [(name, store.grid.tile_box(*tile)) for tile in tiles]
        return [places[at] for at in self.rng.permutation(len(places))[:count]]

    def correct(self, count: int) -> None:
        """Give the regions of which most is wrong their right class, if one fills most of them."""
        wrong: list[tuple[float, str, dict]] = []
        for name in TRAIN:
            labels = self.truths[name].labels
            for region in read_geojson(self.out / "geojson" / f"{name}.geojson"):
                shares = find_shares(labels, region.geometry)
                gain = shares.max() - shares[PALETTE.names.index(region.class_name)]
                if gain > 0 and shares.max() > 0.6:
                    right = PALETTE.names[int(shares.argmax())]
                    size = gain * region.geometry.area
                    wrong.append((size, name, reclassify(region, right)))
        wrong.sort(key=lambda one: -one[0])
        for name in TRAIN:
            features = [feature for _, slide, feature in wrong[:count] if slide == name]
            path = self.out / "corrections" / f"{name}.geojson"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def config(model: Path | None = None) -> Config:
    """Maps without the CRF, for speed."""
    predict = {} if model is None else {"checkpoint": str(model)}
    return Config.model_validate({"predict": predict, "stitch": {"refine": False}})


def find_shares(labels: np.ndarray, geometry: object) -> np.ndarray:
    """``(K,)``: how much of a region, given in level-0 pixels, is of each class in truth."""
    from shapely.affinity import scale

    shape = scale(geometry, 0.5, 0.5, origin=(0, 0))
    left, top, right, bottom = (int(v) for v in shape.bounds)
    box = Box(left, top, right - left + 1, bottom - top + 1).intersect(
        Box(0, 0, labels.shape[1], labels.shape[0])
    )
    inside = labels[box.slices()][draw_area(shape, box)]
    counts = np.bincount(inside, minlength=BACKGROUND + 1)
    return counts[: len(PALETTE)] / max(1, counts.sum())


def frame(box: Box) -> dict:
    """An area of class Checked*: what is not outlined in it is not there."""
    left, top, right, bottom = (2 * v for v in (box.x, box.y, box.right, box.bottom))
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    return {
        "type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", "classification": "Checked*"},
    }  # fmt: skip


def reclassify(region: object, name: str) -> dict:
    """A correction, as `qupath/export.groovy` writes it."""
    color = list(PALETTE.colors[PALETTE.names.index(name)])
    return {
        "type": "Feature", "id": region.id, "geometry": region.geometry.__geo_interface__,
        "properties": {
            "objectType": "annotation", "classification": {"name": name, "color": color},
            "metadata": {"wsiseg": "reclassified"},
        },
    }  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
