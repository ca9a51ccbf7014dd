from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from tests.trace.rasters import Labels, assert_same, blobs, build_polygons, draw, noise, scores_for
from wsiseg.annotations import BACKGROUND, PALETTES, Annotations
from wsiseg.compute import open_executor
from wsiseg.config import Config
from wsiseg.errors import StoreError
from wsiseg.grid import TileGrid
from wsiseg.outline import outline_regions
from wsiseg.store import SlideStore
from wsiseg.trace import polygon_areas, trace_regions

DIGEST = "5e" * 32
SLIDE = {"name": "one.svs", "mpp": [0.25, 0.2], "bounds": [40, 30, 800, 800]}


def make_store(path: Path, labels: Labels, block: int = 64, finished: bool = True) -> SlideStore:
    """A store of finished labels at 0.5 µm/px, every confidence that of `scores_for`."""
    grid = TileGrid(*labels.shape, tile=16, stride=16, block=block)
    store = SlideStore.create(path, grid, 0.5, SLIDE)
    store.create_labels(PALETTES["bcss"])
    scores = scores_for(labels)
    for i in range(grid.n_blocks):
        part = grid.block_box(i).slices()
        store.write_labels(i, 0, labels[part], scores[part])
        if finished or i:
            store.mark_done("stitch", i, DIGEST)
    return store


def outline(path: Path, executor: str = "serial", **settings: float) -> Annotations:
    with open_executor(executor, 2) as pool:
        return outline_regions(path, Config.model_validate({"outline": settings}), pool)


@pytest.fixture
def labels() -> NDArray[np.uint8]:
    tissue = np.kron(blobs((60, 70), 4, 5), np.ones((3, 3), np.uint8))
    tissue[40:80, 50:90] = noise((40, 40), 5, 1)
    return np.pad(tissue, ((70, 0), (0, 80)), constant_values=BACKGROUND)


def test_polygons_equal_the_raster(tmp_path: Path, labels: Labels) -> None:
    make_store(tmp_path / "s.zarr", labels)
    found = outline(tmp_path / "s.zarr")
    np.testing.assert_array_equal(draw(found.regions, labels.shape), labels)
    for label in range(4):
        area = sum(region.area_px for region in found.regions if region.label == label)
        assert area == (labels == label).sum() > 0
    assert shapely.is_valid(build_polygons(found.regions)).all()
    assert_same(found.regions, trace_regions(labels, scores_for(labels)))


def test_no_edge_along_a_block_border_where_labels_agree(tmp_path: Path, labels: Labels) -> None:
    make_store(tmp_path / "s.zarr", labels)
    for region in outline(tmp_path / "s.zarr").regions:
        for ring in (region.exterior, *region.holes):
            for (x, y), (x2, y2) in pairwise(ring):
                if x == x2 and x % 64 == 0 and 0 < x < labels.shape[1]:
                    rows = slice(min(y, y2), max(y, y2))
                    assert (labels[rows, x - 1] != labels[rows, x]).all()
                if y == y2 and y % 64 == 0 and 0 < y < labels.shape[0]:
                    columns = slice(min(x, x2), max(x, x2))
                    assert (labels[y - 1, columns] != labels[y, columns]).all()


@pytest.mark.parametrize("settings", [{}, {"min_area_um2": 9.0, "min_hole_um2": 4.0}])
def test_block_size_changes_nothing(
    tmp_path: Path, labels: Labels, settings: dict[str, float]
) -> None:
    found = []
    for block in (32, 48, 512):
        make_store(tmp_path / f"{block}.zarr", labels, block)
        found.append(outline(tmp_path / f"{block}.zarr", **settings).regions)
    for regions in found[1:]:
        assert_same(regions, found[0])


@pytest.mark.parametrize("executor", ["threads", "processes", "dask"])
def test_executors_give_the_same(tmp_path: Path, labels: Labels, executor: str) -> None:
    make_store(tmp_path / "s.zarr", labels)
    settings = {"min_area_um2": 2.0, "simplify_um": 1.0}
    want = outline(tmp_path / "s.zarr", **settings)
    got = outline(tmp_path / "s.zarr", executor, **settings)
    assert_same(got.regions, want.regions)
    assert got.provenance == want.provenance


def test_facts_about_the_slide(tmp_path: Path, labels: Labels) -> None:
    make_store(tmp_path / "s.zarr", labels)
    found = outline(tmp_path / "s.zarr")
    assert (found.slide, found.palette, found.mpp) == ("one.svs", PALETTES["bcss"], 0.5)
    assert found.scale == (2.0, 2.5)
    assert found.origin == (40, 30)
    assert found.provenance["labels"] == DIGEST
    assert '"min_area_um2":0.0' in found.provenance["outline"]
    level0 = Config.model_validate({"export": {"origin": "level0"}})
    with open_executor() as pool:
        assert outline_regions(tmp_path / "s.zarr", level0, pool).origin == (0, 0)


def test_small_regions_give_way_without_a_gap(tmp_path: Path, labels: Labels) -> None:
    store = make_store(tmp_path / "s.zarr", labels)
    found = outline(tmp_path / "s.zarr", min_area_um2=25.0, min_hole_um2=25.0)
    assert all(found.area_um2(region) >= 25 for region in found.regions)
    drawn = draw(found.regions, labels.shape)
    assert (drawn[110:150, 50:90] != BACKGROUND).mean() > 0.95
    np.testing.assert_array_equal(store.read_labels(store.grid.box), labels)


def test_simplified_regions_share_their_borders(tmp_path: Path, labels: Labels) -> None:
    make_store(tmp_path / "s.zarr", labels)
    found = outline(tmp_path / "s.zarr", simplify_um=1.0)
    assert shapely.coverage_is_valid(build_polygons(found.regions))
    areas = [region for region in found.regions if region.label == 0]
    error = polygon_areas(areas).sum() / sum(region.area_px for region in areas) - 1
    assert found.provenance["area_error"].startswith(f"Tumor {100 * error:+.3f} %, Stroma ")


def test_smooth_regions_count_fractions_of_a_pixel(tmp_path: Path, labels: Labels) -> None:
    make_store(tmp_path / "s.zarr", labels)
    found = outline(tmp_path / "s.zarr", smooth=2)
    assert found.scale == (2.0 / 16, 2.5 / 16)
    assert found.mpp == 0.5 / 16
    exact = outline(tmp_path / "s.zarr")
    assert [*map(found.area_um2, found.regions)] == [*map(exact.area_um2, exact.regions)]
    assert shapely.coverage_is_valid(build_polygons(found.regions))
    drawn = polygon_areas(found.regions).sum() / 16**2
    assert drawn == pytest.approx((labels != BACKGROUND).sum(), rel=0.02)
    assert "Tumor -" in found.provenance["area_error"]


def test_no_tissue_is_no_region(tmp_path: Path) -> None:
    make_store(tmp_path / "s.zarr", np.full((100, 70), BACKGROUND, np.uint8))
    for settings in ({}, {"min_area_um2": 9.0, "simplify_um": 1.0}):
        assert outline(tmp_path / "s.zarr", **settings).regions == ()


def test_progress_counts_every_block(tmp_path: Path, labels: Labels) -> None:
    store, seen = make_store(tmp_path / "s.zarr", labels), []
    config = Config.model_validate({"outline": {"min_area_um2": 2.0}})
    with open_executor() as pool:
        outline_regions(store.path, config, pool, lambda *args: seen.append(args))
    total = 2 * store.grid.n_blocks
    assert seen == [("outline", done, total) for done in range(1, total + 1)]


def test_labels_must_be_there_and_finished(tmp_path: Path, labels: Labels) -> None:
    grid = TileGrid(*labels.shape, tile=16, stride=16, block=64)
    SlideStore.create(tmp_path / "none.zarr", grid, 0.5, SLIDE)
    with pytest.raises(StoreError, match=r"none\.zarr: holds no labels; run `wsiseg stitch`"):
        outline(tmp_path / "none.zarr")
    make_store(tmp_path / "half.zarr", labels, finished=False)
    with pytest.raises(StoreError, match=r"half\.zarr: `wsiseg stitch` did not finish"):
        outline(tmp_path / "half.zarr")
