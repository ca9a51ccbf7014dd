"""Tissue masks: detected from the slide's colours, or drawn by the user."""

from wsiseg.tissue.detect import detect_tissue
from wsiseg.tissue.settle import draw_tissue, is_drawn, is_unused_edit, settle_tissue
from wsiseg.tissue.tiles import (
    check_read,
    kept_tiles,
    mask_window,
    sample_mask,
    sample_tissue,
    tile_fractions,
)

__all__ = [
    "check_read",
    "detect_tissue",
    "draw_tissue",
    "is_drawn",
    "is_unused_edit",
    "kept_tiles",
    "mask_window",
    "sample_mask",
    "sample_tissue",
    "settle_tissue",
    "tile_fractions",
]
