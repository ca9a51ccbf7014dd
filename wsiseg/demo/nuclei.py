"""Nuclei of a synthetic slide: where each lies, how large and dark, and what it looks like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsiseg.demo.layout import IMMUNE, MPP, NECROSIS, NODE_PX, STROMA, TUMOR, Layout

__all__ = ["REACH", "Nuclei", "scatter_nuclei"]

REACH = 64
"""No nucleus reaches further than this from its centre, level-0 pixels."""


class Nuclei(NamedTuple):
    """Nuclei in order of `y`, one entry each, ``(n,)`` float32; lengths in level-0 pixels."""

    y: NDArray[np.float32]
    x: NDArray[np.float32]
    long: NDArray[np.float32]
    """Half the length."""
    short: NDArray[np.float32]
    """Half the width."""
    angle: NDArray[np.float32]
    """Of the long axis, radians from x to y."""
    dark: NDArray[np.float32]
    """Optical density of haematoxylin."""
    pale: NDArray[np.float32]
    """How much lighter the middle is than the rim, 0..1: vesicular nuclei of a tumour."""

    def between(self, top: int, bottom: int) -> Nuclei:
        """The nuclei that may reach into rows ``top .. bottom``."""
        first, last = np.searchsorted(self.y, [top - REACH, bottom + REACH])
        return Nuclei(*(column[first:last] for column in self))


@dataclass(frozen=True)
class _Kind:
    """One sort of nucleus; sizes in µm."""

    among: tuple[int, ...]
    """Classes that it is found in."""
    spacing: float
    """Mean distance to the next."""
    share: float
    """Share of the places at that spacing that hold one."""
    long: float
    short: float
    spread: float
    """Relative scatter of the size."""
    dark: float
    pale: float = 0.0
    along_fibres: bool = False


_KINDS = (
    _Kind((TUMOR,), 9.0, 0.93, 4.4, 3.4, 0.17, 0.85, pale=0.35),
    _Kind((IMMUNE,), 7.6, 0.95, 2.9, 2.6, 0.10, 1.55),
    _Kind((STROMA,), 21.0, 0.75, 6.5, 1.5, 0.25, 1.05, along_fibres=True),
    # Necrosis: ghosts of nuclei, and debris.
    _Kind((NECROSIS,), 26.0, 0.5, 3.6, 2.9, 0.2, 0.28),
    _Kind((NECROSIS,), 11.0, 0.55, 0.9, 0.6, 0.4, 1.1),
    # Lymphocytes and mitoses strewn over the other classes: the truth ignores them.
    _Kind((STROMA, TUMOR), 36.0, 0.5, 2.9, 2.6, 0.10, 1.5),
    _Kind((TUMOR,), 60.0, 0.5, 3.4, 1.6, 0.2, 1.6),
)


def scatter_nuclei(layout: Layout, rng: np.random.Generator) -> Nuclei:
    """Place every nucleus of the slide, each kind on its own jittered grid."""
    parts = [_scatter(kind, layout, rng) for kind in _KINDS]
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.argsort(columns[0], kind="stable")
    return Nuclei(*(column[order] for column in columns))


def _scatter(kind: _Kind, layout: Layout, rng: np.random.Generator) -> Nuclei:
    step = kind.spacing / MPP
    rows, cols = (int(side / step) + 1 for side in (layout.size.height, layout.size.width))
    shape = (rows, cols)
    y, x = ((grid + rng.random(shape)).ravel() * step for grid in np.indices(shape))
    keep = (y < layout.size.height) & (x < layout.size.width) & (rng.random(y.size) < kind.share)
    y, x = y[keep], x[keep]
    keep = np.isin(layout.truth.labels[y.astype(int) // 2, x.astype(int) // 2], kind.among)
    y, x = y[keep], x[keep]
    size = np.clip(1 + kind.spread * rng.standard_normal(y.size), 0.5, 1.5) / MPP
    stretch = rng.uniform(0.9, 1.15, y.size)
    angle = rng.uniform(0, np.pi, y.size)
    if kind.along_fibres:
        angle = _fibre_angle(layout, y, x) + 0.2 * rng.standard_normal(y.size)
    dark = kind.dark * rng.uniform(0.75, 1.2, y.size)
    long, short = kind.long * size * stretch, kind.short * size / stretch
    columns = (y, x, long, short, angle, dark, np.full(y.size, kind.pale))
    return Nuclei(*(np.asarray(column, np.float32) for column in columns))


def _fibre_angle(
    layout: Layout, y: NDArray[np.float64], x: NDArray[np.float64]
) -> NDArray[np.float64]:
    rows, cols = np.rint(y / NODE_PX).astype(int), np.rint(x / NODE_PX).astype(int)
    down, right = (np.asarray(np.gradient(layout.across, axis=axis)) for axis in (0, 1))
    return np.asarray(np.arctan2(right[rows, cols], -down[rows, cols]), np.float64)
