"""The data set as pycocotools sees it."""

import contextlib
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from tests.export.stores import outline
from tests.trace.rasters import blobs, noise
from wsiseg.annotations import BACKGROUND
from wsiseg.export import coco as module
from wsiseg.export import export_coco
from wsiseg.export.coco import encode_regions

# pycocotools' own code, not told of NumPy 2's `copy`.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def load(path):
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(path)


def decode_tile(data, image):
    """Labels of a tile from its annotations' masks, which may not overlap."""
    labels = np.full((image["height"], image["width"]), BACKGROUND, np.uint8)
    for annotation in data.loadAnns(data.getAnnIds(image["id"])):
        mask = data.annToMask(annotation).astype(bool)
        assert (labels[mask] == BACKGROUND).all()
        labels[mask] = annotation["category_id"] - 1
        rle = data.annToRLE(annotation)
        assert annotation["area"] == coco_mask.area(rle) == mask.sum()
        assert annotation["bbox"] == coco_mask.toBbox(rle).tolist()
        assert annotation["iscrowd"] == 0
    return labels


@pytest.mark.parametrize("tile", [None, 300])
def test_decoded_masks_are_the_labels(store, annotations, labels, tmp_path, tile):
    data = load(export_coco(store, annotations, tmp_path, tile=tile))
    side, missing = tile or 64, labels != BACKGROUND
    for image in data.dataset["images"]:
        x = round((image["x"] + 40) / 2.0)
        y = round((image["y"] + 30) / 1.6)
        assert (x % side, y % side) == (0, 0)
        part = np.s_[y : y + side, x : x + side]
        np.testing.assert_array_equal(decode_tile(data, image), labels[part])
        missing[part] = False
        if x < 3 * side:
            with Image.open(tmp_path / "images" / image["file_name"]) as picture:
                pixels = store.read_image(store.grid.box)[part]
                np.testing.assert_array_equal(np.asarray(picture), pixels)
        assert (image["mpp"], image["slide"]) == (0.4, "one å.svs")
    assert not missing.any()
    assert len(list((tmp_path / "images").iterdir())) == len(data.imgs)


def test_categories_are_the_palette(store, annotations, tmp_path):
    data = load(export_coco(store, annotations, tmp_path, tile=512))
    assert [(c["id"], c["name"], c["color"]) for c in data.loadCats(data.getCatIds())] == [
        (label + 1, name, list(color))
        for label, (name, color) in enumerate(
            zip(store.palette.names, store.palette.colors, strict=True)
        )
    ]
    assert data.dataset["info"]["origin"] == [40, 30]
    assert [a["id"] for a in data.dataset["annotations"]] == list(range(1, len(data.anns) + 1))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 4), st.integers(0, 99), st.booleans())
def test_any_tile_comes_back(height, width, classes, seed, noisy):
    labels = (noise if noisy else blobs)((height, width), classes, seed)
    trust = np.random.default_rng(seed).integers(0, 256, labels.shape).astype(np.uint8)
    drawn = np.full_like(labels, BACKGROUND)
    for region in encode_regions(labels, trust):
        size, counts = region["segmentation"]["size"], region["segmentation"]["counts"]
        assert sum(counts) == height * width
        assert all(count > 0 for count in counts[1:])
        mask = coco_mask.decode(coco_mask.frPyObjects(region["segmentation"], *size)).astype(bool)
        assert (labels[mask] == region["category_id"] - 1).all()
        assert region["confidence"] == pytest.approx(trust[mask].mean() / 255, abs=1e-4)
        drawn[mask] = region["category_id"] - 1
    np.testing.assert_array_equal(drawn, labels)


def test_regions_follow_the_outline_settings(store, labels, tmp_path):
    """Small regions that were absorbed are absorbed here too."""
    data = load(export_coco(store, outline(store, min_area_um2=2e3), tmp_path, tile=512))
    assert 0 < len(data.anns) < len(list(module.encode_regions(labels, labels)))


def test_jpeg(store, annotations, tmp_path):
    export_coco(store, annotations, tmp_path, tile=512, images="jpeg")
    for image in json.loads((tmp_path / "annotations.json").read_bytes())["images"]:
        with Image.open(tmp_path / "images" / image["file_name"]) as picture:
            assert picture.format == "JPEG"
            assert picture.size == (image["width"], image["height"])


def test_workers_change_no_byte_and_a_failure_keeps_the_old(
    store, annotations, tmp_path, monkeypatch
):
    files = [export_coco(store, annotations, tmp_path / str(n), workers=n) for n in (1, 3)]
    before = files[0].read_bytes()
    assert before == files[1].read_bytes()

    def fail(path, pixels):
        raise OSError("no room")

    monkeypatch.setattr(module, "_write_image", fail)
    with pytest.raises(OSError, match="no room"):
        export_coco(store, annotations, tmp_path / "1")
    assert files[0].read_bytes() == before
    assert {path.name for path in (tmp_path / "1").iterdir()} == {"images", "annotations.json"}
