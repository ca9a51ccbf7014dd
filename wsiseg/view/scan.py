"""Coordinates of GeoJSON text as numbers, without a Python object each.

A slide's outlines are tens of millions of numbers; as lists they take minutes and gigabytes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsiseg.kernels import kernel

__all__ = ["scan_coordinates"]

_OPEN, _CLOSE, _COMMA, _DOT, _MINUS, _ZERO, _NINE = 91, 93, 44, 46, 45, 48, 57


def scan_coordinates(
    text: bytes, starts: NDArray[np.int64], stops: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Points, ring lengths and rings per stretch of polygons' ``coordinates``.

    Parameters
    ----------
    text
        JSON without blanks; numbers have at most two decimals and no exponent.
    starts, stops
        Where each stretch of it begins and ends.

    Returns
    -------
    ``(N, 2)`` int32 in hundredths, ``(M,)`` points of each ring, ``(len(starts),)`` rings of each.

    Raises
    ------
    ValueError
        If the text is written otherwise.
    """
    data = np.frombuffer(text, np.uint8)
    n_points, n_rings = _count(data, starts, stops)
    points = np.empty((n_points, 2), np.int32)
    lengths, rings = np.zeros(n_rings, np.int32), np.zeros(len(starts), np.int32)
    if not _fill(data, starts, stops, points, lengths, rings):
        raise ValueError("coordinates are not written as wsiseg writes them")
    return points, lengths, rings


@kernel
def _count(text, starts, stops):  # type: ignore[no-untyped-def]  # numba infers the types
    points, rings = 0, 0
    for i in range(len(starts)):
        for at in range(starts[i] + 2, stops[i]):
            if text[at] == _CLOSE:
                if _ZERO <= text[at - 1] <= _NINE:
                    points += 1
                elif text[at - 1] == _CLOSE and _ZERO <= text[at - 2] <= _NINE:
                    rings += 1
    return points, rings


@kernel
def _fill(text, starts, stops, points, lengths, rings):  # type: ignore[no-untyped-def]  # as above
    point, ring = 0, 0
    for i in range(len(starts)):
        at, stop, column, begun = starts[i], stops[i], 0, point
        while at < stop:
            byte = text[at]
            if byte == _MINUS or _ZERO <= byte <= _NINE:
                sign, value, decimals, dot = 1, 0, 0, False
                if byte == _MINUS:
                    sign, at = -1, at + 1
                while at < stop and (text[at] == _DOT or _ZERO <= text[at] <= _NINE):
                    if text[at] == _DOT:
                        if dot:
                            return False
                        dot = True
                    else:
                        value = value * 10 + (text[at] - _ZERO)
                        decimals += dot
                        if value > 2_000_000_000:
                            return False
                    at += 1
                if decimals > 2 or column > 1:
                    return False
                for _ in range(2 - decimals):
                    value *= 10
                if value > 2_000_000_000:
                    return False
                points[point, column] = sign * value
                column += 1
                continue
            if byte == _CLOSE:
                if column == 2:
                    column = 0
                    point += 1
                elif column:
                    return False
                elif text[at - 1] == _CLOSE and _ZERO <= text[at - 2] <= _NINE:
                    lengths[ring] = point - begun
                    begun = point
                    ring += 1
                    rings[i] += 1
            elif byte != _COMMA and byte != _OPEN:
                return False
            at += 1
        if column or begun != point:
            return False
    return point == len(points) and ring == len(lengths)
