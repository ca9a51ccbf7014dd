"""The direct reader against OpenSlide, tifffile and itself; damaged files."""

from __future__ import annotations

import random
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.slide.aperio import luma, opened, picture, write_aperio
from tests.slide.slides import CMU, HE2, TCGA, data, noise
from wsiseg.config import SlideConfig
from wsiseg.errors import SlideError, SlideOpenError, SlideReadError
from wsiseg.geometry import Box, Size
from wsiseg.slide import open_slide
from wsiseg.slide.direct import DirectReader
from wsiseg.slide.scratch import TileRing, scratch


@pytest.fixture
def svs(tmp_path: Path) -> Path:
    return write_aperio(tmp_path / "a.svs", picture(300, 410))


@pytest.mark.parametrize(("name", "mpp"), [(CMU, None), (HE2, None), (TCGA, 0.25)])
def test_the_facts_are_openslides(name: str, mpp: float | None) -> None:
    path = data(name)
    with (
        opened(path, mpp_override=mpp) as direct,
        opened(path, "openslide", mpp_override=mpp) as other,
    ):
        assert (direct.reader, other.reader) == ("direct", "openslide")
        for fact in ("vendor", "size", "mpp", "mpp_source", "bounds", "identity", "level_sizes"):
            assert getattr(direct, fact) == getattr(other, fact), fact
        assert list(direct.associated) == list(other.associated)
        for image in direct.associated:
            np.testing.assert_array_equal(direct.associated[image], other.associated[image])
    with open_slide(path, SlideConfig(mpp_override=mpp)) as auto:
        assert auto.reader == "direct"


@pytest.mark.parametrize(
    ("name", "boxes"),
    [
        (CMU, [Box(0, 0, 2220, 2967)]),
        (HE2, [Box(7680, 14400, 1500, 900), Box(22000, 20000, 1241, 1754)]),
        (TCGA, [Box(1000, 1000, 800, 600), Box(3700, 3000, 743, 567)]),
    ],
)
def test_the_pixels_are_openslides(name: str, boxes: list[Box]) -> None:
    path = data(name)
    with (
        opened(path, mpp_override=0.25) as direct,
        opened(path, "openslide", mpp_override=0.25) as other,
    ):
        for box in boxes:
            one, two = (slide.read(box, 0.25).astype(int) for slide in (direct, other))
            assert np.abs(one - two).max() <= 1


@pytest.mark.parametrize("name", [HE2, TCGA])
def test_coarser_levels_are_the_files_own_pixels(name: str) -> None:
    # OpenSlide interpolates where a level's downsample is no whole number; tifffile does not.
    path = data(name)
    with opened(path, mpp_override=0.25) as slide, tifffile.TiffFile(path) as file:
        size = slide.level_sizes[1]
        pages = [page for page in file.pages if page.is_tiled and page.imagewidth == size.width]
        want = pages[0].asarray()[400:1000, 900:1700]
        got = slide.read_level(1, Box(900, 400, 800, 600))
    assert np.abs(got.astype(int) - want).max() <= 1


@pytest.mark.parametrize("rgb", [False, True])
def test_small_files_as_openslide_to_the_edge_and_beyond(tmp_path: Path, rgb: bool) -> None:
    path = write_aperio(tmp_path / "a.svs", picture(300, 410), rgb=rgb)
    box = Box(-10, -10, 500, 400)
    with opened(path) as direct, opened(path, "openslide") as other:
        one, two = (slide.read(box, 0.25).astype(int) for slide in (direct, other))
    assert np.abs(one - two).max() <= 1
    assert np.abs(one[10:310, 10:420] - picture(300, 410)).mean() < 6


def test_tiles_of_no_bytes_are_white_as_openslide_has_them(tmp_path: Path) -> None:
    path = write_aperio(tmp_path / "a.svs", picture(300, 410), missing=(8, 9))
    with opened(path) as direct, opened(path, "openslide") as other:
        one, two = (slide.read(Box(0, 0, 410, 300), 0.25).astype(int) for slide in (direct, other))
    assert (one[64:128, 64:192] == 255).all()
    assert np.abs(one - two).max() <= 1


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("factor", [1, 1.9, 2, 4, 6, 8, 16])
def test_whole_equals_parts(svs: Path, scaled: bool, factor: float) -> None:
    random_ = random.Random(f"{factor}")
    with opened(svs, scaled=scaled) as slide:
        whole = slide.raster_size(0.25 * factor)
        box = Box(-3, -2, whole.width + 7, whole.height + 5)
        want = slide.read(box, 0.25 * factor)
        for _ in range(15):
            x, y = random_.randrange(box.width), random_.randrange(box.height)
            width, height = random_.randint(1, box.width - x), random_.randint(1, box.height - y)
            part = Box(box.x + x, box.y + y, width, height)
            np.testing.assert_array_equal(slide.read(part, 0.25 * factor), want[part.slices(box)])


@pytest.mark.parametrize(("factor", "limit"), [(2, 42), (4, 42), (8, 42), (6, 42)])
def test_scaled_is_close_to_the_mean_and_equal_at_the_edge(
    svs: Path, factor: int, limit: float
) -> None:
    with opened(svs, scaled=True) as scaled, opened(svs) as exact:
        size = exact.raster_size(0.25 * factor)
        box = Box(0, 0, *size)
        one, two = (slide.read(box, 0.25 * factor) for slide in (scaled, exact))
    assert (one != two).any()
    error = np.square(one.astype(float) - two).mean()
    assert 10 * np.log10(255**2 / error) > limit
    whole = Size(410 // factor, 300 // factor)
    np.testing.assert_array_equal(one[whole.height :], two[whole.height :])
    np.testing.assert_array_equal(one[:, whole.width :], two[:, whole.width :])


@pytest.mark.parametrize("factor", [1, 1.9, 3])
def test_scaling_changes_nothing_where_it_does_not_fit(svs: Path, factor: float) -> None:
    with opened(svs, scaled=True) as scaled, opened(svs) as exact:
        box = Box(0, 0, 90, 70)
        one, two = (slide.read(box, 0.25 * factor) for slide in (scaled, exact))
    np.testing.assert_array_equal(one, two)


def test_half_scale_is_no_worse_than_the_mean_against_the_truth(tmp_path: Path) -> None:
    """Real tissue, encoded: its pixels before that, halved, are the truth."""
    with opened(data(CMU)) as slide:
        truth = slide.read(Box(400, 400, 1024, 1024), slide.mpp.x)
    half = truth.reshape(512, 2, 512, 2, 3).mean((1, 3))
    path = write_aperio(tmp_path / "truth.svs", truth, tile=256)
    with opened(path, scaled=True) as scaled, opened(path) as exact:
        box = Box(0, 0, 512, 512)
        errors = [
            np.square(luma(slide.read(box, 0.5)) - luma(half)).mean() for slide in (scaled, exact)
        ]
    assert 0 < errors[0] <= errors[1]


@pytest.mark.parametrize("scaled", [False, True])
def test_runs_of_a_block_decode_each_tile_once(
    svs: Path, monkeypatch: pytest.MonkeyPatch, scaled: bool
) -> None:
    seen: list[int] = []
    real = DirectReader._decode

    def decode(self: DirectReader, level: int, index: int, *rest: object) -> None:
        seen.append(index)
        real(self, level, index, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(DirectReader, "_decode", decode)
    with opened(svs, scaled=scaled) as slide:
        for y in range(0, 150, 25):
            for x in range(0, 200, 40):
                slide.read(Box(x, y, 40, 25), 0.5)
    assert len(seen) == len(set(seen)) == 5 * 7
    seen.clear()
    with opened(svs, scaled=scaled) as slide:
        slide.read(Box(33, 1, 30, 30), 0.5)
    assert seen == [1], "nothing beside the box is decoded; nor is another's tile taken"


def test_tiles_lie_where_libjpeg_turbo_writes_through_the_cache() -> None:
    shape = (256, 256, 3)
    ring = TileRing(4 * 256 * 256 * 3)
    places = [scratch.array("tile", shape), TileRing(9).reserve(shape)]
    for key in range(3):
        places.append(ring.reserve(shape))
        ring.keep(key, places[-1])
    assert all(tile.ctypes.data % 16 for tile in places)


def test_the_ring_gives_back_what_it_holds_and_never_more_than_its_size() -> None:
    ring, held = TileRing(1000), {}
    random_ = random.Random(0)
    for key in range(500):
        side = random_.randint(1, 9)
        tile = ring.reserve((side, side, 3))
        tile[:] = key % 251
        ring.keep(key, tile)
        held[key] = side
        for other, size in held.items():
            found = ring.get(other)
            if found is not None:
                assert found.shape == (size, size, 3)
                assert (found == other % 251).all()
        assert sum(tile.size for _, tile in ring._tiles.values()) <= 1000
        assert ring.get(key) is not None
    big = ring.reserve((20, 20, 3))
    ring.keep("big", big)
    assert ring.get("big") is None


def test_what_is_read_is_the_callers_own(svs: Path) -> None:
    with opened(svs) as slide:
        box = Box(64, 64, 64, 64)
        one = slide.read(box, 0.25)
        level = slide.read_level(0, box)
        kept = one.copy()
        slide.read(Box(0, 0, 200, 200), 0.25)
    np.testing.assert_array_equal(one, kept)
    np.testing.assert_array_equal(level, kept)


@pytest.mark.parametrize("scaled", [False, True])
def test_threads_read_the_same(scaled: bool) -> None:
    with opened(data(CMU), scaled=scaled) as slide:
        boxes = [Box(200 + 37 * i, 200 + 11 * i, 300, 250) for i in range(12)]
        mpp = slide.mpp.x * 2
        want, got = [slide.read(box, mpp) for box in boxes], {}

        def work(thread: int) -> None:
            for i in random.Random(thread).sample(range(12), 12):
                got[thread, i] = slide.read(boxes[i], mpp)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    assert len(got) == 48
    assert all(np.array_equal(pixels, want[i]) for (_, i), pixels in got.items())


def test_a_file_written_anew_is_read_anew(svs: Path, tmp_path: Path) -> None:
    box = Box(0, 0, 100, 100)
    with opened(svs) as slide:
        before = slide.read(box, 0.25)
    other = write_aperio(tmp_path / "b.svs", picture(300, 410)[::-1].copy())
    shutil.copy(other, svs)
    with opened(svs) as slide, opened(other) as same:
        after = slide.read(box, 0.25)
        np.testing.assert_array_equal(after, same.read(box, 0.25))
        assert slide.identity == same.identity
    assert (after != before).any()


def test_a_closed_slide_says_so(svs: Path) -> None:
    slide = opened(svs)
    slide.close()
    with pytest.raises(
        SlideReadError, match=r"a\.svs: cannot decode level 0, tile 0 .*closed file"
    ):
        slide.read(Box(0, 0, 4, 4), 0.25)


def test_other_layouts_go_to_openslide(tmp_path: Path) -> None:
    image = noise(200, 300)
    path = tmp_path / "deflate.tif"
    tifffile.imwrite(
        path, image, tile=(64, 64), photometric="rgb", compression="zlib",
        resolution=(20000, 20000), resolutionunit="CENTIMETER",
    )  # fmt: skip
    with open_slide(path) as slide:
        assert slide.reader == "openslide"
    with pytest.raises(SlideOpenError, match=r"deflate\.tif.*direct reading: compression 8"):
        DirectReader(path)
    with opened(path) as slide:
        assert slide.reader == "direct"
        np.testing.assert_array_equal(slide.read(Box(0, 0, 300, 200), slide.mpp.x), image)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda tile: tile[: len(tile) // 2] + bytes(len(tile) - len(tile) // 2), "tile 5"),
        (lambda tile: bytes(len(tile)), "does not start as a JPEG"),
        (lambda tile: tile[:30] + bytes(len(tile) - 30), "tile 5"),
    ],
)
def test_a_damaged_tile_names_file_level_and_tile(svs: Path, damage: object, said: str) -> None:
    with tifffile.TiffFile(svs) as file:
        page = file.pages.first
        offset, count = page.dataoffsets[5], page.databytecounts[5]
    content = bytearray(svs.read_bytes())
    content[offset : offset + count] = damage(bytes(content[offset : offset + count]))  # type: ignore[operator]
    svs.write_bytes(content)
    with opened(svs) as slide:
        slide.read(Box(0, 0, 300, 60), 0.25)
        with pytest.raises(SlideReadError, match=rf"a\.svs: cannot decode level 0, .*{said}"):
            slide.read(Box(0, 0, 410, 60), 0.25)


def test_a_tile_of_another_size_is_named(tmp_path: Path) -> None:
    small, large = (write_aperio(tmp_path / f"{n}.svs", picture(256, 256), n) for n in (64, 128))
    with tifffile.TiffFile(large) as file:
        page = file.pages.first
        spot = page.dataoffsets[0], page.databytecounts[0]
    with tifffile.TiffFile(small) as file:
        page = file.pages.first
        tile = small.read_bytes()[
            page.dataoffsets[0] : page.dataoffsets[0] + page.databytecounts[0]
        ]
    content = bytearray(large.read_bytes())
    content[spot[0] : spot[0] + spot[1]] = tile + bytes(spot[1] - len(tile))
    large.write_bytes(content)
    with opened(large) as slide, pytest.raises(SlideReadError, match=r"tile 0 .*\(64, 64, 3\)"):
        slide.read(Box(0, 0, 4, 4), 0.25)


def test_a_level_none_of_whose_tiles_can_be_decoded_is_refused(svs: Path) -> None:
    with tifffile.TiffFile(svs) as file:
        page = file.pages.first
        spots = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    content = bytearray(svs.read_bytes())
    for offset, count in spots:
        content[offset : offset + count] = bytes(count)
    svs.write_bytes(content)
    with pytest.raises(SlideOpenError, match=r"a\.svs: .*direct reading: does not start as a JPEG"):
        DirectReader(svs)


def test_fuzzed_files_give_pixels_or_a_slide_error(svs: Path, tmp_path: Path) -> None:
    content = svs.read_bytes()
    random_ = random.Random(1)
    outcomes = {"pixels": 0, "error": 0}
    for i in range(60):
        broken = bytearray(content)
        for _ in range(random_.choice((1, 5, 50))):
            broken[random_.randrange(len(broken))] = random_.randrange(256)
        if i % 4 == 0:
            del broken[random_.randrange(len(broken)) :]
        path = tmp_path / f"{i}.svs"
        path.write_bytes(broken)
        try:
            with opened(path, scaled=bool(i % 2), mpp_override=0.25) as slide:
                size = slide.raster_size(0.5)
                slide.read(Box(0, 0, min(size.width, 300), min(size.height, 300)), 0.5)
                outcomes["pixels"] += 1
        except SlideError:
            outcomes["error"] += 1
    assert min(outcomes.values()) > 5, outcomes
