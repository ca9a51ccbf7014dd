"""The permutohedral lattice of one image (Adams, Baek and Davis 2010), in numba.

Each pixel lies, by position and colour, in a simplex of six lattice points; a kernel sum is: add
each pixel's value to its corners, blur along the lattice's six axes, read the corners back. The
constant factor of the method is left out, because the symmetric normalisation cancels it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsiseg.model.crf.numbers import CORNERS, Numbers
from wsiseg.model.crf.order import compiled, link_neighbours, sort_keys

__all__ = ["Lattice", "Table", "build_lattice", "find_simplices", "find_slot", "list_corners"]

_SIX = np.float32(6)
_SIXTH = np.float32(1 / 6)
_HALF = np.float32(0.5)
_SLOTS, _SPREAD = 32, 256
"""Slots of the hash table from one place to the next, and those over which the points at one place
are spread: what is near in the image is near in the table."""
_FULL = 5
"""Eighths of the slots that are taken at most."""


class Table(NamedTuple):
    """The hash table that finds a lattice point by its number."""

    held: NDArray[np.int64]
    """The number in each slot; -1 where it is free."""
    point: NDArray[np.int32]
    """The point of that number."""


class Lattice(NamedTuple):
    """Where the pixels are on the lattice, and which lattice points are neighbours."""

    spans: NDArray[np.int32]
    """`(S, 4)`: row, first column, end and first pixel's number of each run of pixels in it."""
    corner: NDArray[np.int32]
    """`(P, 6)`: the lattice points around each pixel, span by span."""
    weight: NDArray[np.float32]
    """`(P, 6)`: their barycentric weights, times the pixel's symmetric norm."""
    near: NDArray[np.int32]
    """`(6, points, 2)`: the neighbours along each axis; `points` where there is none."""
    rows: NDArray[np.int32]
    """`(R + 1,)`: the first point of each row of points. Steps along the first two axes lead to the
    next row or the one before, along the third two rows on or back, the others stay in the row."""
    table: Table
    """Finds a point by its number."""
    reach: NDArray[np.float32]
    """`(points + 1,)`: one sent by every pixel, blurred: a pixel's kernel row sums up to what it
    reads of it."""

    @property
    def points(self) -> int:
        """How many lattice points the pixels touch."""
        return int(self.near.shape[1])


def build_lattice(
    image: NDArray[np.uint8], spans: NDArray[np.int32], numbers: Numbers, most_points: int
) -> Lattice | None:
    """The lattice of the pixels in `spans` of a `(3, H, W)` uint8 image.

    `None` if it needs over `most_points` points.
    """
    pixels = int(spans[-1, 3] + spans[-1, 2] - spans[-1, 1])
    corner = np.empty((pixels, CORNERS), np.int32)
    weight = np.empty((pixels, CORNERS), np.float32)
    slots = max(1 << 12, 1 << (2 * pixels - 1).bit_length())
    keys = np.empty(slots // 8 * _FULL, np.int64)
    held, point = np.full(slots, -1, np.int64), np.empty(slots, np.int32)
    keys, held, point = _place_pixels(
        image, spans, numbers, most_points, keys, held, point, corner, weight
    )
    if not 0 < len(keys) <= most_points:
        return None
    keys, order = sort_keys(keys, numbers.all_bits)
    _renumber(order, held, point, corner)
    near = np.empty((CORNERS, len(keys), 2), np.int32)
    link_neighbours(keys, numbers.step, near)
    reach = _fold_norm(corner, weight, near)
    firsts = np.arange(numbers.rows + 1) * numbers.columns << numbers.bits
    rows = np.searchsorted(keys, firsts).astype(np.int32)
    return Lattice(spans, corner, weight, near, rows, Table(held, point), reach)


@compiled
def _place_pixels(image, spans, numbers, most_points, keys, held, point, corner, weight):  # type: ignore[no-untyped-def] # numba infers
    """Fill `corner` and `weight`; the points' numbers as they were met, and their `Table`.

    `keys`, `held` and `point` are empty ones, which are used unless there are more points.
    """
    widest = np.max(spans[:, 2] - spans[:, 1])
    columns = np.empty(widest, np.float32)
    rest = np.empty((CORNERS, widest), np.float32)
    rank = np.empty((CORNERS, widest), np.int32)
    origin = np.empty((CORNERS, widest), np.int32)
    count = 0
    above = -1
    for i in range(len(spans)):
        y, start, stop, first = spans[i]
        # Give up early, at the end of a strip, where the rest, if like this, would not fit.
        if y < above and count * len(corner) > most_points * first:
            return keys[:0].copy(), held, point
        above = y
        if count + CORNERS * (stop - start) > len(keys):
            more = np.empty(2 * len(keys), np.int64)
            more[:count] = keys[:count]
            keys = more
            held, point = _make_table(keys, count, 2 * len(held), numbers.bits)
        for x in range(start, stop):
            columns[x - start] = np.float32(x)
        row = np.float32(y)
        find_simplices(image[:, y, start:stop], columns, row, numbers, rest, rank, origin)
        place = (rest, rank, origin)
        count = _place_row(
            first, place, stop - start, numbers, keys, held, point, count, corner, weight
        )
        if count > most_points:
            return keys[:count].copy(), held, point
    return keys[:count].copy(), held, point


@compiled
def _place_row(first, place, width, numbers, keys, held, point, count, corner, weight):  # type: ignore[no-untyped-def] # numba infers
    """Number the corners of a row of simplices; how many points there are now."""
    rest, rank, origin = place
    around, order = np.empty(CORNERS, np.int64), np.empty(CORNERS, np.int64)
    ranked = np.empty(CORNERS, np.float32)
    for x in range(width):
        pixel = first + x
        list_corners(rest, rank, origin, x, numbers, order, ranked, around, weight[pixel])
        for i in range(CORNERS):
            key = around[i]
            slot = find_slot(key, held, numbers.bits)
            if held[slot] < 0:
                held[slot] = key
                keys[count] = key
                point[slot] = count
                count += 1
            corner[pixel, i] = point[slot]
    return count


@compiled
def _make_table(keys, count, slots, bits):  # type: ignore[no-untyped-def] # numba infers
    """A `Table` of a power of two of slots with the first `count` keys."""
    held = np.full(slots, -1, np.int64)
    point = np.empty(len(held), np.int32)
    for i in range(count):
        slot = find_slot(keys[i], held, bits)
        held[slot] = keys[i]
        point[slot] = i
    return held, point


@compiled
def list_corners(rest, rank, origin, x, numbers, order, ranked, keys, weight):  # type: ignore[no-untyped-def] # numba infers
    """The numbers of the corners of simplex `x`, and their barycentric weights.

    `order` and `ranked` are room for six: making it a pixel at a time would cost more than its use.
    """
    key = np.int64(numbers.first)
    for axis in range(CORNERS):
        at = rank[axis, x]
        ranked[at] = rest[axis, x]
        order[at] = numbers.step[axis]
        key += origin[axis, x] * numbers.factor[axis]
    weight[0] = np.float32(1) + ranked[5] - ranked[0]
    for i in range(1, CORNERS):
        weight[i] = ranked[5 - i] - ranked[6 - i]
    for i in range(CORNERS):
        keys[i] = key
        key += order[5 - i]


@compiled
def find_simplices(colours, columns, row, numbers, rest, rank, origin):  # type: ignore[no-untyped-def] # numba infers
    """For pixels of a row: the nearest point of remainder 0 (over 6), what is left, its ranks.

    Straight-line code without branches, written out so that the compiler does eight pixels at once.
    """
    scale, shift = numbers.scale, numbers.shift
    c1 = row * scale[1]
    red, green, blue = colours
    for x in range(len(red)):
        c0 = columns[x] * scale[0]
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
def find_slot(key, held, bits):  # type: ignore[no-untyped-def] # numba infers
    """The slot that holds `key`, or the free one where it would go."""
    last = np.uint64(len(held) - 1)
    # Fibonacci hashing of the colours at one place; places follow each other as in the image.
    colour = (np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)
    place = np.uint64(key >> bits) * np.uint64(_SLOTS)
    slot = (place + (colour & np.uint64(_SPREAD - 1))) & last
    # Ever larger steps, which meet every slot: next door first, away from where noise crowds.
    step = np.uint64(0)
    while held[slot] >= 0 and held[slot] != key:
        step += np.uint64(1)
        slot = (slot + step) & last
    return slot


@compiled
def _renumber(order, held, point, corner):  # type: ignore[no-untyped-def] # numba infers
    """Give the points, `order` of which says where each was before, their numbers in that order."""
    rank = np.empty(len(order), np.int32)
    for i in range(len(order)):
        rank[order[i]] = i
    for slot in range(len(held)):
        if held[slot] >= 0:
            point[slot] = rank[point[slot]]
    for pixel in range(len(corner)):
        for i in range(CORNERS):
            corner[pixel, i] = rank[corner[pixel, i]]


@compiled
def _fold_norm(corner, weight, near):  # type: ignore[no-untyped-def] # numba infers
    """Multiply each pixel's weights by 1 / sqrt(sum of its kernel row); `Lattice.reach`."""
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
    return value
