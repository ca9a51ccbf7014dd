"""What ome-zarr's own packages make of a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsiseg.annotations import PALETTES
from wsiseg.geometry import Box
from wsiseg.grid import TileGrid
from wsiseg.pyramid import write_pyramid
from wsiseg.store import SlideStore

GRID = TileGrid(300, 1300, 64, 64, 256)
BCSS = PALETTES["bcss"]
MPP = 0.263


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SlideStore:
    path = tmp_path_factory.mktemp("ngff") / "a.zarr"
    store = SlideStore.create(path, GRID, MPP, {"name": "a.svs", "identity": "0"})
    store.create_labels(BCSS)
    rng = np.random.default_rng(0)
    for block in range(GRID.n_blocks):
        box = GRID.block_box(block)
        store.write_image(block, rng.integers(0, 256, (box.height, box.width, 3), dtype=np.uint8))
        labels = rng.integers(0, 4, (box.height, box.width), dtype=np.uint8)
        store.write_labels(block, 0, labels, labels + 100)
        for step in ("tile", "stitch"):
            store.mark_done(step, block, "ab" * 32)
    for step in ("tile", "stitch"):
        write_pyramid(path, step)
    return store


def open_nodes(store: SlideStore) -> dict[str, Any]:
    reader = pytest.importorskip("ome_zarr.reader", reason="pip install ome-zarr")
    from ome_zarr.io import parse_url

    location = parse_url(str(store.path))
    assert location is not None
    return {Path(str(node.zarr)).name: node for node in reader.Reader(location)()}


def test_ome_zarr_opens_image_and_labels_from_the_store_itself(store: SlideStore) -> None:
    nodes = open_nodes(store)
    assert {"a.zarr", "classes", "confidence"} <= {name.split(" ")[0] for name in nodes}
    image = next(node for name, node in nodes.items() if name.startswith("a.zarr"))
    assert [level.shape for level in image.data] == [(3, 300, 1300), (3, 75, 325)]
    for level, pixels in enumerate(image.data):
        box = Box(0, 0, pixels.shape[2], pixels.shape[1])
        np.testing.assert_array_equal(np.moveaxis(pixels.compute(), 0, 2),
                                      store.read_image(box, level))  # fmt: skip
        assert pixels.compute().std() > 10
    scales = [steps[0]["scale"] for steps in image.metadata["coordinateTransformations"]]
    assert scales == [[1, MPP, MPP], [1, 4 * MPP, 4 * MPP]]


def test_ome_zarr_reads_the_classes_colours_and_names(store: SlideStore) -> None:
    nodes = open_nodes(store)
    labels = next(node for name, node in nodes.items() if name.startswith("classes"))
    for level, known in zip((0, 2), labels.data, strict=True):
        wanted = store.read_labels(store.level_box(level), level)
        np.testing.assert_array_equal(known.compute(), wanted)
        assert (wanted != 255).all()
    for value, (name, color) in enumerate(zip(BCSS.names, BCSS.colors, strict=True)):
        assert labels.metadata["properties"][value] == {"class": name}
        assert labels.metadata["color"][value] == pytest.approx([*(c / 255 for c in color), 1])
    scales = [steps[0]["scale"] for steps in labels.metadata["coordinateTransformations"]]
    assert scales == [[MPP, MPP], [4 * MPP, 4 * MPP]]


@pytest.mark.parametrize(
    ("group", "kind"),
    [("", "Image"), ("labels", "Labels"), ("labels/classes", "ImageLabel"),
     ("labels/confidence", "ImageLabel")],
)  # fmt: skip
def test_the_metadata_are_valid(store: SlideStore, group: str, kind: str) -> None:
    models = pytest.importorskip("ome_zarr_models", reason="pip install ome-zarr-models")
    found = models.open_ome_zarr(str(store.path / group))
    assert (type(found).__name__, found.ome_zarr_version) == (kind, "0.5")
