"""What a map can be written as: apart from the settings, which `wsiseg --help` does not load."""

from __future__ import annotations

from typing import Literal

__all__ = ["ExportFormat"]

ExportFormat = Literal["geojson", "ome-tiff", "parquet", "png", "masks", "coco"]
"""What a slide's map is written as."""
