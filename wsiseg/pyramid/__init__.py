"""Coarser levels of an image and of maps; those of which a block's part would be a tiny file."""

from wsiseg.pyramid.halve import halve_confidence, halve_labels
from wsiseg.pyramid.step import plan_pyramid, write_pyramid

__all__ = ["halve_confidence", "halve_labels", "plan_pyramid", "write_pyramid"]
