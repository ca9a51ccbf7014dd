"""A small finished run, as `wsiseg annotate` leaves it, without a model."""

import json

import numpy as np
from numpy.typing import NDArray

from tests.export.stores import make_labels, make_store, outline
from wsiseg.annotations import PALETTES
from wsiseg.places import PLACES, Place, write_places
from wsiseg.pyramid import write_pyramid
from wsiseg.qupath import write_geojson
from wsiseg.report import measure_classes, write_tables

PALETTE = PALETTES["bcss"]
NAME = "<img src=x onerror=alert(1)>"


def make_run(root, name="one", labels: NDArray[np.uint8] | None = None, rows=()):
    """A run of one slide below `root`, with its tables; the slide itself is not there."""
    labels = make_labels() if labels is None else labels
    store = make_store(root / "slides" / f"{name}.zarr", labels)
    for block in range(store.grid.n_blocks):
        store.mark_done("tile", block, "ab" * 32)
    annotations = outline(store)
    write_geojson(annotations, root / "geojson" / f"{name}.geojson")
    measured = measure_classes(annotations, 1.0)
    areas = {f"{row['class']}_mm2": row["area_mm2"] for row in measured}
    row = {"slide": name, "path": "/none/one.svs", "status": "done", "tissue_mm2": 1.0, **areas}
    write_tables(root, [row, *rows], measured)
    return store


def suggest(folder, *places):
    """A folder as `wsiseg suggest` leaves it: of each place rank, slide and level-0 box."""
    rows = [
        Place(rank, slide, 0, 0, x0, y0, x1 - x0, y1 - y0, 0.5, "Tumor")
        for rank, slide, (x0, y0, x1, y1) in places
    ]
    write_places(rows, folder / PLACES)
    return folder


def stitch_anew(store, digest):
    """Write the labels once more, as a run with other settings would."""
    for block in range(store.grid.n_blocks):
        store.begin("stitch", block)
        box = store.grid.block_box(block)
        store.write_labels(block, 0, store.read_labels(box), store.read_confidence(box))
        store.mark_done("stitch", block, digest)
    write_pyramid(store.path, "stitch")


def kinds(path):
    """What the corrections in a file are."""
    if not path.exists():
        return []
    features = json.loads(path.read_text())["features"]
    return [one["properties"]["metadata"]["wsiseg"] for one in features]
