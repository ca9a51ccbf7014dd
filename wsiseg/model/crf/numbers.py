"""How lattice points are numbered: by row, then by column, then by colour."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsiseg.errors import ConfigError

__all__ = ["CORNERS", "Numbers", "number_points"]

CORNERS = 6
"""Corners of a simplex in five dimensions: two of position, three of colour."""


class Numbers(NamedTuple):
    """What turns pixels into lattice points, and these into numbers.

    Of a point's six coordinates the first three less their mean say where it is: it can only lie
    on certain rows and columns, and three of the six axes lead to other colours at one place.
    """

    scale: NDArray[np.float32]
    """`(5,)`: factors from pixels and grey levels to the lattice."""
    shift: NDArray[np.float32]
    """`(3,)`: the first three coordinates of the first pixel's place."""
    factor: NDArray[np.int64]
    """`(6,)`: what one sixth of each coordinate adds to a point's number."""
    step: NDArray[np.int64]
    """`(6,)`: what a step along each axis adds to it."""
    first: int
    """Number of the point at zero."""
    bits: int
    """Lower bits of a number, which say the colour; the others say the place."""
    all_bits: int
    """Bits of the largest number."""
    columns: int
    """Places in a row."""
    rows: int
    """How many rows there are."""


def number_points(
    height: int, width: int, sxy: float, srgb: float, corner: tuple[float, float] = (0, 0)
) -> Numbers:
    """How points are numbered for an image of `height` x `width` pixels.

    `corner` is the place (x, y) of the first pixel in a larger image: all its crops then lie on
    one lattice.

    Raises
    ------
    ConfigError
        If the standard deviations are so small that lattice points cannot be numbered.
    """
    axes = np.arange(1, CORNERS)
    unit = math.sqrt(2 / 3) * CORNERS / np.sqrt(axes * (axes + 1.0))
    scale = unit / np.array([sxy, sxy, srgb, srgb, srgb])
    top = scale * np.array([width, height, 255, 255, 255])
    slack = 4 * CORNERS
    columns = int(top[0] / 3) + 2 * slack
    rows = int(top[1]) + 2 * slack
    # Coordinates 3, 4 and 5 fall with one colour and rise with those after it.
    smallest = np.array([-3 * top[2], -4 * top[3], -5 * top[4]]) - slack
    largest = np.array([top[3] + top[4], top[4], 0]) + slack
    sizes = [int(size) + 1 for size in largest - smallest]
    bits = math.prod(sizes).bit_length()
    all_bits = bits + (columns * rows).bit_length()
    if all_bits >= 62:
        raise ConfigError(
            f"appearance_sxy = {sxy} px and appearance_srgb = {srgb} grey levels are too small for "
            f"the numba CRF on {width} x {height} px; raise them or use backend: torch"
        )
    place = 1 << bits
    colour = [0, 0, 0, 1, sizes[0], sizes[0] * sizes[1]]
    column, row = [1, -1, 0, 0, 0, 0], [1, 1, -2, 0, 0, 0]
    radix = [(row[i] * columns + column[i]) * place + CORNERS * colour[i] for i in range(CORNERS)]
    # A step raises every coordinate by one and lowers its axis' by six; by one each, places stay.
    step = [sum(colour) - radix[i] for i in range(CORNERS)]
    first = (slack * columns + slack) * place
    first += sum(int(-low) * size for low, size in zip(smallest, colour[3:], strict=True))
    return Numbers(
        scale.astype(np.float32),
        _shift(corner, sxy),
        np.array(radix, np.int64),
        np.array(step, np.int64),
        first,
        bits,
        all_bits,
        columns,
        rows,
    )


def _shift(corner: tuple[float, float], sxy: float) -> NDArray[np.float32]:
    """The first three lattice coordinates of a corner, less the lattice point next to it.

    Lattice points of remainder 0 are multiples of six that sum to zero; a move by one of them maps
    the lattice onto itself, so only what is left over counts.
    """
    unit = math.sqrt(2 / 3) * CORNERS / sxy
    x, y = unit / math.sqrt(2) * corner[0], unit / math.sqrt(6) * corner[1]
    first, second = (e - CORNERS * round(e / CORNERS) for e in (y + x, y - x))
    return np.array([first, second, -first - second], np.float32)
