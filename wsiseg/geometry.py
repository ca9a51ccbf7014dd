"""Types for units, and the boxes that all steps use.

There are three frames. *Level 0*: the slide's own finest pixels (`Px0`). *Raster*: the working grid
at `mpp` micrometres per pixel, origin at the slide's (0, 0), where pixel ``i`` covers the level-0
interval ``[i * s, (i + 1) * s)`` with ``s = mpp / slide.mpp``. *Tissue mask*: a coarser raster.
"""

from __future__ import annotations

from typing import NamedTuple, NewType

__all__ = ["Box", "Microns", "Mpp", "MppXY", "Px0", "Size"]

Microns = NewType("Microns", float)
"""A length in micrometres."""

Mpp = NewType("Mpp", float)
"""Micrometres per pixel."""

Px0 = NewType("Px0", float)
"""A coordinate or length in level-0 pixels."""


class MppXY(NamedTuple):
    """Micrometres per pixel along x and along y."""

    x: Mpp
    y: Mpp


class Size(NamedTuple):
    """Width and height in pixels of the frame at hand."""

    width: int
    height: int


class Box(NamedTuple):
    """A half-open rectangle ``[x, x + width) x [y, y + height)`` in pixels of the frame at hand."""

    x: int
    y: int
    width: int
    height: int

    @property
    def right(self) -> int:
        """First column to the right of the box."""
        return self.x + self.width

    @property
    def bottom(self) -> int:
        """First row below the box."""
        return self.y + self.height

    @property
    def empty(self) -> bool:
        """Whether the box contains no pixels."""
        return self.width <= 0 or self.height <= 0

    def intersect(self, other: Box) -> Box:
        """Return the intersection; its width or height is 0 if the boxes do not overlap."""
        x, y = max(self.x, other.x), max(self.y, other.y)
        right, bottom = min(self.right, other.right), min(self.bottom, other.bottom)
        return Box(x, y, max(0, right - x), max(0, bottom - y))

    def grow(self, margin: int) -> Box:
        """Return the box grown by `margin` pixels on every side."""
        return Box(
            self.x - margin, self.y - margin, self.width + 2 * margin, self.height + 2 * margin
        )

    def slices(self, origin: Box | None = None) -> tuple[slice, slice]:
        """Return row and column slices of this box in an array that starts at `origin`'s corner."""
        x0, y0 = (origin.x, origin.y) if origin is not None else (0, 0)
        return slice(self.y - y0, self.bottom - y0), slice(self.x - x0, self.right - x0)
