"""Predict which outlines QuPath 0.6 and 0.7 lose part of, and where.

These versions convert a polygon without holes to a `java.awt.geom.Area`. Their bundled Java (unlike
Java 17, used by QuPath 0.5) sums up, over the rows of the outline's vertices, the edges that cross
each row; whenever the sum reaches 1,024, it closes the shape there and begins another
(`sun.awt.geom.AreaOp.pruneEdges`). Two such pieces share an edge, and JTS's `Polygonizer`, which
QuPath asks for polygons only, keeps one of them. The start and direction of the ring do not matter,
and additional vertices only add rows, so the problem cannot be avoided by writing the ring
differently. The polygon is drawn completely, and `getArea` is correct, but re-exporting it or
placing it in a hierarchy loses the other pieces.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["cut_rows"]

_MOST_LINKS = 1024


def cut_rows(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the y of each cut that Java makes in an outline without holes, top first.

    Parameters
    ----------
    ring : ``(N, 2)`` x, y, closed, in the file's pixels.
    """
    y = ring[:, 1].astype(np.float32)  # as QuPath keeps them
    rows, place = np.unique(y, return_inverse=True)
    top, bottom = np.minimum(place[:-1], place[1:]), np.maximum(place[:-1], place[1:])
    if (bottom - top).sum() < _MOST_LINKS:
        return np.empty(0)
    starts = np.bincount(top, minlength=len(rows)) - np.bincount(bottom, minlength=len(rows))
    sums = np.cumsum(np.cumsum(starts)[:-1])  # of edges that cross this row and those above it
    cuts, before = [], 0
    while (row := int(np.searchsorted(sums, before + _MOST_LINKS)) + 1) < len(sums):
        cuts.append(rows[row])
        before = int(sums[row - 1])
    return np.array(cuts, np.float64)
