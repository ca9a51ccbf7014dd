from __future__ import annotations

import itertools
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import wsiseg.tissue.outline as outline
import wsiseg.tissue.settle as settle
from wsiseg.config import Config, ExportConfig, TissueConfig
from wsiseg.errors import GeoJsonError
from wsiseg.geometry import Box, Size
from wsiseg.grid import TileGrid
from wsiseg.qupath import lint_geojson, read_geojson
from wsiseg.slide import ArraySlide
from wsiseg.store import SlideStore
from wsiseg.tissue import detect_tissue, is_unused_edit, settle_tissue

CONFIG = Config(tissue=TissueConfig(closing_um=0, min_hole_um2=0))


def paint(seed: int = 0) -> NDArray[np.uint8]:
    """960 x 1280 µm: a pink ring and a disc."""
    image = np.full((480, 640, 3), 244, np.uint8)
    rows, cols = np.mgrid[:480, :640]
    far = np.hypot(rows - 220, cols - 200)
    image[(far < 150) & (far > 60)] = (205, 130, 180)
    image[np.hypot(rows - 300, cols - 500) < 80] = (150, 90, 160)
    noise = np.random.default_rng(seed).integers(-1, 2, image.shape)
    return (image + noise).astype(np.uint8)


def describe(slide: ArraySlide) -> dict[str, Any]:
    known = {"mpp": list(slide.mpp), "bounds": list(slide.bounds)}
    return {"name": "a.svs", "identity": slide.identity, **known}


def make(tmp_path: Path, bounds: Box | None = None) -> tuple[ArraySlide, SlideStore]:
    slide = ArraySlide(paint(), 2.0, bounds=bounds)
    grid = TileGrid(480, 640, 224, 224, 448)
    facts = describe(slide)
    return slide, SlideStore.create(tmp_path / "a.zarr", grid, 2.0, facts)


def move(path: Path, by: float) -> None:
    """Shift the whole outline, as a user might."""
    data = json.loads(path.read_text())
    for feature in data["features"]:
        geometry = shapely.geometry.shape(feature["geometry"])
        moved = shapely.transform(geometry, lambda points: points + by)
        feature["geometry"] = json.loads(shapely.to_geojson(moved))
    path.write_text(json.dumps(data))


def touch(path: Path) -> None:
    """Make it the user's file with the same polygons: a name is another."""
    text = path.read_text()
    assert '"name":"Tissue 1"' in text
    path.write_text(text.replace('"name":"Tissue 1"', '"name":"mine"'))
    assert outline.read_detection(path) == ""


@pytest.mark.parametrize("origin", ["qupath", "level0"])
def test_outline_lies_on_the_tissue_as_qupath_shows_it(tmp_path: Path, origin: str) -> None:
    slide, store = make(tmp_path, Box(40, 24, 560, 400))
    config = CONFIG.model_copy(update={"export": ExportConfig(origin=origin)})  # type: ignore[arg-type]
    path = tmp_path / "tissue" / "a.geojson"
    settle_tissue(slide, store, config, path)
    assert not lint_geojson(path)
    features = read_geojson(path)
    assert {feature.class_name for feature in features} == {"Tissue"}
    assert not any(feature.properties["isLocked"] for feature in features)
    x, y = (40, 24) if origin == "qupath" else (0, 0)
    area = sum(feature.geometry.area for feature in features) * 4
    assert area == pytest.approx(store.read_tissue()[0].sum() * 64)
    covered = shapely.union_all([feature.geometry for feature in features])
    assert covered.contains(shapely.Point(500 - x, 300 - y))
    assert covered.contains(shapely.Point(310 - x, 220 - y))
    assert not covered.contains(shapely.Point(200 - x, 220 - y)), "the ring's hole"


@pytest.mark.parametrize("bounds", [None, Box(40, 24, 560, 400)])
def test_outline_read_back_is_the_mask(tmp_path: Path, bounds: Box | None) -> None:
    slide, store = make(tmp_path, bounds)
    path = tmp_path / "a.geojson"
    settle_tissue(slide, store, CONFIG, path)
    mask, mpp, _ = store.read_tissue()
    assert mpp == 8
    touch(path)
    settle_tissue(slide, store, CONFIG, path)
    again, mpp, _ = store.read_tissue()
    assert mpp == 8
    np.testing.assert_array_equal(again, mask)


@pytest.mark.parametrize("left_out", [0, 1, 3])
def test_an_outline_ends_at_the_slides_edge_and_is_read_back(tmp_path: Path, left_out: int) -> None:
    """It reached up to 8 µm beyond; of the last pixel, four px wide, three may be beyond."""
    image = np.full((480 - left_out, 640 - left_out, 3), (205, 130, 180), np.uint8)
    image[:100] = 244
    height, width = image.shape[:2]
    slide = ArraySlide(image, 2.0)
    facts = describe(slide) | {"size": list(slide.size)}
    store = SlideStore.create(tmp_path / "a.zarr", TileGrid(480, 640, 224, 224, 448), 2.0, facts)
    path = tmp_path / "a.geojson"
    settle_tissue(slide, store, CONFIG, path)
    mask, _, _ = store.read_tissue()
    (feature,) = read_geojson(path)
    assert feature.geometry.bounds[2:] == (width, height)
    area = feature.properties["measurements"]["Area mm^2"]
    assert area == pytest.approx(feature.geometry.area * 4e-6, rel=1e-6)
    touch(path)
    settle_tissue(slide, store, CONFIG, path)
    np.testing.assert_array_equal(store.read_tissue()[0], mask)


def test_an_edited_outline_is_used_and_left_alone(tmp_path: Path) -> None:
    slide, store = make(tmp_path)
    path = tmp_path / "a.geojson"
    settle_tissue(slide, store, CONFIG, path)
    before, _, detected = store.read_tissue()
    move(path, 16.0)
    content = path.read_bytes()
    settle_tissue(slide, store, CONFIG, path)
    after, _, edited = store.read_tissue()
    np.testing.assert_array_equal(after[4:, 4:], before[:-4, :-4])
    assert edited != detected
    other = CONFIG.model_copy(update={"tissue": TissueConfig(min_area_um2=123)})
    for config in (CONFIG, other):
        settle_tissue(slide, store, config, path)
        assert path.read_bytes() == content
        np.testing.assert_array_equal(store.read_tissue()[0], after)
    path.unlink()
    settle_tissue(slide, store, CONFIG, path)
    np.testing.assert_array_equal(store.read_tissue()[0], before)
    assert path.is_file()


def test_an_edited_outline_is_told_until_and_when_it_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slide, store = make(tmp_path)
    path = tmp_path / "a.geojson"
    said = f"a.svs: the tissue is what {path} says, which was edited; delete that file"
    with caplog.at_level(logging.INFO, "wsiseg"):
        assert not is_unused_edit(store, path), "there is none"
        settle_tissue(slide, store, CONFIG, path)
        assert not is_unused_edit(store, path)
        assert said not in caplog.text
        for by in (16.0, 8.0):
            move(path, by)
            assert is_unused_edit(store, path)
            caplog.clear()
            for _ in range(2):
                settle_tissue(slide, store, CONFIG, path)
                assert not is_unused_edit(store, path)
            assert caplog.text.count(said) == 2
    path.unlink()
    settle_tissue(slide, store, CONFIG, path)
    assert store.tissue_outline == ""


def test_an_edited_outline_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slide, store = make(tmp_path)
    path = tmp_path / "a.geojson"
    settle_tissue(slide, store, CONFIG, path)
    move(path, 8.0)
    settle_tissue(slide, store, CONFIG, path)
    monkeypatch.delattr(outline, "read_facts")
    monkeypatch.delattr(settle, "detect_tissue")
    settle_tissue(slide, store, CONFIG, path)


def test_our_own_outline_follows_the_settings(tmp_path: Path) -> None:
    slide, store = make(tmp_path)
    path = tmp_path / "a.geojson"
    settle_tissue(slide, store, CONFIG, path)
    assert len(read_geojson(path)) == 2
    large = CONFIG.model_copy(update={"tissue": TissueConfig(min_area_um2=150_000)})
    settle_tissue(slide, store, large, path)
    assert len(read_geojson(path)) == 1
    # Another store, as after a change of the grid: the file is still known to be ours.
    facts = describe(slide)
    fresh = SlideStore.create(tmp_path / "b.zarr", store.grid, 2.0, facts)
    settle_tissue(slide, fresh, CONFIG, path)
    assert len(read_geojson(path)) == 2
    np.testing.assert_array_equal(fresh.read_tissue()[0], detect_tissue(slide, CONFIG.tissue))


def test_another_slide_of_that_name_gets_its_own_outline(tmp_path: Path) -> None:
    slide, store = make(tmp_path)
    path = tmp_path / "a.geojson"
    settle_tissue(slide, store, CONFIG, path)
    other = ArraySlide(paint()[::-1].copy(), 2.0)
    settle_tissue(other, store, CONFIG, path)
    np.testing.assert_array_equal(store.read_tissue()[0], detect_tissue(other, CONFIG.tissue))
    covered = shapely.union_all([feature.geometry for feature in read_geojson(path)])
    assert covered.contains(shapely.Point(500, 180))
    assert not covered.contains(shapely.Point(500, 340))


def test_detection_is_kept_while_nothing_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide, store = make(tmp_path)
    settle_tissue(slide, store, CONFIG)
    first = store.read_tissue()
    monkeypatch.delattr(settle, "detect_tissue")
    # `min_fraction` is about tiles, not about the mask.
    config = CONFIG.model_copy(
        update={"tissue": CONFIG.tissue.model_copy(update={"min_fraction": 0.5})}
    )
    settle_tissue(slide, store, config, tmp_path / "a.geojson")
    assert store.read_tissue()[2] == first[2]
    assert len(read_geojson(tmp_path / "a.geojson")) == 2


def test_no_tissue_is_an_empty_outline_and_back(tmp_path: Path) -> None:
    slide = ArraySlide(np.full((480, 640, 3), 244, np.uint8), 2.0)
    facts = describe(slide)
    store = SlideStore.create(tmp_path / "a.zarr", TileGrid(480, 640, 224, 224, 448), 2.0, facts)
    path = tmp_path / "a.geojson"
    settle_tissue(slide, store, CONFIG, path)
    assert not store.read_tissue()[0].any()
    assert read_geojson(path) == []
    path.write_text('{"type": "FeatureCollection", "features": []}')
    settle_tissue(slide, store, CONFIG, path)
    assert not store.read_tissue()[0].any()


def polygon(box: Box, name: str | None, **more: object) -> dict[str, object]:
    x, y, right, bottom = box.x, box.y, box.right, box.bottom
    ring = [[x, y], [right, y], [right, bottom], [x, bottom], [x, y]]
    properties = {"classification": {"name": name}} if name else {}
    geometry = {"type": "Polygon", "coordinates": [ring], **more}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def test_what_counts_in_a_users_outline(tmp_path: Path) -> None:
    slide, store = make(tmp_path)
    path = tmp_path / "a.geojson"
    point = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [4, 4]}}
    features = [
        polygon(Box(0, 0, 400, 400), None),
        polygon(Box(200, 200, 400, 200), "Tissue"),
        polygon(Box(80, 80, 40, 40), "Ignore*"),
        polygon(Box(-500, -500, 60, 5000), "Tissue"),
        {**point, "properties": {}},
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    settle_tissue(slide, store, CONFIG, path)
    want = np.zeros((120, 160), bool)
    want[:100, :100] = want[50:100, 50:150] = True
    want[20:30, 20:30] = False
    np.testing.assert_array_equal(store.read_tissue()[0], want)


def test_a_region_of_interest_is_not_cut_out(tmp_path: Path) -> None:
    slide, store = make(tmp_path)
    path = tmp_path / "a.geojson"
    features = [polygon(Box(0, 0, 400, 400), None), polygon(Box(100, 100, 40, 40), "Region*")]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    settle_tissue(slide, store, CONFIG, path)
    assert store.read_tissue()[0].sum() == 100 * 100


def test_a_broken_polygon_does_not_cost_the_outline(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slide, store = make(tmp_path)
    path = tmp_path / "a.geojson"
    whole, broken = polygon(Box(0, 0, 400, 400), None), polygon(Box(9, 9, 9, 9), "Ignore*")
    broken["geometry"] = None
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [whole, broken]}))
    settle_tissue(slide, store, CONFIG, path)
    assert store.read_tissue()[0].sum() == 100 * 100
    assert "tissue outline a.geojson: 1 feature(s) left out (feature 1:" in caplog.text
    assert store.tissue_note in caplog.text, "the summary tells it, too"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [broken]}))
    with pytest.raises(GeoJsonError, match=r"a\.geojson: 1 feature\(s\) left out.*lint --fix"):
        settle_tissue(slide, store, CONFIG, path)


def test_a_broken_outline_is_named(tmp_path: Path) -> None:
    slide, store = make(tmp_path)
    path = tmp_path / "a.geojson"
    path.write_text('{"type": "FeatureCollection", "features": [')
    with pytest.raises(GeoJsonError, match=r"a\.geojson"):
        settle_tissue(slide, store, CONFIG, path)


corners = st.tuples(st.integers(-40, 200), st.integers(-40, 200))


@settings(max_examples=50, deadline=None)
@given(st.lists(corners, min_size=3, max_size=9), st.lists(corners, min_size=3, max_size=5))
def test_filling_equals_asking_every_centre(
    outer: list[tuple[int, int]], inner: list[tuple[int, int]]
) -> None:
    """Even-odd, against a count of the edges to the left of each pixel's centre."""
    # Eighths of a pixel that never hit a centre, where a case would be a matter of taste.
    rings = [np.array([*ring, ring[0]], np.float64) / 8 + 1 / 16 for ring in (outer, inner)]
    mask = np.zeros((17, 19), bool)
    outline._fill(mask, rings, Size(19, 17))
    for row, col in np.ndindex(mask.shape):
        edges = [edge for ring in rings for edge in itertools.pairwise(ring)]
        distances = [
            x0 + (row + 0.5 - y0) * (x1 - x0) / (y1 - y0) - (col + 0.5)
            for (x0, y0), (x1, y1) in edges
            if (y0 < row + 0.5) != (y1 < row + 0.5)
        ]
        if all(abs(distance) > 1e-9 for distance in distances):  # edges may still hit one
            assert mask[row, col] == (sum(distance < 0 for distance in distances) % 2 == 1)


def test_an_edited_outline_is_read_by_the_origin_that_it_says(tmp_path: Path) -> None:
    slide, store = make(tmp_path, Box(30, 20, 560, 440))
    path = tmp_path / "a.geojson"
    settle_tissue(slide, store, CONFIG, path)
    before, *_ = store.read_tissue()
    move(path, 16.0)
    other = CONFIG.model_copy(update={"export": ExportConfig(origin="level0")})
    settle_tissue(slide, store, other, path)
    after, *_ = store.read_tissue()
    np.testing.assert_array_equal(after[4:, 4:], before[:-4, :-4])
    path.write_text(path.read_text().replace('"origin": [30, 20]', '"origin": "corner"'))
    with pytest.raises(GeoJsonError, match=r"a\.geojson: says that its origin is corner"):
        settle_tissue(slide, store, other, path)
