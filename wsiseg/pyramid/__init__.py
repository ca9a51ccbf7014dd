"""Coarser levels of images and maps: those whose part of a block would be a tiny file."""

from wsiseg.pyramid.halve import halve_confidence, halve_labels
from wsiseg.pyramid.step import plan_pyramid, write_pyramid

__all__ = ["halve_confidence", "halve_labels", "plan_pyramid", "write_pyramid"]
