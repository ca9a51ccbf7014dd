"""From blended CAMs and gates to probabilities, and from these to labels: row by row, in cache."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from wsiseg.stitch.blend import Tiles, add_row

__all__ = ["pick_confidence", "pick_winner", "weigh_classes"]

# exp as Cephes computes it: the same bits on every machine, unlike the system's own.
_LEAST = np.float32(-87.0)
_LOG2E = np.float32(1.44269504088896341)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_P0, _P1, _P2 = (
    np.float32(1.9875691500e-4),
    np.float32(1.3981999507e-3),
    np.float32(8.3334519073e-3),
)
_P3, _P4, _P5 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(0.5)
_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_SCALE = np.float32(255)


def weigh_classes(fields: Tiles, gates: Tiles, tissue: NDArray[np.bool_]) -> NDArray[np.float32]:
    """``(K + 1, H, W)`` float32: the classes, then background; they sum to 1.

    Parameters
    ----------
    fields
        CAMs of K classes.
    gates
        One cell a tile: the K classes' gates, then whether any is let through.
    tissue
        ``(H, W)``; elsewhere all is background.
    """
    out: NDArray[np.float32] = _weigh(fields, gates, tissue)
    return out


@njit(nogil=True, cache=True)
def _weigh(fields, gates, tissue):  # type: ignore[no-untyped-def]  # numba infers the types
    classes, (height, width) = fields.cams.shape[2], tissue.shape
    out = np.zeros((classes + 1, height, width), np.float32)
    field, mass = np.empty((classes, width), np.float32), np.empty(width, np.float32)
    gate, gate_mass = np.empty((classes + 1, width), np.float32), np.empty(width, np.float32)
    row, powers = np.empty((classes + 1, width), np.float32), np.empty(width, np.int32)
    for y in range(height):
        if not tissue[y].any():
            out[classes, y] = _ONE
            continue
        add_row(fields, y, field, mass)
        add_row(gates, y, gate, gate_mass)
        _weigh_row(field, mass, gate, gate_mass, tissue[y], row, powers)
        for k in range(classes + 1):
            out[k, y] = row[k]
    return out


@njit(nogil=True, cache=True)
def _weigh_row(field, mass, gate, gate_mass, tissue, out, powers):  # type: ignore[no-untyped-def]  # numba infers the types
    classes, width = field.shape
    top, total = np.full(width, -np.inf, np.float32), np.zeros(width, np.float32)
    for x in range(width):
        gate_mass[x] = _ONE / gate_mass[x] if mass[x] > _ZERO and tissue[x] else _ZERO
        mass[x] = _ONE / mass[x] if mass[x] > _ZERO else _ZERO
    for k in range(classes):
        for x in range(width):
            field[k, x] *= mass[x]
            if gate[k, x] > _ZERO:
                top[x] = max(top[x], field[k, x])
    for k in range(classes):
        for x in range(width):
            out[k, x] = field[k, x] - top[x] if gate[k, x] > _ZERO else _LEAST
        _exp(out[k], powers)
        for x in range(width):
            out[k, x] *= gate[k, x]
            total[x] += out[k, x]
    for x in range(width):
        share = gate[classes, x] * gate_mass[x]
        total[x] = share / total[x] if total[x] > _ZERO else _ZERO
        out[classes, x] = _ONE - share if total[x] > _ZERO else _ONE
    for k in range(classes):
        for x in range(width):
            out[k, x] *= total[x]


@njit(nogil=True, cache=True)
def _exp(line, powers):  # type: ignore[no-untyped-def]  # numba infers the types
    """``exp`` in place of float32 that are at most 0; 2 units in the last place."""
    for i in range(line.size):
        x = max(line[i], _LEAST)
        whole = np.floor(x * _LOG2E + _HALF)
        x = (x - whole * _LN2_HIGH) - whole * _LN2_LOW
        y = ((((_P0 * x + _P1) * x + _P2) * x + _P3) * x + _P4) * x + _P5
        line[i] = y * x * x + x + _ONE
        powers[i] = (np.int32(whole) + np.int32(127)) << np.int32(23)
    scales = powers.view(np.float32)
    for i in range(line.size):
        line[i] *= scales[i]


@njit(nogil=True, cache=True)
def pick_winner(probabilities, possible):  # type: ignore[no-untyped-def]  # numba infers the types
    """The most probable class ``(H, W)`` uint8, of equals the first; K where it is not possible."""
    classes, height, width = probabilities.shape
    out, best = np.empty((height, width), np.uint8), np.empty(width, np.float32)
    for y in range(height):
        line = out[y]
        best[:] = probabilities[0, y]
        line[:] = 0
        for k in range(1, classes):
            for x in range(width):
                line[x] = np.uint8(k) if probabilities[k, y, x] > best[x] else line[x]
                best[x] = max(probabilities[k, y, x], best[x])
        for x in range(width):
            if not possible[y, x]:
                line[x] = np.uint8(classes - 1)
    return out


@njit(nogil=True, cache=True)
def pick_confidence(probabilities, labels):  # type: ignore[no-untyped-def]  # numba infers the types
    """Probability of each pixel's label in 255ths, ``(H, W)`` uint8."""
    out = np.empty(labels.shape, np.uint8)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            out[y, x] = np.uint8(np.rint(probabilities[labels[y, x], y, x] * _SCALE))
    return out
