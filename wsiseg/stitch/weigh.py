"""Turn blended CAMs and gates into probabilities and labels, row by row in the CPU cache."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsiseg.kernels import kernel
from wsiseg.stitch.blend import Tiles, add_span, make_cells

__all__ = ["Pick", "pick_confidence", "pick_labels", "weigh_classes", "weigh_labels"]

# exp as in Cephes: the same bits on every machine, unlike the system's.
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

_SPAN = 256
"""Pixels of a row processed at a time: their data fits into the fastest cache, and some classes
are gated out in all of them."""


class Pick(NamedTuple):
    """The most probable class per pixel, and the probabilities of all K classes."""

    winner: NDArray[np.uint8]
    """``(H, W)`` the most probable class, the first of equal ones; K for background."""
    shares: NDArray[np.uint8]
    """``(K, H, W)`` probability of each class in 255ths; 0 where none is possible."""
    possible: NDArray[np.bool_]
    """``(H, W)`` whether any class is possible."""


def weigh_classes(
    fields: Tiles, gates: Tiles, tissue: NDArray[np.bool_], classes: int
) -> NDArray[np.float32]:
    """Return ``(K + 1, H, W)`` float32: the classes, then background; they sum to 1.

    Parameters
    ----------
    fields
        CAMs of K classes, then of the model's background channels, if any.
    gates
        One cell per tile: the gate of each channel, then whether any is open.
    tissue
        ``(H, W)``; everything else is background.
    classes
        K.
    """
    out: NDArray[np.float32] = _weigh(fields, gates, tissue, classes)
    return out


def weigh_labels(fields: Tiles, gates: Tiles, tissue: NDArray[np.bool_], classes: int) -> Pick:
    """Do `weigh_classes` and `pick_labels` in one: faster, in a third of the memory."""
    return Pick(*_weigh_and_pick(fields, gates, tissue, classes))


def pick_labels(probabilities: NDArray[np.float32], possible: NDArray[np.bool_]) -> Pick:
    """Pick labels from ``(K + 1, H, W)`` float32; background where nothing is `possible`."""
    winner, shares = _pick(probabilities, possible)
    return Pick(winner, shares, possible)


@kernel
def _weigh(fields, gates, tissue, classes):  # type: ignore[no-untyped-def]  # numba infers the types
    height, width = tissue.shape
    out, buffers = np.zeros((classes + 1, height, width), np.float32), _make_span(fields, gates)
    for y in range(height):
        for begin in range(0, width, _SPAN):
            inside = tissue[y, begin : begin + _SPAN]
            if inside.any():
                probabilities = _weigh_span(fields, gates, y, begin, inside, buffers, classes)
                for k in range(classes + 1):
                    _copy(probabilities[k], out[k, y, begin : begin + _SPAN])
            else:
                out[classes, y, begin : begin + _SPAN] = _ONE
    return out


@kernel
def _weigh_and_pick(fields, gates, tissue, classes):  # type: ignore[no-untyped-def]  # numba infers the types
    height, width = tissue.shape
    winner, shares = _make_pick(classes, height, width)
    possible, buffers = np.zeros((height, width), np.bool_), _make_span(fields, gates)
    for y in range(height):
        for begin in range(0, width, _SPAN):
            inside = tissue[y, begin : begin + _SPAN]
            if inside.any():
                open_span = possible[y, begin:]
                probabilities = _weigh_span(fields, gates, y, begin, inside, buffers, classes)
                for x in range(inside.size):
                    open_span[x] = probabilities[classes, x] < _ONE
                best = winner[y, begin : begin + _SPAN]
                _pick_span(probabilities, open_span, best, shares, y, begin)
    return winner, shares, possible


@kernel
def _pick(probabilities, possible):  # type: ignore[no-untyped-def]  # numba infers the types
    classes, (height, width) = probabilities.shape[0] - 1, possible.shape
    winner, shares = _make_pick(classes, height, width)
    span = np.empty((classes + 1, _SPAN), np.float32)
    for y in range(height):
        for begin in range(0, width, _SPAN):
            best = winner[y, begin : begin + _SPAN]
            for k in range(classes + 1):
                _copy(probabilities[k, y, begin:], span[k, : best.size])
            _pick_span(span, possible[y, begin:], best, shares, y, begin)
    return winner, shares


@kernel
def _copy(line, out):  # type: ignore[no-untyped-def]  # numba infers the types
    for x in range(out.size):  # six times as fast as `out[:] = line`, compiled
        out[x] = line[x]


@kernel
def _make_pick(classes, height, width):  # type: ignore[no-untyped-def]  # numba infers the types
    winner = np.full((height, width), np.uint8(classes), np.uint8)
    return winner, np.zeros((classes, height, width), np.uint8)


@kernel
def _pick_span(probabilities, possible, winner, shares, y, begin):  # type: ignore[no-untyped-def]  # numba infers the types
    """Write winner and shares of a span's `probabilities` ``(K + 1, >= n)``."""
    classes, size = probabilities.shape[0] - 1, winner.size
    best = np.full(size, -_ONE, np.float32)
    for k in range(classes + 1):
        line, label = probabilities[k], np.uint8(k)
        for x in range(size):
            value, highest, previous = line[x], best[x], winner[x]
            winner[x] = label if value > highest else previous
            best[x] = max(value, highest)
    for x in range(size):
        previous = winner[x]
        winner[x] = previous if possible[x] else np.uint8(classes)
    for k in range(classes):
        line, share = probabilities[k], shares[k, y, begin : begin + size]
        for x in range(size):
            part = np.uint8(np.rint(line[x] * _SCALE))
            share[x] = part if possible[x] else np.uint8(0)


@kernel
def _make_span(fields, gates):  # type: ignore[no-untyped-def]  # numba infers the types
    """Allocate the buffers of a span: maps, gates, probabilities and four lines."""
    classes = fields.cams.shape[2]
    sums = np.empty((classes, _SPAN), np.float32), np.empty((classes + 1, _SPAN), np.float32)
    out, lines = np.empty((classes + 1, _SPAN), np.float32), np.empty((4, _SPAN), np.float32)
    return make_cells(fields), make_cells(gates), sums, out, lines, np.empty(_SPAN, np.int32)


@kernel(error_model="numpy")  # else division branches and is not vectorised
def _weigh_span(fields, gates, y, begin, tissue, buffers, classes):  # type: ignore[no-untyped-def]  # numba infers the types
    """Compute probabilities ``(K + 1, >= n)`` of a span of row `y`, in `buffers`."""
    cells, gate_cells, (field, gate), out, lines, powers = buffers
    channels, size = field.shape[0], tissue.size
    weight, gated, top, total = lines[0, :size], lines[1, :size], lines[2, :size], lines[3, :size]
    add_span(fields, y, begin, cells, field, weight)
    add_span(gates, y, begin, gate_cells, gate, gated)
    for x in range(size):
        part, known = _ONE / gated[x], (weight[x] > _ZERO) & tissue[x]
        gated[x] = part if known else _ZERO
    for x in range(size):
        part, known = _ONE / weight[x], weight[x] > _ZERO
        weight[x] = part if known else _ZERO
    top[:], total[:] = -np.inf, _ZERO
    _exp_gated(field, gate, weight, top, total, out, powers[:size])
    passed, last = gate[channels, :size], out[channels, :size]
    for x in range(size):
        share, mine = passed[x] * gated[x], total[x]
        total[x] = share / mine if mine > _ZERO else _ZERO
        last[x] = _ONE - share if mine > _ZERO else _ONE
    for k in range(channels):
        line = out[k, :size]
        for x in range(size):
            line[x] *= total[x]
    for k in range(channels - 1, classes - 1, -1):  # background channels, if any
        line, below = out[k, :size], out[k + 1, :size]
        for x in range(size):
            line[x] += below[x]
    return out[: classes + 1]


@kernel
def _exp_gated(field, gate, weight, top, total, out, powers):  # type: ignore[no-untyped-def]  # numba infers the types
    """Write ``A_k exp(G_k - top)`` to `out`, and its sum over classes to `total`."""
    # Values are loaded before one is selected: a conditional load is not vectorised.
    size = total.size
    for k in range(field.shape[0]):
        line, passed = field[k, :size], gate[k, :size]
        if _any_positive(passed):
            for x in range(size):
                value, highest = line[x] * weight[x], top[x]
                larger = max(value, highest)
                line[x] = value
                top[x] = larger if passed[x] > _ZERO else highest
    for k in range(field.shape[0]):
        line, passed, exps = field[k, :size], gate[k, :size], out[k, :size]
        if not _any_positive(passed):
            exps[:] = _ZERO
            continue
        for x in range(size):
            below = line[x] - top[x]
            exps[x] = below if passed[x] > _ZERO else _LEAST
        _exp(exps, powers)
        for x in range(size):
            exps[x] *= passed[x]
            total[x] += exps[x]


@kernel
def _any_positive(line):  # type: ignore[no-untyped-def]  # numba infers the types
    count = 0
    for x in range(line.size):  # an integer sum is vectorised; a maximum is not
        count += line[x] > _ZERO
    return count > 0


@kernel
def _exp(line, powers):  # type: ignore[no-untyped-def]  # numba infers the types
    """Compute ``exp`` in place of float32 values up to 0, to 2 units in the last place."""
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


@kernel
def pick_confidence(shares, labels):  # type: ignore[no-untyped-def]  # numba infers the types
    """Return the share ``(H, W)`` uint8 of each pixel's label; the largest for K, 0 beyond."""
    out, classes = np.zeros(labels.shape, np.uint8), shares.shape[0]
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            if labels[y, x] < classes:
                out[y, x] = shares[labels[y, x], y, x]
            elif labels[y, x] == classes:
                for k in range(classes):
                    out[y, x] = max(out[y, x], shares[k, y, x])
    return out
