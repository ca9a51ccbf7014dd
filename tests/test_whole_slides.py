"""The direct reader's pixels are OpenSlide's: one real slide whole, tiles of every kind of others.

`python -m tests.whole_slides` compares all pixels of all levels of all of them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
import pytest
import simplejpeg
import tifffile

from tests.slide.aperio import Image, opened, write_aperio
from tests.slide.slides import CMU, HE2, TCGA, data
from tests.whole_slides import CLOSE, PIECE, compare, compare_whole, cuts, pieces
from wsiseg.config import SlideConfig
from wsiseg.errors import SlideOpenError, SlideReadError
from wsiseg.geometry import Box, Size
from wsiseg.slide.direct import DirectReader

STRATA = 40
"""Of each slide's tiles, from glass to the densest tissue; one of each is compared."""


def tile_boxes(direct: DirectReader, level: int, seed: int) -> list[Box]:
    """One tile of each stratum by compressed size, and the corners of the level."""
    tiles = direct._levels[level]
    by_size = np.argsort(tiles.counts, kind="stable")
    rng = np.random.default_rng(seed)
    count = len(by_size)
    picked = {int(rng.choice(part)) for part in np.array_split(by_size, STRATA) if len(part)}
    picked |= {0, tiles.across - 1, count - tiles.across, count - 1}
    whole = Box(0, 0, *tiles.size)
    width, height = tiles.tile
    places = (divmod(index, tiles.across) for index in sorted(picked))
    return [Box(x * width, y * height, width, height).intersect(whole) for y, x in places]


def test_a_whole_slide_pixel_by_pixel() -> None:
    ((level, counts),) = compare_whole(data(CMU))
    assert (level, counts.sum()) == (0, 2220 * 2967)
    assert counts[:2].sum() == counts.sum()


@pytest.mark.parametrize("name", [HE2, TCGA])
def test_tiles_from_glass_to_the_densest_tissue(name: str) -> None:
    path = data(name)
    config = SlideConfig(mpp_override=0.25)
    with DirectReader(path, config) as direct, openslide.OpenSlide(path) as peer:
        boxes = tile_boxes(direct, 0, seed=5)
        assert len(boxes) >= STRATA
        for box in boxes:
            assert compare(direct, peer, 0, box)[2:].sum() == 0, box


@pytest.mark.parametrize(("name", "level"), [(HE2, 2), (TCGA, 1)])
def test_whole_levels_whose_downsample_is_no_whole_number(name: str, level: int) -> None:
    path = data(name)
    config = SlideConfig(mpp_override=0.25)
    with DirectReader(path, config) as direct, openslide.OpenSlide(path) as peer:
        downsample = peer.level_downsamples[level]
        assert downsample != round(downsample)
        for box in pieces(direct.level_sizes[level], downsample):
            assert compare(direct, peer, level, box)[2:].sum() == 0, box


@pytest.mark.parametrize("name", ["boxes.tiff", "unopenable.tiff", "broken_histolab.svs"])
def test_what_is_no_jpeg_is_refused_before_a_pixel_is_read(name: str) -> None:
    path = data(f"edge_cases/{name}")
    with pytest.raises((SlideOpenError, SlideReadError), match=name):
        list(compare_whole(path))


@pytest.mark.parametrize("downsample", [1.0, 2.0, 2.0005055, 3.999558, 4.0161])
def test_pieces_cover_a_level_once_and_start_where_openslide_can(downsample: float) -> None:
    size = Size(9000, 5438)
    boxes = list(pieces(size, downsample))
    assert sum(box.width * box.height for box in boxes) == size.width * size.height
    assert all(max(box.width, box.height) <= PIECE and not box.empty for box in boxes)
    for at in cuts(size.width, downsample)[:-1]:
        assert abs(round(at * downsample) / downsample - at) < CLOSE


def test_the_comparison_sees_a_pixel_that_is_off(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(90, 160, (128, 192, 3), dtype=np.uint8)
    one = write_aperio(tmp_path / "a.svs", image)
    image[64:, 64:128] += 9
    two = write_aperio(tmp_path / "b.svs", image)
    with DirectReader(one) as direct, openslide.OpenSlide(two) as peer:
        counts = compare(direct, peer, 0, Box(0, 0, 192, 128))
    assert counts.sum() == 192 * 128
    assert counts[0] == 192 * 128 - 64 * 64 == counts.sum() - counts[3:].sum()


# -- the colour trap -----------------------------------------------------------------------------


def read_plainly(path: Path, box: Box) -> Image:
    """The first tile as a decoder has it that knows nothing of TIFF's colours."""
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        file.filehandle.seek(page.dataoffsets[0])
        data = file.filehandle.read(page.databytecounts[0])
        stream = (page.jpegtables or b"\xff\xd8\xff\xd9")[:-2] + data[2:]
    return np.asarray(simplejpeg.decode_jpeg(stream))[box.slices()]


@pytest.mark.parametrize("rgb", [False, True])
def test_aperios_jpeg_rgb_keeps_the_colours_of_real_tissue(tmp_path: Path, rgb: bool) -> None:
    with opened(data(CMU)) as slide:
        truth = slide.read_level(0, Box(600, 700, 1024, 768))
    path, tile = write_aperio(tmp_path / "a.svs", truth, tile=256, rgb=rgb), Box(0, 0, 256, 256)
    with DirectReader(path) as direct, openslide.OpenSlide(path) as peer:
        assert compare(direct, peer, 0, Box(0, 0, 1024, 768))[2:].sum() == 0
    for reader in ("direct", "openslide"):
        with opened(path, reader) as slide:
            assert np.abs(slide.read(tile, 0.25).astype(int) - truth[tile.slices()]).mean() < 4
    off = np.abs(read_plainly(path, tile).astype(int) - truth[tile.slices()]).mean()
    assert (off > 40) == rgb, "the trap is one"
