"""A slide's map in other tools' formats: rasters, tables, masks, training data.

What is drawn from the store's rasters (`ome.py`) is the stitched labels; everything else is the
outlined regions, small ones absorbed and borders simplified as the settings ask.
"""

from wsiseg.export.coco import export_coco
from wsiseg.export.formats import check_formats, check_vacant, export_slide, infer_format, place_of
from wsiseg.export.masks import export_masks, export_png
from wsiseg.export.ome import export_ome_tiff
from wsiseg.export.parquet import export_parquet

__all__ = [
    "check_formats",
    "check_vacant",
    "export_coco",
    "export_masks",
    "export_ome_tiff",
    "export_parquet",
    "export_png",
    "export_slide",
    "infer_format",
    "place_of",
]
