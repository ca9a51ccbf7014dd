from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import wsiseg.slide
import wsiseg.tile
from tests.tile.slides import SERIAL, paint, save
from wsiseg.config import Config, TileConfig, parse_config
from wsiseg.errors import GeometryError
from wsiseg.geometry import Box, Mpp, MppXY
from wsiseg.resolution import describe_enlargement, plan_grid, working_mpp
from wsiseg.slide import ArraySlide
from wsiseg.tile import tile_digest, tile_slide


@pytest.mark.parametrize(
    ("own", "wanted", "tolerance", "mpp"),
    [
        (0.25, 0.5, 0.02, 0.5),
        (0.499, 0.5, 0.02, 0.499),
        (0.2520, 0.5, 0.02, 0.504),
        (0.2472, 0.5, 0.02, 0.4944),
        (0.263018, 0.5, 0.02, 0.5),
        (0.263018, 0.5, 0.06, 0.526036),
        (0.499, 0.5, 0.0, 0.5),
        (0.5, 0.5, 0.0, 0.5),
        (1.0, 0.5, 0.02, 0.5),
        (0.1634, 0.5, 0.02, 0.4902),
        (0.505, 0.5, 0.02, 0.505),
    ],
)
def test_working_mpp_is_the_slides_own_multiple_where_close(
    own: float, wanted: float, tolerance: float, mpp: float
) -> None:
    slide = ArraySlide(np.zeros((8, 8, 3), np.uint8), own)
    config = TileConfig(mpp=wanted, mpp_tolerance=tolerance)
    assert working_mpp(slide, config) == pytest.approx(mpp, rel=1e-12)


@pytest.mark.parametrize(
    ("own", "mpp", "told"),
    [
        ((0.25, 0.25), 0.5, None),
        ((0.55, 0.55), 0.5, None),
        ((0.5, 1.0), 0.5, "has 1 µm/px and is enlarged 2 times to 0.5"),
        ((4.0, 4.0), 0.5, "has 4 µm/px and is enlarged 8 times to 0.5"),
    ],
)
def test_a_slide_coarser_than_its_tiles_is_told(
    own: tuple[float, float], mpp: float, told: str | None
) -> None:
    notes = describe_enlargement(own, mpp)
    assert [note.partition(",")[0] for note in notes] == ([] if told is None else [told])


def test_settings_that_come_to_the_same_numbers_are_one_digest(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", paint(), 0.5)
    digests = []
    for tile in ({}, {"mpp": 0.5, "tile": 224, "stride": 224, "block": 1792}):
        config = parse_config({"tile": tile}, Config, "test")
        store = tile_slide(path, tmp_path / "a.zarr", config, SERIAL)
        digests.append(tile_digest(store, config))
    assert digests[0] == digests[1]


def test_working_mpp_needs_both_axes() -> None:
    slide = ArraySlide(np.zeros((8, 8, 3), np.uint8), 0.25)
    slide.mpp = MppXY(Mpp(0.25), Mpp(0.2502))
    assert working_mpp(slide, TileConfig()) == 0.5
    slide.mpp = MppXY(Mpp(0.2505), Mpp(0.2502))
    assert working_mpp(slide, TileConfig()) == pytest.approx(0.501)
    slide.mpp = MppXY(Mpp(0.25), Mpp(0.27))
    assert working_mpp(slide, TileConfig(mpp=0.5)) == 0.5


def test_plan_at_the_slides_own_resolution_counts_its_pixels() -> None:
    slide = ArraySlide(np.zeros((450, 900, 3), np.uint8), 0.499)
    grid, mpp = plan_grid(slide, TileConfig())
    assert (grid.width, grid.height, mpp) == (900, 450, 0.499)
    with pytest.raises(GeometryError, match="block 300 is no multiple of tile 224"):
        plan_grid(slide, TileConfig(block=300))


@settings(max_examples=100, deadline=None)
@given(
    squares=st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=6),
    corner=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    cut=st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
def test_parts_cover_the_squares_once(
    squares: list[list[bool]], corner: tuple[int, int], cut: tuple[int, int]
) -> None:
    flags, side = np.array(squares), 10
    height, width = flags.shape[0] * side - cut[0], flags.shape[1] * side - cut[1]
    block = Box(corner[0] * 60, corner[1] * 60, width, height)
    count = np.zeros((height, width), np.int64)
    for part in wsiseg.tile._parts(flags, side, block):
        assert not part.empty
        count[part.slices(block)] += 1
    wanted = np.kron(flags, np.ones((side, side), np.int64))[:height, :width]
    np.testing.assert_array_equal(count, wanted)
