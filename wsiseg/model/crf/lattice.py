"""The permutohedral lattice of one image (Adams, Baek and Davis 2010), in numba.

Each pixel lies, by position and colour, in a simplex of six lattice points; a kernel sum is: add
each pixel's value to its corners, blur along the lattice's six axes, read the corners back. The
constant factor of the method is left out, because the symmetric normalisation cancels it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from wsiseg.errors import ConfigError
from wsiseg.model.crf.lanes import LANES, add_scaled, load, store

__all__ = ["CORNERS", "Lattice", "blur", "build_lattice", "compiled"]

CORNERS = 6
"""Corners of a simplex in five dimensions: two of position, three of colour."""

STRIP = 256
"""Columns that are handled together, so that what neighbours share stays in the cache."""

# Contraction and no signed zeros, but no reordering of sums: the result is one on any thread.
compiled = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "nsz"})
"""How every function of this back end is compiled: without the GIL, kept on disk."""

_SIX = np.float32(6)
_SIXTH = np.float32(1 / 6)
_HALF = np.float32(0.5)
_ONE = np.int32(1)


class Lattice(NamedTuple):
    """Where the pixels are on the lattice, and which lattice points are neighbours."""

    corner: NDArray[np.int32]
    """`(H * W, 6)`: the lattice points around each pixel, strip of columns by strip, row by row."""
    weight: NDArray[np.float32]
    """`(H * W, 6)`: their barycentric weights, times the pixel's symmetric norm."""
    near: NDArray[np.int32]
    """`(6, points, 2)`: the neighbours along each axis; `points` where there is none."""

    @property
    def points(self) -> int:
        """How many lattice points the image touches."""
        return int(self.near.shape[1])


def build_lattice(
    image: NDArray[np.uint8],
    sxy: float,
    srgb: float,
    most_points: int,
    corner: tuple[int, int] = (0, 0),
) -> Lattice | None:
    """The lattice of a `(3, H, W)` uint8 image, or `None` if it needs over `most_points` points.

    `corner` is the place (x, y) of the first pixel in a larger image: all its crops then lie on
    one lattice.

    Raises
    ------
    ConfigError
        If the standard deviations are so small that lattice points cannot be numbered.
    """
    _, height, width = image.shape
    scale, radix = _scale_and_radix(height, width, sxy, srgb)
    shift = _shift(corner, sxy)
    around = np.empty((height * width, CORNERS), np.int32)
    weight = np.empty((height * width, CORNERS), np.float32)
    keys, table = _place_pixels(image, scale, shift, radix, most_points, around, weight)
    if not 0 < len(keys) <= most_points:
        return None
    near = np.empty((CORNERS, len(keys), 2), np.int32)
    _link_neighbours(keys, table, radix, near)
    _fold_norm(around, weight, near)
    return Lattice(around, weight, near)


def _shift(corner: tuple[int, int], sxy: float) -> NDArray[np.float32]:
    """The first three lattice coordinates of a corner, less the lattice point next to it.

    Lattice points of remainder 0 are multiples of six that sum to zero; a move by one of them maps
    the lattice onto itself, so only what is left over counts.
    """
    unit = math.sqrt(2 / 3) * CORNERS / sxy
    x, y = unit / math.sqrt(2) * corner[0], unit / math.sqrt(6) * corner[1]
    first, second = (e - CORNERS * round(e / CORNERS) for e in (y + x, y - x))
    return np.array([first, second, -first - second], np.float32)


def _scale_and_radix(
    height: int, width: int, sxy: float, srgb: float
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Factors from pixels and grey levels to the lattice, and the weights of a point's number.

    A point's number is the sum of its coordinates times `radix`; it is unique within the image.
    """
    axes = np.arange(1, CORNERS)
    unit = math.sqrt(2 / 3) * CORNERS / np.sqrt(axes * (axes + 1.0))
    scale = unit / np.array([sxy, sxy, srgb, srgb, srgb])
    top = scale * np.array([width, height, 255, 255, 255])
    radix = [0] * CORNERS
    step = 1
    for axis in range(CORNERS - 1):
        radix[axis] = step
        low = axis * top[axis - 1] if axis else 0.0
        step *= int(low + top[axis:].sum()) + 8 * CORNERS
    if step >= 2**62:
        raise ConfigError(
            f"appearance_sxy = {sxy} px and appearance_srgb = {srgb} grey levels are too small for "
            f"the numba CRF on {width} x {height} px; raise them or use backend: torch"
        )
    return scale.astype(np.float32), np.array(radix, np.int64)


@compiled
def _place_pixels(image, scale, shift, radix, most_points, corner, weight):  # type: ignore[no-untyped-def] # numba infers
    """Fill `corner` and `weight`; the points' numbers and the hash table that finds them."""
    _, height, width = image.shape
    strip = min(width, STRIP)
    rest = np.empty((CORNERS, strip), np.float32)
    rank = np.empty((CORNERS, strip), np.int32)
    origin = np.empty((CORNERS, strip), np.int32)
    keys = np.empty(1 << 12, np.int64)
    table = np.full(4 * len(keys), -1, np.int32)
    count = 0
    for start in range(0, width, STRIP):
        stop = min(start + STRIP, width)
        for y in range(height):
            if count + CORNERS * STRIP > len(keys):
                keys, table = _grow(keys, count)
            colours = image[:, y, start:stop]
            _find_simplices(colours, start, y, scale, shift, rest, rank, origin)
            first = start * height + y * (stop - start)
            count = _place_row(
                first, rest, rank, origin, stop - start, radix, keys, table, count, corner, weight
            )
            if count > most_points:
                return keys[:count].copy(), table
        # Give up early where the rest of the image, if like this, would not fit.
        if count * width > most_points * stop:
            return keys[:0].copy(), table
    return keys[:count].copy(), table


@compiled
def _place_row(first, rest, rank, origin, width, radix, keys, table, count, corner, weight):  # type: ignore[no-untyped-def] # numba infers
    """Number the corners of a row of simplices; how many points there are now."""
    order = np.empty(CORNERS, np.int64)
    ranked = np.empty(CORNERS, np.float32)
    turn = radix.sum()
    for x in range(width):
        pixel = first + x
        key = np.int64(0)
        for axis in range(CORNERS):
            at = rank[axis, x]
            ranked[at] = rest[axis, x]
            order[at] = radix[axis]
            key += CORNERS * origin[axis, x] * radix[axis]
        weight[pixel, 0] = np.float32(1) + ranked[5] - ranked[0]
        for i in range(1, CORNERS):
            weight[pixel, i] = ranked[5 - i] - ranked[6 - i]
        for i in range(CORNERS):
            slot = _find_slot(key, keys, table)
            point = table[slot]
            if point < 0:
                point = count
                keys[count] = key
                table[slot] = count
                count += 1
            corner[pixel, i] = point
            key += turn - CORNERS * order[5 - i]
    return count


@compiled
def _find_simplices(colours, left, y, scale, shift, rest, rank, origin):  # type: ignore[no-untyped-def] # numba infers
    """For a row of pixels: the nearest point of remainder 0 (over 6), what is left, its ranks.

    Straight-line code without branches, written out so that the compiler does eight pixels at once.
    """
    c1 = np.float32(y) * scale[1]
    red, green, blue = colours
    for x in range(len(red)):
        c0 = np.float32(left + x) * scale[0]
        c2 = np.float32(red[x]) * scale[2]
        c3 = np.float32(green[x]) * scale[3]
        c4 = np.float32(blue[x]) * scale[4]
        e5 = -np.float32(5) * c4
        e4 = c4 - np.float32(4) * c3
        e3 = c4 + c3 - np.float32(3) * c2
        e2 = c4 + c3 + c2 - np.float32(2) * c1 + shift[2]
        e1 = c4 + c3 + c2 + c1 - c0 + shift[1]
        e0 = c4 + c3 + c2 + c1 + c0 + shift[0]
        q0 = np.floor(e0 * _SIXTH + _HALF)
        q1 = np.floor(e1 * _SIXTH + _HALF)
        q2 = np.floor(e2 * _SIXTH + _HALF)
        q3 = np.floor(e3 * _SIXTH + _HALF)
        q4 = np.floor(e4 * _SIXTH + _HALF)
        q5 = np.floor(e5 * _SIXTH + _HALF)
        d0 = e0 - _SIX * q0
        d1 = e1 - _SIX * q1
        d2 = e2 - _SIX * q2
        d3 = e3 - _SIX * q3
        d4 = e4 - _SIX * q4
        d5 = e5 - _SIX * q5
        over = np.int32(q0 + q1 + q2 + q3 + q4 + q5)
        b01 = np.int32(d0 < d1)
        b02 = np.int32(d0 < d2)
        b03 = np.int32(d0 < d3)
        b04 = np.int32(d0 < d4)
        b05 = np.int32(d0 < d5)
        b12 = np.int32(d1 < d2)
        b13 = np.int32(d1 < d3)
        b14 = np.int32(d1 < d4)
        b15 = np.int32(d1 < d5)
        b23 = np.int32(d2 < d3)
        b24 = np.int32(d2 < d4)
        b25 = np.int32(d2 < d5)
        b34 = np.int32(d3 < d4)
        b35 = np.int32(d3 < d5)
        b45 = np.int32(d4 < d5)
        # Ranks by falling remainder, moved by `over` so that the coordinates sum to zero.
        r0 = over + b01 + b02 + b03 + b04 + b05
        r1 = over + 1 - b01 + b12 + b13 + b14 + b15
        r2 = over + 2 - b02 - b12 + b23 + b24 + b25
        r3 = over + 3 - b03 - b13 - b23 + b34 + b35
        r4 = over + 4 - b04 - b14 - b24 - b34 + b45
        r5 = over + 5 - b05 - b15 - b25 - b35 - b45
        w0 = np.int32(r0 < 0) - np.int32(r0 > 5)
        w1 = np.int32(r1 < 0) - np.int32(r1 > 5)
        w2 = np.int32(r2 < 0) - np.int32(r2 > 5)
        w3 = np.int32(r3 < 0) - np.int32(r3 > 5)
        w4 = np.int32(r4 < 0) - np.int32(r4 > 5)
        w5 = np.int32(r5 < 0) - np.int32(r5 > 5)
        rank[0, x] = r0 + 6 * w0
        rank[1, x] = r1 + 6 * w1
        rank[2, x] = r2 + 6 * w2
        rank[3, x] = r3 + 6 * w3
        rank[4, x] = r4 + 6 * w4
        rank[5, x] = r5 + 6 * w5
        rest[0, x] = d0 * _SIXTH - np.float32(w0)
        rest[1, x] = d1 * _SIXTH - np.float32(w1)
        rest[2, x] = d2 * _SIXTH - np.float32(w2)
        rest[3, x] = d3 * _SIXTH - np.float32(w3)
        rest[4, x] = d4 * _SIXTH - np.float32(w4)
        rest[5, x] = d5 * _SIXTH - np.float32(w5)
        origin[0, x] = np.int32(q0) + w0
        origin[1, x] = np.int32(q1) + w1
        origin[2, x] = np.int32(q2) + w2
        origin[3, x] = np.int32(q3) + w3
        origin[4, x] = np.int32(q4) + w4
        origin[5, x] = np.int32(q5) + w5


@compiled
def _find_slot(key, keys, table):  # type: ignore[no-untyped-def] # numba infers
    """The slot that holds `key`, or the free one where it would go."""
    last = np.uint64(len(table) - 1)
    # Fibonacci hashing: the upper half of the product is well mixed.
    slot = ((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & last
    while True:
        point = table[slot]
        if point < 0 or keys[point] == key:
            return slot
        slot = (slot + np.uint64(1)) & last


@compiled
def _grow(keys, count):  # type: ignore[no-untyped-def] # numba infers
    """Twice the room: the keys so far, and a table that holds them."""
    more = np.empty(2 * len(keys), np.int64)
    more[:count] = keys[:count]
    table = np.full(4 * len(more), -1, np.int32)
    for point in range(count):
        table[_find_slot(more[point], more, table)] = point
    return more, table


@compiled
def _link_neighbours(keys, table, radix, near):  # type: ignore[no-untyped-def] # numba infers
    """Fill `near`: a look-up one way along each axis gives the other way, too."""
    count = len(keys)
    turn = radix.sum()
    for axis in range(CORNERS):
        near[axis] = count
        step = turn - CORNERS * radix[axis]
        for point in range(count):
            other = table[_find_slot(keys[point] + step, keys, table)]
            if other >= 0:
                near[axis, point, 0] = other
                near[axis, other, 1] = point


@compiled
def _fold_norm(corner, weight, near):  # type: ignore[no-untyped-def] # numba infers
    """Multiply each pixel's weights by 1 / sqrt(sum of its kernel row)."""
    count = near.shape[1]
    value = np.zeros(count + 1, np.float32)
    other = np.zeros(count + 1, np.float32)
    for pixel in range(len(corner)):
        for i in range(CORNERS):
            value[corner[pixel, i]] += weight[pixel, i]
    for axis in range(CORNERS):
        for point in range(count):
            sides = value[near[axis, point, 0]] + value[near[axis, point, 1]]
            other[point] = value[point] + _HALF * sides
        value, other = other, value
    for pixel in range(len(corner)):
        total = np.float32(0)
        for i in range(CORNERS):
            total += weight[pixel, i] * value[corner[pixel, i]]
        norm = np.float32(1) / np.sqrt(total)
        for i in range(CORNERS):
            weight[pixel, i] *= norm


@compiled
def blur(value, other, near, lanes):  # type: ignore[no-untyped-def] # numba infers
    """Blur flat `(points + 1) * lanes` values along the six axes; the last point stays zero.

    The result is in `value` again; `other` is room of the same size.
    """
    for axis in range(CORNERS):
        for point in range(near.shape[1]):
            left = near[axis, point, 0] * lanes
            right = near[axis, point, 1] * lanes
            here = point * lanes
            for k in range(0, lanes, LANES):
                total = add_scaled(load(value, here + k), _HALF, load(value, left + k))
                store(other, here + k, add_scaled(total, _HALF, load(value, right + k)))
        value, other = other, value
