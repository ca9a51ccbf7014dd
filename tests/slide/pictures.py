"""One small picture in every layout that a TIFF may have, by the name of the layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

READERS = ("direct", "openslide", "tiffslide", "auto")
MPP = 0.5
SCALE: dict[str, Any] = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
TILE = 64


def picture(height: int = 100, width: int = 150) -> NDArray[np.uint8]:
    """``(H, W, 3)`` uint8 in the colours of H&E, none of them alike in two channels."""
    y, x = np.mgrid[:height, :width]
    waves = [60 * np.sin(x / 19 + i) + 40 * np.cos(y / (17 + i)) for i in range(3)]
    base = np.array([190.0, 110.0, 160.0])
    return np.clip(np.rint(np.stack(waves, 2) * 0.5 + base), 0, 255).astype(np.uint8)


IMAGE = picture()
PLANES = np.ascontiguousarray(IMAGE.transpose(2, 0, 1))
DEEP = IMAGE.astype(np.uint16)
ALPHA = np.full(IMAGE.shape[:2], 255, np.uint8)
ALPHA[:40, :50], ALPHA[40:60] = 0, 51
SHADE = (ALPHA / 255.0)[..., None]
ON_WHITE = np.rint(IMAGE * SHADE + 255 * (1 - SHADE))


def _tag(code: int, *values: int) -> tuple[int, str, int, tuple[int, ...], bool]:
    return code, "H", len(values), values, True


def _tables() -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    indexed = Image.fromarray(IMAGE).quantize(256)
    colours = np.zeros((256, 3), np.uint16)
    known = np.array(indexed.getpalette()).reshape(-1, 3)
    colours[: len(known)] = known
    return np.asarray(indexed), colours


INDICES, COLOURS = _tables()


def _rgb(**more: Any) -> dict[str, Any]:
    return {"photometric": "rgb", "compression": "zlib"} | more


def _ome(axes: str, names: list[str] | None = None, **more: Any) -> dict[str, Any]:
    channel = {"Channel": {"Name": names}} if names else {}
    return {"metadata": {"axes": axes, **channel, **more}, "ome": True}


Content = tuple[NDArray[Any], dict[str, Any]]

READ: dict[str, tuple[Callable[[], Content], NDArray[Any], float]] = {
    "rgb": (lambda: (IMAGE, {"photometric": "rgb"}), IMAGE, 0),
    "rgb deflate": (lambda: (IMAGE, _rgb()), IMAGE, 0),
    "rgb lzw": (lambda: (IMAGE, _rgb(compression="lzw", predictor=True)), IMAGE, 0),
    "rgb jpeg": (lambda: (IMAGE, _rgb(compression="jpeg")), IMAGE, 40),
    "rgb jpeg 2000": (lambda: (IMAGE, _rgb(compression="jpeg2000")), IMAGE, 0),
    "rgb planes": (lambda: (PLANES, _rgb(planarconfig="separate")), IMAGE, 0),
    "rgb ome": (lambda: (IMAGE, _rgb(**_ome("YXS"))), IMAGE, 0),
    "rgb ome planes": (lambda: (PLANES, _rgb(planarconfig="separate", **_ome("SYX"))), IMAGE, 0),
    "red, green and blue pages": (
        lambda: (PLANES, {"photometric": "minisblack", **_ome("CYX", ["Red", "Green", "Blue"])}),
        IMAGE, 0,
    ),
    "blue, green and red pages": (
        lambda: (PLANES[::-1], {"photometric": "minisblack", **_ome("CYX", ["b", "G ", "R"])}),
        IMAGE, 0,
    ),
    "12 bits in 16, tagged": (
        lambda: (DEEP * 16, _rgb(extratags=[_tag(340, 0, 0, 0), _tag(341, 4080, 4080, 4080)])),
        IMAGE, 0,
    ),
    "10 bits from 100 on": (
        lambda: (DEEP * 3 + 100, _rgb(extratags=[_tag(340, 100), _tag(341, 865)])), IMAGE, 0,
    ),
    "16 bits, tagged, planes": (
        lambda: (
            PLANES.astype(np.uint16) * 257,
            _rgb(planarconfig="separate", extratags=[_tag(341, 65535, 65535, 65535)]),
        ),
        IMAGE, 0,
    ),
    "12 bits by the OME-XML": (
        lambda: (DEEP * 16, _rgb(**_ome("YXS", SignificantBits=12))), IMAGE * (4080 / 4095), 0.5,
    ),
    "12 bits, OME pages": (
        lambda: (
            PLANES.astype(np.uint16) * 16,
            {"photometric": "minisblack",
             **_ome("CYX", ["red", "green", "blue"], SignificantBits=12)},
        ),
        IMAGE * (4080 / 4095), 0.5,
    ),
    "palette": (
        lambda: (INDICES, {"photometric": "palette", "colormap": COLOURS.T * 257}),
        COLOURS[INDICES], 0,
    ),
    "palette of 8 bits": (
        lambda: (INDICES, {"photometric": "palette", "colormap": COLOURS.T}), COLOURS[INDICES], 0,
    ),
    "transparent": (
        lambda: (np.dstack([IMAGE, ALPHA]), _rgb(extrasamples=["unassalpha"])), ON_WHITE, 0.5,
    ),
    "transparent, multiplied": (
        lambda: (
            np.dstack([np.rint(IMAGE * SHADE).astype(np.uint8), ALPHA]),
            _rgb(extrasamples=["assocalpha"]),
        ),
        ON_WHITE, 1,
    ),
    "transparent planes": (
        lambda: (
            np.concatenate([PLANES, ALPHA[None]]),
            _rgb(planarconfig="separate", extrasamples=["unassalpha"]),
        ),
        ON_WHITE, 0.5,
    ),
    "a fourth sample of no use": (
        lambda: (np.dstack([IMAGE, ALPHA]), _rgb(extrasamples=["unspecified"])), IMAGE, 0,
    ),
}  # fmt: skip
"""Layouts that are read: what is written, the pixels ``(H, W, 3)``, and their largest error."""

_GREY = IMAGE[..., 1]
_FOUR = np.concatenate([PLANES, PLANES[:1]])
REFUSED: dict[str, tuple[Callable[[], Content], str]] = {
    "grey": (lambda: (_GREY, {"photometric": "minisblack"}), r"1 channel of 8 bits \(grey\)"),
    "grey, 0 is white": (
        lambda: (255 - _GREY, {"photometric": "miniswhite"}), "1 channel of 8 bits .*0 is white",
    ),
    "grey of 16 bits": (lambda: (DEEP[..., 1] * 16, {}), "1 channel of 16 bits"),
    "black and white": (lambda: (_GREY > 128, {}), r"1 channel of 1 bit "),
    "fluorescence": (
        lambda: (_FOUR.astype(np.uint16), {"photometric": "minisblack", **_ome("CYX")}),
        r"4 channels of 16 bits \(grey\): .*fluorescence",
    ),
    "fluorescence by name": (
        lambda: (
            PLANES, {"photometric": "minisblack", **_ome("CYX", ["DAPI", "FITC", "TRITC"])},
        ),
        r"3 channels of 8 bits \(grey\): .*Red, Green and Blue",
    ),
    "three pages without names": (
        lambda: (PLANES, {"photometric": "minisblack", **_ome("CYX")}), "3 channels of 8 bits",
    ),
    "pages": (lambda: (PLANES, {"photometric": "minisblack"}), "3 channels of 8 bits"),
    "four planes": (
        lambda: (_FOUR, {"photometric": "minisblack", "planarconfig": "separate"}),
        "4 channels of 8 bits",
    ),
    "16 bits": (
        lambda: (DEEP * 16, _rgb()), r"3 channels of 16 bits \(RGB\): nothing says .*tag 341",
    ),
    "16 bits, planes": (
        lambda: (PLANES.astype(np.uint16), _rgb(planarconfig="separate")), "3 channels of 16 bits",
    ),
    "an impossible range": (
        lambda: (DEEP, _rgb(extratags=[_tag(340, 9), _tag(341, 9)])), "samples go from 9 to 9",
    ),
    "floating point": (
        lambda: (IMAGE / np.float32(255), _rgb()), "3 floating-point channels of 32 bits",
    ),
    "signed": (lambda: (DEEP.astype(np.int16), _rgb()), "3 signed channels of 16 bits"),
    "five samples": (
        lambda: (np.dstack([IMAGE, IMAGE[..., :2]]), _rgb()), r"5 channels of 8 bits \(RGB\)",
    ),
    "cmyk": (
        lambda: (np.dstack([255 - IMAGE, 0 * ALPHA]), _rgb(photometric="separated")),
        r"4 channels of 8 bits \(CMYK\)",
    ),
    "cielab": (lambda: (IMAGE, _rgb(photometric="cielab")), r"3 channels of 8 bits \(CIELab\)"),
    "ycbcr by itself": (
        lambda: (IMAGE, _rgb(photometric="ycbcr")), r"YCbCr\): YCbCr is read in JPEG only",
    ),
}  # fmt: skip
"""Layouts that are refused: what is written, and what is said."""


def write(path: Path, content: Content, tiled: bool) -> Path:
    """Write a TIFF of tiles or strips."""
    array, options = content
    form: dict[str, Any] = {"tile": (TILE, TILE)} if tiled else {"rowsperstrip": 32}
    tifffile.imwrite(path, array, **(SCALE | form | {"ome": False} | options))
    return path


def write_tiles(path: Path, image: NDArray[np.uint8], left_out: tuple[int, ...] = (),
                **options: Any) -> Path:  # fmt: skip
    """Write deflated tiles, of which some are left out (0 bytes)."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((0, -height % TILE), (0, -width % TILE), (0, 0)))
    corners = [(y, x) for y in range(0, height, TILE) for x in range(0, width, TILE)]
    tiles = [
        b"" if i in left_out else imagecodecs.zlib_encode(
            np.ascontiguousarray(padded[y : y + TILE, x : x + TILE])
        )
        for i, (y, x) in enumerate(corners)
    ]  # fmt: skip
    tifffile.imwrite(
        path, iter(tiles), shape=image.shape, dtype=image.dtype, metadata=None,
        **(SCALE | {"tile": (TILE, TILE)} | _rgb(**options)),
    )  # fmt: skip
    return path
