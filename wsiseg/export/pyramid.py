"""Write a tiled, pyramidal OME-TIFF of any size, row of blocks by row of blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain, islice
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from wsiseg.atomic import open_atomic
from wsiseg.export.ordered import map_ordered
from wsiseg.geometry import Box, Size

__all__ = ["Compression", "Picture", "Plane", "write_pyramids"]

Compression = Literal["deflate", "zstd"]
"""``deflate`` is read by everything; ``zstd`` is faster, but older readers cannot read it."""

_TILE = 512  # largest side of a tile in pixels
_CLASSIC = 2**32 - 2**25  # bytes of pixels below which 32-bit offsets suffice, with space for tags
_SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


@dataclass(frozen=True)
class Plane:
    """One channel of an image."""

    name: str
    read: Callable[[int, Box], NDArray[np.uint8]]
    """Reads pixels ``(H, W)`` uint8 of a level's box, which may reach past the level."""
    color: tuple[int, int, int] | None = None
    """Colour in which viewers show the channel."""


@dataclass(frozen=True)
class Picture:
    """One image of the file, with its levels."""

    name: str
    planes: tuple[Plane, ...]
    sizes: tuple[Size, ...]
    """Size of each level, finest first; sides are half those of the level before."""
    mpp: float
    """µm/px of the finest level."""
    block: int = 2048
    """Side of the squares in which the finest level reads fastest."""
    palette: NDArray[np.uint8] | None = None
    """``(256, 3)`` RGB of each value, for an indexed-colour image."""
    notes: dict[str, str] | None = None
    """Key-value pairs stored with the image."""


def write_pyramids(
    path: str | Path,
    pictures: Sequence[Picture],
    compression: Compression = "deflate",
    workers: int | None = None,
) -> Path:
    """Write `pictures` as the images of one OME-TIFF, each level but the finest as a SubIFD.

    The file replaces `path` when it is complete; it is a BigTIFF only if it might exceed 4 GB.
    Memory holds a few blocks per worker, and one row of compressed blocks. The bytes depend only on
    the pixels and the block size.

    Returns
    -------
    `path`.
    """
    big = sum(_bytes(picture) for picture in pictures) > _CLASSIC
    codec = tifffile.COMPRESSION.ADOBE_DEFLATE if compression == "deflate" else "zstd"
    description: str | None = _describe(pictures)
    pages = [(picture, plane) for picture in pictures for plane in picture.planes]
    with open_atomic(path) as file, tifffile.TiffWriter(file, bigtiff=big) as tiff:
        for picture, plane in pages:
            for level, size in enumerate(picture.sizes):
                side = _tile_side(picture.block)
                tiff.write(
                    _encode_level(plane, picture, level, compression, workers),
                    shape=(size.height, size.width),
                    dtype=np.uint8,
                    tile=(side, side),
                    compression=codec,
                    subifds=len(picture.sizes) - 1 if level == 0 else 0,
                    subfiletype=int(level > 0),  # 1: reduced resolution
                    description=description,
                    metadata=None,
                    **_list_tags(picture, level),
                )
                description = None  # only on the first page
    return Path(path)


def _tile_side(block: int) -> int:
    """Return the largest tile side that TIFF allows (a multiple of 16) and that divides `block`."""
    sides = [side for side in range(_TILE, 127, -16) if block % side == 0]
    return sides[0] if sides else _TILE


def _list_tags(picture: Picture, level: int) -> dict[str, object]:
    """Return the tags of resolution and colours."""
    mpp = picture.mpp * 2**level
    tags: dict[str, object] = {
        "resolution": (1e4 / mpp, 1e4 / mpp),
        "resolutionunit": "CENTIMETER",
        "photometric": "minisblack",
    }
    if picture.palette is not None:
        tags["photometric"] = "palette"
        tags["colormap"] = picture.palette.T.astype(np.uint16) * 257
    return tags


def _bytes(picture: Picture) -> int:
    """Return an upper bound of the file size: incompressible full tiles, and their offsets."""
    side = _tile_side(picture.block)
    tiles = sum(-(-size.width // side) * -(-size.height // side) for size in picture.sizes)
    return len(picture.planes) * tiles * (side * side + 1024)


def _encode_level(
    plane: Plane, picture: Picture, level: int, compression: Compression, workers: int | None
) -> Iterator[bytes]:
    """Yield every tile of one level, compressed, row by row; tiles at the edge are full as well."""
    size, tile = picture.sizes[level], _tile_side(picture.block)
    window = max(1, (picture.block >> level) // tile) * tile
    width = -(-size.width // tile) * tile
    work = partial(_encode_window, plane.read, level, compression, tile)
    boxes = [
        Box(x, y, min(window, width - x), min(window, -(-(size.height - y) // tile) * tile))
        for y in range(0, size.height, window)
        for x in range(0, width, window)
    ]
    # TIFF needs tiles row by row: a row of windows is kept, compressed, until it is complete.
    encoded = map_ordered(work, boxes, workers)
    across = -(-width // window)
    while band := list(islice(encoded, across)):
        for row in zip(*band, strict=True):
            yield from chain.from_iterable(row)


def _encode_window(
    read: Callable[[int, Box], NDArray[np.uint8]],
    level: int,
    compression: Compression,
    side: int,
    box: Box,
) -> list[list[bytes]]:
    """Return the compressed tiles of one window, by row and column."""
    pixels = read(level, box)
    return [
        [
            _encode(pixels[y : y + side, x : x + side], compression)
            for x in range(0, box.width, side)
        ]
        for y in range(0, box.height, side)
    ]


def _encode(tile: NDArray[np.uint8], compression: Compression) -> bytes:
    value = int(tile[0, 0])
    if value == tile[-1, -1] and (tile == value).all():  # most of a slide is background
        return _encode_constant(value, len(tile), compression)
    return _compress(tile, compression)


@cache
def _encode_constant(value: int, side: int, compression: Compression) -> bytes:
    return _compress(np.full((side, side), value, np.uint8), compression)


def _compress(tile: NDArray[np.uint8], compression: Compression) -> bytes:
    # The lowest compression levels: twice as fast as the next, and a tenth larger.
    if compression == "zstd":
        return bytes(imagecodecs.zstd_encode(tile.tobytes(), level=1))
    return bytes(imagecodecs.deflate_encode(tile.tobytes(), level=1))


def _describe(pictures: Sequence[Picture]) -> str:
    """Return the file's OME-XML."""
    root = ElementTree.Element("OME", {"xmlns": _SCHEMA, "Creator": "wsiseg"})
    images = [_describe_image(root, i, picture) for i, picture in enumerate(pictures)]
    first = 0
    for picture, pixels in zip(pictures, images, strict=True):
        for channel in range(len(picture.planes)):
            plane = {"IFD": first + channel, "FirstC": channel, "PlaneCount": 1}
            _add(pixels, "TiffData", plane)
        first += len(picture.planes)
    noted = [(i, picture.notes) for i, picture in enumerate(pictures) if picture.notes]
    if noted:
        annotations = _add(root, "StructuredAnnotations", {})
        for i, notes in noted:
            attributes = {"ID": f"Annotation:{i}", "Namespace": "wsiseg"}
            value = _add(_add(annotations, "MapAnnotation", attributes), "Value", {})
            for key, text in notes.items():
                _add(value, "M", {"K": key}).text = text
    return ElementTree.tostring(root).decode("ascii")


def _describe_image(root: ElementTree.Element, index: int, picture: Picture) -> ElementTree.Element:
    """Add an Image; return its Pixels, which still lack the TiffData of their planes."""
    image = _add(root, "Image", {"ID": f"Image:{index}", "Name": picture.name})
    attributes = {
        "ID": f"Pixels:{index}", "DimensionOrder": "XYCZT", "Type": "uint8",
        "SizeX": picture.sizes[0].width, "SizeY": picture.sizes[0].height,
        "SizeC": len(picture.planes), "SizeZ": 1, "SizeT": 1,
        "PhysicalSizeX": picture.mpp, "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": picture.mpp, "PhysicalSizeYUnit": "µm",
    }  # fmt: skip
    pixels = _add(image, "Pixels", attributes)
    for number, plane in enumerate(picture.planes):
        channel = {"ID": f"Channel:{index}:{number}", "Name": plane.name, "SamplesPerPixel": 1}
        if plane.color is not None:
            channel["Color"] = _signed_color(plane.color)
        _add(pixels, "Channel", channel)
    if picture.notes:
        _add(image, "AnnotationRef", {"ID": f"Annotation:{index}"})
    return pixels


def _add(
    parent: ElementTree.Element, tag: str, attributes: Mapping[str, object]
) -> ElementTree.Element:
    texts = {name: str(value) for name, value in attributes.items()}
    return ElementTree.SubElement(parent, tag, texts)


def _signed_color(color: tuple[int, int, int]) -> int:
    """Return RGBA as the signed 32-bit integer that OME stores."""
    red, green, blue = color
    packed = (red << 24) | (green << 16) | (blue << 8) | 255
    return packed - (1 << 32) if packed >= 1 << 31 else packed
