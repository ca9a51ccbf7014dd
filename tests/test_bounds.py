"""A slide of which OpenSlide reports bounds, from pixels to files and back."""

import json

import numpy as np
import openslide
import pytest
import tifffile
from typer.testing import CliRunner

from wsiseg.cli import app
from wsiseg.demo.synthesis import synthesize_slide
from wsiseg.qupath import lint_geojson, read_annotations, write_geojson
from wsiseg.slide import open_slide
from wsiseg.store import SlideStore

BOUNDS = (333, 205, 1280, 1024)  # of no multiple of anything
NM = 250  # nm a pixel
SETTINGS = ["--set", "tile.block=448", "--set", "predict.checkpoint=tiny", "--executor", "serial"]

# As Leica's scanners describe an area of the glass (`collection`) and what was scanned of it.
XML = """<?xml version="1.0" encoding="utf-8"?>
<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">
<collection name="glass" sizeX="{across}" sizeY="{down}"><image name="scan"><scanSettings>
<objectiveSettings><objective>40</objective></objectiveSettings><illuminationSettings>
<numericalAperture>0.65</numericalAperture><illuminationSource>brightfield</illuminationSource>
</illuminationSettings></scanSettings>
<pixels sizeX="{w}" sizeY="{h}"><dimension sizeX="{w}" sizeY="{h}" r="0" ifd="0"/></pixels>
<view sizeX="{width}" sizeY="{height}" offsetX="{x}" offsetY="{y}"/></image></collection></scn>
"""


def write_scn(path, pixels, corner, glass):
    """A Leica SCN: `pixels` at `corner` of a glass of so many pixels."""
    h, w = pixels.shape[:2]
    xml = XML.format(
        across=glass[0] * NM, down=glass[1] * NM, w=w, h=h, width=w * NM, height=h * NM,
        x=corner[0] * NM, y=corner[1] * NM,
    )  # fmt: skip
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        tiff.write(
            pixels, tile=(256, 256), photometric="rgb", compression="deflate", description=xml,
            metadata=None, resolution=(1e7 / NM, 1e7 / NM), resolutionunit="CENTIMETER",
        )  # fmt: skip


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slide")
    synthesize_slide(folder / "a.svs", width=BOUNDS[2], height=BOUNDS[3], seed=5)
    pixels = tifffile.imread(folder / "a.svs", series=0, level=0)
    path = folder / "case.scn"
    write_scn(path, pixels, BOUNDS[:2], (2100, 1500))
    return path


@pytest.fixture(scope="module")
def annotated(slide, tmp_path_factory):
    """Output folder by origin."""
    folders = {}
    for origin in ("qupath", "level0"):
        folders[origin] = out = tmp_path_factory.mktemp(origin)
        done = CliRunner().invoke(
            app, ["annotate", str(slide), "-o", str(out), "--origin", origin, *SETTINGS]
        )
        assert done.exit_code == 0, done.output
    return folders


def features_of(path):
    assert lint_geojson(path) == []
    return json.loads(path.read_bytes())["features"]


def test_the_slide_has_bounds(slide):
    with openslide.OpenSlide(str(slide)) as opened:
        assert opened.dimensions == (2100, 1500)
        assert opened.properties["openslide.vendor"] == "leica"
    with open_slide(slide) as opened:
        assert opened.bounds == BOUNDS
        assert opened.mpp.x == pytest.approx(0.25)


@pytest.mark.parametrize("kind", ["geojson", "tissue"])
def test_the_two_origins_differ_by_exactly_the_bounds(annotated, kind):
    shown, raw = (
        features_of(annotated[origin] / kind / "case.geojson") for origin in ("qupath", "level0")
    )
    assert len(shown) == len(raw) > 0
    for one, other in zip(shown, raw, strict=True):
        assert one["id"] == other["id"]
        assert one["properties"] == other["properties"]
        rings, shifted = (item["geometry"]["coordinates"] for item in (one, other))
        for ring, moved in zip(rings, shifted, strict=True):
            assert np.array_equal(np.add(ring, BOUNDS[:2]), moved)


def test_what_qupath_shows_lies_on_what_was_scanned(annotated):
    """QuPath's image is the bounds alone, so that no outline reaches over its borders."""
    features = features_of(annotated["qupath"] / "geojson" / "case.geojson")
    points = np.concatenate([np.array(f["geometry"]["coordinates"][0]) for f in features])
    smooth = 12  # px: `stitch.smooth_um` may round a border by so much
    assert points.min() >= -smooth
    assert (points.max(axis=0) <= np.add(BOUNDS[2:], smooth)).all()
    assert (np.ptp(points, axis=0) > np.multiply(BOUNDS[2:], 0.5)).all(), "most of the scan"


def test_and_back(annotated, tmp_path):
    store = SlideStore(annotated["qupath"] / "slides" / "case.zarr")
    found = {}
    for origin, corner in (("qupath", BOUNDS[:2]), ("level0", (0, 0))):
        path = annotated[origin] / "geojson" / "case.geojson"
        found[origin] = again = read_annotations(path, palette=store.palette)
        assert again.origin == corner
        assert write_geojson(again, tmp_path / "case.geojson").read_bytes() == path.read_bytes()
    shown, raw = (found[origin].regions for origin in ("qupath", "level0"))
    labels = store.read_labels(store.grid.box)
    for one, other in zip(shown, raw, strict=True):
        assert np.array_equal(one.exterior, other.exterior)
        x, y = one.exterior[0]  # the raster's first corner of the region
        assert labels[y, x] == one.label


def test_the_option_of_export(annotated, tmp_path):
    store = annotated["qupath"] / "slides" / "case.zarr"
    for origin in ("qupath", "level0"):
        out = tmp_path / f"{origin}.geojson"
        done = CliRunner().invoke(
            app, ["export", str(store), "-o", str(out), "--origin", origin, *SETTINGS]
        )
        assert done.exit_code == 0, done.output
        made = annotated[origin] / "geojson" / "case.geojson"
        assert features_of(out) == features_of(made)
    bad = CliRunner().invoke(app, ["export", str(store), "-o", str(out), "--origin", "corner"])
    assert bad.exit_code == 1
    assert "export.origin = 'corner'" in bad.output
