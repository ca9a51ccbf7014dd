"""The resolution at which a slide is tiled: µm/px, tiles, and what is said of a coarser slide."""

from __future__ import annotations

from collections.abc import Sequence

from wsiseg.config import TileConfig
from wsiseg.geometry import Mpp
from wsiseg.grid import TileGrid
from wsiseg.slide import Slide

__all__ = ["describe_enlargement", "plan_grid", "working_mpp"]

_ENLARGED = 1.2
"""Slides of more than so many times the µm/px of their tiles are told."""


def working_mpp(slide: Slide, config: TileConfig) -> Mpp:
    """Return the µm/px at which a slide is tiled.

    The integer multiple of the slide's own µm/px that is nearest to ``config.mpp``, if it differs
    by at most ``config.mpp_tolerance`` on both axes: pixels are then averaged, never interpolated.
    Otherwise ``config.mpp`` itself.
    """
    target = config.tiling.mpp
    multiple = round(target / slide.mpp.x)
    difference = max(abs(multiple * own - target) for own in slide.mpp)
    if multiple >= 1 and difference <= config.mpp_tolerance * target:
        return Mpp(multiple * slide.mpp.x)
    return Mpp(target)


def describe_enlargement(own: Sequence[float], mpp: float) -> tuple[str, ...]:
    """Return a note if a slide of `own` µm/px has to be enlarged to `mpp`, over 20 %."""
    factor = max(own) / mpp
    if factor <= _ENLARGED:
        return ()
    note = (
        f"has {max(own):.3g} µm/px and is enlarged {factor:.2g} times to {mpp:.3g}, so finer "
        f"structures, which the model was taught on, are missing; expect a worse map"
    )
    return (note,)


def plan_grid(slide: Slide, config: TileConfig) -> tuple[TileGrid, Mpp]:
    """Return the tiles of a slide, and the µm/px of their raster.

    Raises
    ------
    GeometryError
        If tile, stride and block are not compatible.
    """
    mpp = working_mpp(slide, config)
    size = slide.raster_size(mpp)
    _, tile, stride, block = config.tiling
    return TileGrid(size.height, size.width, tile, stride, block), mpp
