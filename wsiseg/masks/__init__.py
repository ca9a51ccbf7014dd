"""Pseudo-masks of patches: what a model makes of patches that have labels at most, as PNG files."""

from wsiseg.masks.run import MaskedPatch, write_masks

__all__ = ["MaskedPatch", "write_masks"]
