"""Levels that OpenSlide passes over, and the focal planes of a z-stack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from tests.slide.aperio import picture
from wsiseg.config import SlideConfig
from wsiseg.errors import SlideOpenError
from wsiseg.geometry import Box, Size
from wsiseg.slide import Slide, open_slide
from wsiseg.slide.pages import count_levels, load_stack

Image = NDArray[np.uint8]
MOTIC = "Motic V1.0.0 {0}x{1} [0,0 {0}x{1}] [64x64]{2} JPEG/RGB Q = 75|AppMag = 20|MPP = 0.499"
PLANES = {0.0: 0, 1.5: 40, -1.5: 80}
"""Brightness added to the planes of a stack by their offset."""


def opened(path: Path, reader: str = "auto") -> Slide:
    return open_slide(path, SlideConfig.model_validate({"reader": reader, "mpp_override": 0.25}))


def write_subifds(path: Path, compression: str) -> Path:
    image, look = picture(300, 400), {"tile": (64, 64), "compression": compression}
    look["photometric"] = "ycbcr" if compression == "jpeg" else "rgb"
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(image, subifds=2, metadata={"axes": "YXS", "PhysicalSizeX": 0.25}, **look)
        for n in (2, 4):
            tiff.write(np.ascontiguousarray(image[::n, ::n]), subfiletype=1, **look)
    return path


def write_motic(path: Path, small: Image | None = None, **look: object) -> Path:
    image = picture(300, 400)
    how = {"photometric": "ycbcr", "compression": "jpeg", "tile": (64, 64), "metadata": None}
    small = np.ascontiguousarray(image[::4, ::4]) if small is None else small
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(image, description=MOTIC.format(400, 300, ""), **how)
        tiff.write(small, description=MOTIC.format(400, 300, " -> 100x75"), **{**how, **look})
    return path


def write_stack(path: Path, order: list[tuple[float, int]], last: str = "TotalDepth = 3") -> Path:
    """An Aperio file with the planes and reductions of `order`, a thumbnail after the first."""
    image = picture(256, 256).astype(int) // 2
    how = {"photometric": "rgb", "compression": "jpeg", "tile": (64, 64), "metadata": None}
    with tifffile.TiffWriter(path) as tiff:
        for i, (offset, n) in enumerate(order):
            text = "Aperio Image Library v12\n256x256 (64x64) JPEG/RGB Q=80|AppMag = 40|MPP = 0.25|"
            text += f"OffsetZ = {offset}" if offset else last
            plane = (image + PLANES[offset]).astype(np.uint8)[::n, ::n]
            tiff.write(np.ascontiguousarray(plane), description=text, software=False, **how)
            if i == 0:
                tiff.write(plane[::4, ::4], photometric="rgb", metadata=None, software=False)
    return path


@pytest.mark.parametrize("compression", ["jpeg", "zlib"])
def test_subifds_are_levels(tmp_path: Path, compression: str) -> None:
    path = write_subifds(tmp_path / "a.ome.tif", compression)
    with opened(path) as slide, opened(path, "openslide") as other:
        assert slide.reader == ("direct" if compression == "jpeg" else "tiffslide")
        assert slide.level_sizes == (Size(400, 300), Size(200, 150), Size(100, 75))
        assert slide.mpp == (0.25, 0.25)
        assert other.level_sizes == (Size(400, 300),)  # as asked for
        with tifffile.TiffFile(path) as file:
            want = file.series[0].levels[2].asarray().astype(int)
        got = slide.read(Box(0, 0, 100, 75), 1.0)
        assert np.abs(got - want).max() <= 2


def test_levels_of_a_vendor_that_openslide_does_not_know(tmp_path: Path) -> None:
    path = write_motic(tmp_path / "motic.svs")
    for reader in ("auto", "direct", "tiffslide"):
        with opened(path, reader) as slide:
            assert slide.level_sizes == (Size(400, 300), Size(100, 75))
    assert count_levels(path, Size(400, 300)) == 2


@pytest.mark.parametrize(
    ("size", "look"),
    [((75, 97), {}), ((75, 100), {"tile": None}), ((75, 100), {"compression": "zlib"})],
)
def test_other_pictures_of_a_file_are_no_levels(
    tmp_path: Path, size: tuple[int, int], look: dict[str, object]
) -> None:
    if look.get("compression"):
        look = {**look, "photometric": "rgb"}
    path = write_motic(tmp_path / "label.tif", picture(*size), **look)
    with opened(path) as slide:
        assert slide.level_sizes == (Size(400, 300),)


@pytest.mark.parametrize(
    "order",
    [
        [(0.0, 1), (0.0, 4), (1.5, 1), (1.5, 4), (-1.5, 1), (-1.5, 4)],  # Aperio's; no OpenSlide
        [(-1.5, 1), (0.0, 1), (1.5, 1), (-1.5, 4), (0.0, 4), (1.5, 4)],
        [(-1.5, 1), (1.5, 1), (0.0, 1)],
    ],
)
@pytest.mark.parametrize("last", ["TotalDepth = 3", "OffsetZ = 0.000"])
def test_the_plane_at_offset_0_is_read(
    tmp_path: Path, order: list[tuple[float, int]], last: str
) -> None:
    path = write_stack(tmp_path / "stack.svs", order, last)
    want = picture(256, 256)[:64, :64] // 2
    sizes = (Size(256, 256), Size(64, 64))[: len({n for _, n in order})]
    for reader in ("auto", "direct") if order[0][0] == 0 else ("auto", "direct", "openslide"):
        with opened(path, reader) as slide:
            assert slide.level_sizes == sizes
            assert slide.vendor == "aperio"
            assert abs(slide.read(Box(0, 0, 64, 64), 0.25).mean() - want.mean()) < 3
            assert abs(slide.read(Box(0, 0, 64, 64), 1.0).mean() - want.mean()) < 8
            said = "z-stack of 3 focal planes (at -1.5, 0, 1.5 µm); the one at 0 is read"
            assert slide.notes == (said,)
    with open_slide(path) as slide:
        assert (slide.mpp, slide.objective) == ((0.25, 0.25), 40)


def test_without_a_plane_at_0_the_nearest_is_read(tmp_path: Path) -> None:
    path = write_stack(tmp_path / "stack.svs", [(-1.5, 1), (1.5, 1)])
    with opened(path) as slide:
        assert slide.notes == (
            "z-stack of 2 focal planes (at -1.5, 1.5 µm); the one at -1.5 is read",
        )


def test_one_plane_is_no_stack_and_equal_pages_without_offsets_are_refused(tmp_path: Path) -> None:
    assert load_stack(write_stack(tmp_path / "one.svs", [(0.0, 1), (0.0, 4)])) is None
    twice = write_stack(tmp_path / "twice.svs", [(0.0, 1), (0.0, 1)])
    with pytest.raises(SlideOpenError, match="2 tiled images of 256 x 256 pixels, 1 needed"):
        opened(twice, "direct")
    assert load_stack(tmp_path / "no.svs") is None


def test_a_stack_in_ome_xml_is_said(tmp_path: Path) -> None:
    path = tmp_path / "z.ome.tif"
    stack = np.stack([picture(150, 200) // n for n in (1, 2)])
    tifffile.imwrite(
        path, stack, photometric="rgb", tile=(64, 64), compression="zlib", ome=True,
        metadata={"axes": "ZYXS"},
    )  # fmt: skip
    with opened(path) as slide:
        assert slide.notes == ("z-stack of 2 focal planes; the first is read",)
        assert (slide.read(Box(0, 0, 50, 50), 0.25) == stack[0, :50, :50]).all()


def test_a_decimal_comma_in_an_offset(tmp_path: Path) -> None:
    path = write_stack(tmp_path / "z.svs", [(1.5, 1), (0.0, 1), (-1.5, 1)])
    path.write_bytes(path.read_bytes().replace(b"OffsetZ = 1.5", b"OffsetZ = 0,4")
                     .replace(b"OffsetZ = -1.5", b"OffsetZ = -0,4"))  # fmt: skip
    with opened(path) as slide:
        assert slide.notes == (
            "z-stack of 3 focal planes (at -0.4, 0, 0.4 µm); the one at 0 is read",
        )


def test_two_pages_of_one_size_without_offsets_are_said(tmp_path: Path) -> None:
    path = write_stack(tmp_path / "z.svs", [(0.0, 1), (0.0, 1)])
    with opened(path) as slide:
        assert slide.notes == ("holds 2 pictures of this size; the first is read",)
