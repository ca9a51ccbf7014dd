"""Export a slide's map in the formats of other tools: rasters, tables, masks, training data.

OME-TIFF (`ome.py`) holds the stitched labels of the store's rasters; all other formats hold the
outlined regions, with small ones absorbed and borders simplified according to the settings.
"""

from wsiseg.export.coco import export_coco
from wsiseg.export.earlier import (
    describe_left,
    list_files,
    list_left,
    list_written,
    note_files,
)
from wsiseg.export.formats import check_formats, check_vacant, export_slide, infer_format, place_of
from wsiseg.export.masks import export_masks, export_png
from wsiseg.export.ome import export_ome_tiff
from wsiseg.export.parquet import export_parquet

__all__ = [
    "check_formats",
    "check_vacant",
    "describe_left",
    "export_coco",
    "export_masks",
    "export_ome_tiff",
    "export_parquet",
    "export_png",
    "export_slide",
    "infer_format",
    "list_files",
    "list_left",
    "list_written",
    "note_files",
    "place_of",
]
