"""Export regions as images: one of all classes with their palette, and a mask per class."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsiseg.annotations import Annotations, Palette
from wsiseg.errors import DataError
from wsiseg.export.draw import RegionRaster
from wsiseg.export.ome import color_table, describe_classes
from wsiseg.export.png import LARGEST_PNG, write_png
from wsiseg.export.pyramid import Picture, Plane, write_pyramids
from wsiseg.geometry import Box, Size

__all__ = ["export_masks", "export_png", "name_files"]

_MAX_NAME = 150  # bytes; file systems allow 255, including suffixes and temporary names
_COARSEST = 512  # largest side of a pyramid's last level


def export_png(
    annotations: Annotations, size: Size, path: str | Path, mpp: float | None = None
) -> Path:
    """Write regions as one indexed PNG: values are labels, 255 is background.

    `size` is the raster's size in the regions' own pixels; `mpp` the µm/px of the image: if not
    given, the regions' own, doubled until the image is small enough for other programs.

    Raises
    ------
    DataError
        If the image is too large at `mpp`.
    """
    raster = RegionRaster(annotations, size, mpp)
    while mpp is None and raster.size.width * raster.size.height > LARGEST_PNG:
        raster = raster.at(2 * raster.mpp)
    width, height = raster.size
    if width * height > LARGEST_PNG:
        fits = raster.mpp * (width * height / LARGEST_PNG) ** 0.5
        raise DataError(
            f"{path}: {width} x {height} px are too many for a PNG that other programs open "
            f"({LARGEST_PNG:,}); use export.mask_mpp of {fits + 0.005:.2f} or more, or ome-tiff"
        )
    return write_png(path, raster.read, raster.size, raster.mpp, color_table(annotations.palette))


def export_masks(
    annotations: Annotations,
    size: Size,
    folder: str | Path,
    mpp: float | None = None,
    workers: int | None = None,
) -> list[Path]:
    """Write a mask per class, and one image of all classes with their palette.

    PNG if the image is small enough (masks have 1 bit per pixel, black and white), else pyramidal
    OME-TIFF (masks are 0 and 255). Names give class and µm/px: ``Tumor_0.5mpp.png``,
    ``classes_0.5mpp.png``. A pixel belongs to the region that contains its centre.

    Returns
    -------
    The files, ``classes`` first.
    """
    raster, palette = RegionRaster(annotations, size, mpp), annotations.palette
    fits = raster.size.width * raster.size.height <= LARGEST_PNG
    suffix = f"_{raster.mpp:.4g}mpp.{'png' if fits else 'ome.tiff'}"
    paths = [Path(folder, name + suffix) for name in name_files(["classes", *palette.names])]
    if fits:
        _write_pngs(raster, palette, paths)
    else:
        _write_pyramids(raster, palette, paths, workers)
    return paths


def _write_pngs(raster: RegionRaster, palette: Palette, paths: Sequence[Path]) -> None:
    write_png(paths[0], raster.read, raster.size, raster.mpp, color_table(palette))
    for label, path in enumerate(paths[1:]):
        mask = partial(_read_mask, raster.read, label, 1)
        write_png(path, mask, raster.size, raster.mpp)


def _write_pyramids(
    raster: RegionRaster, palette: Palette, paths: Sequence[Path], workers: int | None
) -> None:
    levels = _halve(raster)
    sizes = tuple(level.size for level in levels)
    picture = partial(Picture, sizes=sizes, mpp=raster.mpp, block=1024)
    plane = Plane("classes", lambda level, box: levels[level].read(box))
    colors, notes = color_table(palette), describe_classes(palette)
    all_classes = picture("classes", (plane,), palette=colors, notes=notes)
    write_pyramids(paths[0], [all_classes], workers=workers)
    for label, (path, name) in enumerate(zip(paths[1:], palette.names, strict=True)):
        plane = Plane(name, partial(_read_level_mask, levels, label), palette.colors[label])
        write_pyramids(path, [picture(name, (plane,))], workers=workers)


def name_files(names: Sequence[str]) -> list[str]:
    """Return a file name for each name, valid on every system and unique even ignoring case."""
    counts: dict[str, int] = {}
    files = []
    for name in names:
        file = re.sub(r"[^\w.-]+", "_", name).strip("._ ") or "class"
        file = file.encode()[:_MAX_NAME].decode("utf-8", "ignore")
        while file.casefold() in counts:
            counts[file.casefold()] += 1
            file = f"{file}_{counts[file.casefold()]}"
        counts[file.casefold()] = 1
        files.append(file)
    return files


def _halve(raster: RegionRaster) -> list[RegionRaster]:
    """Return the raster, and rasters at twice, four times, ... its µm/px."""
    levels = [raster]
    while max(levels[-1].size) > _COARSEST:
        levels.append(raster.at(2 * levels[-1].mpp))
    return levels


def _read_mask(
    read: Callable[[Box], NDArray[np.uint8]], label: int, value: int, box: Box
) -> NDArray[np.uint8]:
    return np.where(read(box) == label, np.uint8(value), np.uint8(0))


def _read_level_mask(
    levels: Sequence[RegionRaster], label: int, level: int, box: Box
) -> NDArray[np.uint8]:
    return _read_mask(levels[level].read, label, 255, box)
