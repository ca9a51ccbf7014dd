"""Pseudo-masks: label every pixel of patches with at most image labels, as PNG files."""

from wsiseg.masks.run import MaskedPatch, write_masks

__all__ = ["MaskedPatch", "write_masks"]
