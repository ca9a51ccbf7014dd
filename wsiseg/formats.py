"""Export formats of a map; not among the settings, which `wsiseg --help` does not load."""

from __future__ import annotations

from typing import Literal

__all__ = ["ExportFormat"]

ExportFormat = Literal["geojson", "ome-tiff", "parquet", "png", "masks", "coco"]
"""A format that a slide's map can be exported to."""
