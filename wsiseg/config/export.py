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
    """Regions smaller than this (µm²) take the class that they border most, without a gap; 0 keeps
    all, so that polygon areas equal the raster's. The raster itself stays as it is."""
    min_hole_um2: float = Field(default=0.0, ge=0)
    """Holes of background smaller than this (µm²) are filled with the class around them."""
    simplify_um: float = Field(default=0.0, ge=0)
    """Coarseness of the borders (µm): the square of it is the largest triangle that is cut off.
    Neighbours keep one common border; 0 keeps every pixel edge."""
    smooth: int = Field(default=0, ge=0, le=3)
    """How often the corners of the borders are rounded off, after simplifying; neighbours keep one
    common border. Each time doubles the vertices."""


class ExportConfig(Settings):
    """What is written, and how."""

    formats: tuple[ExportFormat, ...] = ("geojson",)
    """What `wsiseg annotate` writes of each slide, each in a folder of its own: `geojson` for
    QuPath; `ome-tiff`: label and confidence pyramids; `parquet`: the regions as a GeoParquet table;
    `png`: one picture, coloured by class; `masks`: a mask a class; `coco`: tiles with masks."""

    origin: Literal["qupath", "level0"] = "qupath"
    """`qupath` takes off the slide's bounds corner, as QuPath shows it; `level0` does not."""
    gzip: bool = False
    """Write `.geojson.gz`."""
    tiff_compression: Literal["deflate", "zstd"] = "deflate"
    """Of the OME-TIFF: every reader knows `deflate`; `zstd` is faster, but older ones refuse it."""
    mask_mpp: float | None = Field(default=None, gt=0)
    """µm/px of `png` and `masks`; the raster's own if null, for `png` doubled until it fits."""
    coco_tile: int | None = Field(default=None, ge=16)
    """Side of COCO's tiles in raster pixels; the grid's own tile if null."""
    coco_images: Literal["png", "jpeg"] = "png"
    """COCO's pictures: `png` keeps the store's pixels, `jpeg` takes a sixth of the room."""
    max_objects: int = Field(default=5_000, ge=0)
    """More regions are written as detections, which QuPath takes by the hundred thousand, instead
    of annotations."""
    max_vertices: int = Field(default=4_000_000, ge=1)
    """More are written in parts, each a place of the slide, which the import script loads where one
    looks: QuPath takes about half a minute and 2 GB for so many."""
    max_mb: float = Field(default=100.0, gt=0)
    """A larger file (MB) is packed as `.geojson.gz`; if that is still larger, written in parts."""
