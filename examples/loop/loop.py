"""The annotation loop on synthetic slides: label, learn, map, score; suggest; correct; again.

The known truth acts as the person. For comparison with the places that `suggest` chooses, the same
number is also labelled at random.

`learn` would hold out each of the two labelled slides in turn to choose its epochs, which takes
three times as long. Here both count as slides of one patient, so it trains for a fixed number of
epochs; with --folds, it works as with slides of your own.

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
from wsiseg.demo.layout import RARE
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
SIDE = 224  # of the first rectangles, in px at 0.5 µm/px, like suggested places

ONE_PATIENT = "slide,patient\none,A\ntwo,A\n"
QUICK = {"epochs": 30, "batch_size": 16}  # of which half are trained if nothing is held out

Place = tuple[str, Box]


def main(out: str, *given: str) -> None:
    """Run the loop for each seed, both ways; print the mean IoU of the held-out slide by round."""
    scores: dict[str, list[list[float]]] = {"suggested": [], "at random": []}
    seeds = [int(text) for text in given if text != "--folds"] or [1]
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
    print(f"suggested minus random: {summarize(gains)}")


def summarize(table: np.ndarray) -> str:
    """Format mean and standard deviation over the seeds ``(S, R)``, round by round."""
    spread = table.std(0, ddof=1) if len(table) > 1 else np.full(table.shape[1], np.nan)
    return ", ".join(f"{m:.3f} ± {s:.3f}" for m, s in zip(table.mean(0), spread, strict=True))


def make_slides(folder: Path, seed: int) -> dict[str, Truth]:
    """Make three slides, the last of which is never labelled, and return their truths."""
    folder.mkdir(parents=True, exist_ok=True)
    truths = {}
    for number, name in enumerate((*TRAIN, TEST)):
        truth = folder / f"{name}.npz"
        if not truth.exists():
            path = folder / f"{name}.svs"
            made = synthesize_slide(path, WIDTH, HEIGHT, 10 * seed + number, rare=RARE)
            made.save(truth)
        truths[name] = Truth.load(truth)
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
        """Run the first round, which both ways share."""
        self.draw("truth", [(TEST, Box(0, 0, WIDTH // 2, HEIGHT // 2))])
        self.draw("labels/first", self.pick_clear(FIRST))
        self.learn()

    def branch(self, root: Path, how: str) -> "Loop":
        """Continue from a copy, with places chosen in another way."""
        shutil.copytree(self.root, root)
        other = type(self)(root, self.slides, self.truths, self.seed, self.folds)
        other.rng.bit_generator.state = self.rng.bit_generator.state
        other.how, other.found = how, [*self.found]
        return other

    def run(self) -> list[float]:
        """Return the mean IoU of the held-out slide after each round."""
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
        """Learn from all labels so far, map the slides, and score the one without labels.

        The other slides are mapped again only if their maps will be used (`whole`).
        """
        started = time.process_time()
        labels = [self.root / "labels", *filter(Path.exists, [self.out / "corrections"])]
        if not self.out.exists():  # the first round needs tiles, but no map
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
        """Outline the truth in each place, as drawn in QuPath, and mark the place as checked."""
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
        """Choose rectangles that a class fills, as people start; the classes take turns."""
        places: list[Place] = []
        while len(places) < count:
            label = len(places) % len(PALETTE)
            name = TRAIN[len(places) // len(PALETTE) % len(TRAIN)]
            drawn = [box for slide, box in places if slide == name]
            places.append((name, self.pick_filled(self.truths[name].labels, label, drawn)))
        return places

    def pick_filled(self, labels: np.ndarray, label: int, drawn: Sequence[Box]) -> Box:
        """Choose the fullest of a hundred squares around pixels of a class, off `drawn` ones."""
        rows, cols = np.nonzero(labels == label)
        best, highest = Box(0, 0, SIDE, SIDE), -1.0
        for index in self.rng.integers(len(rows), size=100):
            y, x = (
                int(np.clip(v - SIDE // 2, 0, n - SIDE))
                for v, n in zip((rows[index], cols[index]), labels.shape, strict=True)
            )
            box = Box(x, y, SIDE, SIDE)
            share = float((labels[box.slices()] == label).mean())
            share -= any(min(box.intersect(other)[2:]) > 0 for other in drawn)
            if share > highest:
                best, highest = box, share
        return best

    def suggest(self, count: int) -> list[Place]:
        """Choose places as `wsiseg suggest` does."""
        stores = [self.out / "slides" / f"{name}.zarr" for name in TRAIN]
        places = suggest_places(stores, count, [self.root / "labels"])
        return [(place.store.path.stem, place.store.grid.tile_box(place.row, place.col))
                for place in places]  # fmt: skip

    def pick_any(self, count: int) -> list[Place]:
        """Choose tiles at random that are mostly tissue, like suggested ones."""
        places = []
        for name in TRAIN:
            store = SlideStore(self.out / "slides" / f"{name}.zarr")
            mask, mpp, _ = store.read_tissue()
            rows, cols = np.nonzero(tile_fractions(mask, mpp, store.grid, store.mpp) >= 0.5)
            tiles = zip(rows.tolist(), cols.tolist(), strict=True)
            places += [(name, store.grid.tile_box(*tile)) for tile in tiles]
        return [places[index] for index in self.rng.permutation(len(places))[:count]]

    def correct(self, count: int) -> None:
        """Correct the class of the regions with the largest wrong area, if one class fills most."""
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
        wrong.sort(key=lambda item: -item[0])
        for name in TRAIN:
            features = [feature for _, slide, feature in wrong[:count] if slide == name]
            path = self.out / "corrections" / f"{name}.geojson"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def config(model: Path | None = None) -> Config:
    """Return settings without the CRF, for speed."""
    predict = {} if model is None else {"checkpoint": str(model)}
    return Config.model_validate({"predict": predict, "stitch": {"refine": False}})


def find_shares(labels: np.ndarray, geometry: object) -> np.ndarray:
    """Return ``(K,)``: the true share of each class in a region, given in level-0 pixels."""
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
    """Return an area of class Checked*: everything in it has been outlined."""
    left, top, right, bottom = (2 * v for v in (box.x, box.y, box.right, box.bottom))
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    return {
        "type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", "classification": "Checked*"},
    }  # fmt: skip


def reclassify(region: object, name: str) -> dict:
    """Return a correction as `qupath/export.groovy` writes it."""
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
