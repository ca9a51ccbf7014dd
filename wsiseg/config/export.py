"""From labels to regions and files."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from wsiseg.config.model import Settings
from wsiseg.formats import ExportFormat

__all__ = ["ExportConfig", "OutlineConfig"]


class OutlineConfig(Settings):
    """From labels to regions."""

    min_area_um2: float = Field(default=0.0, ge=0)
    """Regions smaller than this (µm²) are merged into the class with which they share most border,
    without gaps. Those that no larger region reaches become one of the largest's class if together
    they are large enough, otherwise they are left out. 0 keeps all, so that polygon areas equal the
    raster's. The raster is not changed."""
    min_hole_um2: float = Field(default=0.0, ge=0)
    """Background holes smaller than this (µm²) are filled with the surrounding class."""
    simplify_um: float = Field(default=0.0, ge=0)
    """Tolerance of simplified borders (µm): the square of it is the largest triangle that is
    removed. Neighbouring regions keep a common border; 0 keeps every pixel edge."""
    smooth: int = Field(default=0, ge=0, le=3)
    """How many times corners are rounded after simplifying; neighbouring regions keep a common
    border. Each time doubles the vertices."""


class ExportConfig(Settings):
    """Which files are written, and how."""

    formats: tuple[ExportFormat, ...] = ("geojson",)
    """The formats that `wsiseg annotate` writes, each in its own folder: `geojson` for QuPath;
    `ome-tiff`: label and confidence pyramids; `parquet`: regions as a GeoParquet table; `png`: one
    picture, coloured by class; `masks`: one mask per class; `coco`: tiles with masks."""

    origin: Literal["qupath", "level0"] = "qupath"
    """`qupath` subtracts the corner of the slide's bounds, as QuPath shows the slide; `level0` does
    not."""
    gzip: bool = False
    """Write `.geojson.gz`."""
    tiff_compression: Literal["deflate", "zstd"] = "deflate"
    """Compression of the OME-TIFF: every reader supports `deflate`; `zstd` is faster, but older
    readers reject it."""
    mask_mpp: float | None = Field(default=None, gt=0)
    """µm/px of `png` and `masks`; if null, the raster's own, doubled for `png` until it fits."""
    coco_tile: int | None = Field(default=None, ge=16)
    """Side of COCO tiles in raster pixels; the grid's tile if null."""
    coco_images: Literal["png", "jpeg"] = "png"
    """Images for COCO: `png` keeps the store's pixels, `jpeg` takes a sixth of the space."""
    max_objects: int = Field(default=5_000, ge=0)
    """More regions than this are written as detections, of which QuPath handles hundreds of
    thousands, instead of annotations."""
    max_vertices: int = Field(default=4_000_000, ge=1)
    """More vertices than this are written in parts, each covering one area of the slide; the import
    script loads those in view. QuPath needs about half a minute and 2 GB for this many."""
    max_mb: float = Field(default=100.0, gt=0)
    """A larger file (MB) is compressed to `.geojson.gz`; if that is still larger, it is written in
    parts."""
