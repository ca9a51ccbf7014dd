"""Which outlines QuPath 0.6 and 0.7 lose part of, and where.

For its geometry, they make a `java.awt.geom.Area` of a polygon without holes. In the Java that they
bring along (not yet in Java 17, which QuPath 0.5 has), that sums up, row by row of the outline's
vertices, the edges that cross the row; each time the sum reaches 1,024, it closes the shape there
and begins another (`sun.awt.geom.AreaOp.pruneEdges`). Two such pieces have an edge in common, and
JTS's `Polygonizer`, which QuPath asks for polygons only, keeps one of them. Where the ring starts
and which way it runs does not matter, and a further vertex only makes more rows, so no way to write
the ring avoids it. The polygon is drawn whole, and `getArea` is right; what is exported again, or
placed in a hierarchy, is not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["cut_rows"]

_MOST_LINKS = 1024


def cut_rows(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where Java cuts an outline without holes: the y of each cut, from the top; mostly none.

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
