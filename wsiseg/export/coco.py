"""Export regions by tiles as a COCO data set: images, and every region's exact mask."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

import imagecodecs
import numpy as np
import orjson
from numpy.typing import NDArray

from wsiseg.annotations import BACKGROUND, Annotations, Palette
from wsiseg.atomic import open_atomic
from wsiseg.export.draw import RegionRaster, own_size
from wsiseg.export.ordered import map_ordered
from wsiseg.geometry import Box
from wsiseg.store import SlideStore
from wsiseg.text import dump_json

__all__ = ["encode_regions", "export_coco"]

_SUFFIXES = {"png": ".png", "jpeg": ".jpg"}


def export_coco(
    store: SlideStore,
    annotations: Annotations,
    folder: str | Path,
    *,
    tile: int | None = None,
    images: Literal["png", "jpeg"] = "png",
    workers: int | None = None,
) -> Path:
    """Write ``images/`` and ``annotations.json`` in COCO's format for object detection.

    Tiles are adjacent, without overlap; those without any region are left out, those at the
    raster's edge are cut. One annotation is one connected part of a region within a tile, as an
    uncompressed RLE: exact, with holes, and read by every tool that reads COCO masks. Image entries
    give slide, x and y (level-0 pixels from the annotations' origin) and µm/px. The JSON file is
    written last, so a data set that has one is complete; nothing is deleted.

    Parameters
    ----------
    tile
        Side in raster pixels; that of the store's tiles if not given.
    images
        PNG keeps the store's pixels; JPEG (quality 90) is about a sixth of the size.

    Returns
    -------
    The JSON file.
    """
    folder, side = Path(folder), tile or store.grid.tile
    (folder / "images").mkdir(parents=True, exist_ok=True)
    raster = RegionRaster(annotations, own_size(store, annotations), store.mpp)
    stem = re.sub(r"[^\w.-]+", "_", Path(annotations.slide).stem)
    work = partial(_export_window, store, raster, side, folder / "images" / stem, _SUFFIXES[images])
    windows = _split(store.grid.box, side * max(1, store.grid.block // side))
    # Annotations are collected in a temporary file, since all images are listed first.
    with (
        tempfile.TemporaryFile() as pending,
        open_atomic(folder / "annotations.json") as file,
    ):
        info = dump_json(_describe(annotations, store.mpp))
        file.write(b'{"info":' + info + b',"licenses":[],\n')
        file.write(b'"categories":' + dump_json(_list_categories(annotations.palette)))
        file.write(b',\n"images":[\n')
        numbers = _Numbers()
        for tiles in map_ordered(work, windows, workers):
            for each in tiles:
                _write_tile(each, annotations, file, pending, numbers)
        file.write(b'\n],\n"annotations":[\n')
        pending.seek(0)
        while part := pending.read(1 << 20):
            file.write(part)
        file.write(b"\n]}\n")
    return folder / "annotations.json"


@dataclass
class _Numbers:
    """Numbers of images and annotations written so far; ids count from 1."""

    image: int = 0
    annotation: int = 0


@dataclass(frozen=True)
class _Tile:
    """One tile, whose image is written, and its regions."""

    file_name: str
    box: Box
    mpp: float
    regions: list[dict[str, Any]]


def _split(box: Box, side: int) -> list[Box]:
    """Return squares that cover the box, row by row; the last ones are cut."""
    return [
        Box(x, y, side, side).intersect(box)
        for y in range(box.y, box.bottom, side)
        for x in range(box.x, box.right, side)
    ]


def _export_window(
    store: SlideStore, raster: RegionRaster, side: int, stem: Path, suffix: str, window: Box
) -> list[_Tile]:
    """Write the images of the tiles in a window that contain regions."""
    labels = raster.read(window)
    if labels.min() == BACKGROUND:  # the largest label
        return []
    # About a block at a time: tile by tile, each chunk would be decoded several times.
    pixels, confidence = store.read_image(window), store.read_confidence(window)
    tiles = []
    for box in _split(window, side):
        part = box.slices(window)
        if labels[part].min() < BACKGROUND:
            path = Path(f"{stem}_x{box.x}_y{box.y}{suffix}")
            _write_image(path, pixels[part])
            regions = list(encode_regions(labels[part], confidence[part]))
            tiles.append(_Tile(path.name, box, store.mpp, regions))
    return tiles


def _write_image(path: Path, pixels: NDArray[np.uint8]) -> None:
    # With imagecodecs, as Pillow takes 1.5 times as long and its files are not smaller.
    if path.suffix == ".png":
        data = imagecodecs.png_encode(pixels, level=1)
    else:
        data = imagecodecs.jpeg_encode(pixels, level=90)
    with open_atomic(path) as file:
        file.write(data)


def encode_regions(
    labels: NDArray[np.uint8], confidence: NDArray[np.uint8]
) -> Iterator[dict[str, Any]]:
    """Yield a COCO annotation, without id, for every 4-connected region of a tile ``(H, W)``.

    In order of label, then of first pixel. ``area`` counts pixels, ``bbox`` is the tightest ``x, y,
    width, height``, ``confidence`` the mean in 0..1.
    """
    import scipy.ndimage  # heavy, and needed only for COCO

    for label in np.flatnonzero(np.bincount(labels.ravel(), minlength=256)[:BACKGROUND]).tolist():
        parts, count = scipy.ndimage.label(labels == label)
        areas = np.bincount(parts.ravel(), minlength=count + 1)
        sums = np.bincount(parts.ravel(), confidence.ravel(), count + 1)
        runs = _encode_runs(parts, count)
        for part, (rows, cols) in enumerate(scipy.ndimage.find_objects(parts), start=1):
            yield {
                "category_id": label + 1,
                "iscrowd": 0,
                "area": int(areas[part]),
                "bbox": [
                    cols.start, rows.start, cols.stop - cols.start, rows.stop - rows.start,
                ],
                "confidence": round(float(sums[part] / areas[part] / 255), 4),
                "segmentation": {"size": list(labels.shape), "counts": runs[part - 1]},
            }  # fmt: skip


def _encode_runs(parts: NDArray[np.integer[Any]], count: int) -> list[list[int]]:
    """Return the lengths of runs outside and inside each part, down columns, outside first."""
    flat = parts.ravel(order="F")
    starts = np.flatnonzero(np.diff(flat, prepend=-1))
    stops = np.append(starts[1:], len(flat))
    order = np.argsort(flat[starts], kind="stable")
    owner = flat[starts][order]
    edges = np.stack([starts[order], stops[order]], axis=1)
    bounds = np.searchsorted(owner, np.arange(1, count + 2))
    return [
        _trim(np.diff(np.concatenate([[0], edges[a:b].ravel(), [len(flat)]])).tolist())
        for a, b in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    ]


def _trim(counts: list[int]) -> list[int]:
    """Remove an empty last run."""
    return counts if counts[-1] else counts[:-1]


def _write_tile(
    tile: _Tile, annotations: Annotations, images: BinaryIO, pending: BinaryIO, numbers: _Numbers
) -> None:
    numbers.image += 1
    x, y = (
        round(corner * scale - origin, 2)
        for corner, scale, origin in zip(
            tile.box[:2], _scale(annotations, tile.mpp), annotations.origin, strict=True
        )
    )
    image = {
        "id": numbers.image, "file_name": tile.file_name, "width": tile.box.width,
        "height": tile.box.height, "slide": annotations.slide, "x": x, "y": y, "mpp": tile.mpp,
    }  # fmt: skip
    images.write((b"" if numbers.image == 1 else b",\n") + dump_json(image))
    for region in tile.regions:
        numbers.annotation += 1
        entry = {"id": numbers.annotation, "image_id": numbers.image, **region}
        pending.write((b"" if numbers.annotation == 1 else b",\n") + orjson.dumps(entry))


def _scale(annotations: Annotations, mpp: float) -> tuple[float, float]:
    """Return level-0 pixels per raster pixel, x and y."""
    x, y = annotations.scale
    factor = mpp / annotations.mpp  # a power of two, so exact
    return x * factor, y * factor


def _describe(annotations: Annotations, mpp: float) -> dict[str, Any]:
    return {
        "description": f"Tissue regions of {annotations.slide}",
        "slide": annotations.slide,
        "origin": list(annotations.origin),
        "scale": _scale(annotations, mpp),
        "mpp": mpp,
        "provenance": annotations.provenance,
    }


def _list_categories(palette: Palette) -> list[dict[str, Any]]:
    """List the categories; ids are labels + 1, as COCO reserves 0 for the background."""
    return [
        {"id": label + 1, "name": name, "supercategory": "tissue", "color": list(color)}
        for label, (name, color) in enumerate(zip(palette.names, palette.colors, strict=True))
    ]
