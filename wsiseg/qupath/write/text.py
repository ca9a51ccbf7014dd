"""Rings and ids as text, compiled: what is done for every vertex of a file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsiseg.kernels import kernel

__all__ = ["format_ids", "format_rings", "mark_rings"]

_ZERO, _MINUS, _DOT, _COMMA, _OPEN, _CLOSE = (np.uint8(ord(c)) for c in "0-.,[]")
_TEN, _HUNDRED = np.uint64(10), np.uint64(100)
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)


def format_rings(hundredths: NDArray[np.int64], starts: NDArray[np.intp]) -> list[bytes]:
    """Each ring as ``[[x,y],[x,y]]``, shortest: ``12``, ``12.5``, ``-12.34``.

    Parameters
    ----------
    hundredths : ``(N, 2)`` int64 x, y of all rings, one after the other, in 1/100 px.
    starts : ``(R,)`` index of each ring's first point.
    """
    if not len(hundredths):
        return []
    digits = len(str(int(np.abs(hundredths).max())))
    capacity = len(hundredths) * (2 * digits + 10) + 2 * len(starts)  # signs, dots, leading zeros
    ends = np.empty(len(starts), np.int64)
    text = np.empty(capacity, np.uint8)
    _format(hundredths, np.append(starts, len(hundredths)), text, ends)
    whole = text[: ends[-1]].tobytes()
    stops = ends.tolist()
    return [whole[a:b] for a, b in zip([0, *stops], stops, strict=False)]


@kernel
def _format(points, bounds, text, ends):  # type: ignore[no-untyped-def]  # numba infers the types
    at = 0
    for ring in range(len(ends)):
        text[at] = _OPEN
        at += 1
        for i in range(bounds[ring], bounds[ring + 1]):
            if i > bounds[ring]:
                text[at] = _COMMA
                at += 1
            text[at] = _OPEN
            at = _put(text, at + 1, points[i, 0])
            text[at] = _COMMA
            at = _put(text, at + 1, points[i, 1])
            text[at] = _CLOSE
            at += 1
        text[at] = _CLOSE
        at += 1
        ends[ring] = at


@kernel(error_model="numpy")
def _put(text, at, hundredths):  # type: ignore[no-untyped-def]  # numba infers the types
    """Write one number at `at`; the place after it."""
    if hundredths < 0:
        text[at] = _MINUS
        at += 1
        hundredths = -hundredths
    number = np.uint64(hundredths)  # division of what has no sign is twice as fast
    whole = number // _HUNDRED
    part = number - whole * _HUNDRED
    limit, digits = _TEN, 1
    while whole >= limit:
        limit *= _TEN
        digits += 1
    for place in range(at + digits - 1, at - 1, -1):
        rest = whole // _TEN
        text[place] = _ZERO + (whole - rest * _TEN)
        whole = rest
    at += digits
    if part:
        text[at] = _DOT
        text[at + 1] = _ZERO + part // _TEN
        text[at + 2] = _ZERO + part % _TEN
        at += 3 if part % _TEN else 2
    return at


@kernel
def mark_rings(points, bounds, owners, marks):  # type: ignore[no-untyped-def]  # numba infers the types
    """What tells a region from others, whatever point and way its rings start.

    Parameters
    ----------
    points : ``(N, 2)`` int32 x, y of all closed rings.
    bounds : ``(R + 1,)`` index of each ring's first point, then N.
    owners : ``(R,)`` the region of each ring, ascending; its first ring is the shell.
    marks : ``(regions, 3)`` int64, filled with x and y of the shell's first corner in reading
        order, and a sum of mixed bits over all vertices.
    """
    for ring in range(len(owners)):
        region = owners[ring]
        start, stop = bounds[ring], bounds[ring + 1] - 1  # the last point is the first again
        if ring == 0 or owners[ring - 1] != region:
            marks[region, 0], marks[region, 1] = _first_corner(points[start:stop])
            marks[region, 2] = 0
        for i in range(start, stop):
            marks[region, 2] += _mix(np.int64(points[i, 0]), np.int64(points[i, 1]))


@kernel
def _first_corner(points):  # type: ignore[no-untyped-def]  # numba infers the types
    x, y = points[0, 0], points[0, 1]
    for i in range(1, len(points)):
        if points[i, 1] < y or (points[i, 1] == y and points[i, 0] < x):
            x, y = points[i, 0], points[i, 1]
    return x, y


@kernel
def _mix(x, y):  # type: ignore[no-untyped-def]  # numba infers the types
    """The last steps of splitmix64, so that a sum, which knows no order, keeps every vertex."""
    bits = np.uint64((x << 32) ^ (y & 0xFFFFFFFF)) + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.int64(bits ^ (bits >> np.uint64(31)))


def format_ids(digests: bytes) -> list[bytes]:
    """SHA-1 digests, one after the other, as UUIDs of version 5 (RFC 9562)."""
    octets = np.frombuffer(digests, np.uint8).reshape(-1, 20)[:, :16].copy()
    octets[:, 6] = (octets[:, 6] & 0x0F) | 0x50
    octets[:, 8] = (octets[:, 8] & 0x3F) | 0x80
    letters = np.stack([_HEX[octets >> 4], _HEX[octets & 15]], axis=2).reshape(-1, 32)
    text = np.full((len(octets), 36), ord("-"), np.uint8)
    for start, stop, at in ((0, 8, 0), (8, 12, 9), (12, 16, 14), (16, 20, 19), (20, 32, 24)):
        text[:, at : at + stop - start] = letters[:, start:stop]
    whole = text.tobytes()
    return [whole[i : i + 36] for i in range(0, len(whole), 36)]
