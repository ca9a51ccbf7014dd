"""The order of lattice points, and their neighbours, which follow from it without any look-up.

A step along an axis adds the same to every point's number. Among points in the order of their
numbers, those one step on are so in order too: one walk through both finds all that exist.
"""

from __future__ import annotations

import numpy as np

from wsiseg.kernels import kernel

__all__ = ["compiled", "link_neighbours", "sort_keys"]

# Contraction and no signed zeros, but no reordering of sums: the result is one on any thread.
compiled = kernel(error_model="numpy", fastmath={"contract", "nsz"})
"""How every function of this back end is compiled: without the GIL, kept on disk."""

_DIGIT = 10
"""Bits that are sorted by at a time; as many counters stay in the fastest cache."""


@compiled
def sort_keys(keys, bits):  # type: ignore[no-untyped-def] # numba infers
    """Numbers of up to `bits` bits in their order, and where each was: a radix sort."""
    order = np.arange(len(keys)).astype(np.int32)
    new_order, new_keys = np.empty_like(order), np.empty_like(keys)
    for shift in range(0, bits, _DIGIT):
        free = np.zeros((1 << _DIGIT) + 1, np.int64)
        for i in range(len(keys)):
            free[_digit(keys[i], shift) + 1] += 1
        for digit in range(1 << _DIGIT):
            free[digit + 1] += free[digit]
        for i in range(len(keys)):
            digit = _digit(keys[i], shift)
            at = free[digit]
            free[digit] = at + 1
            new_keys[at], new_order[at] = keys[i], order[i]
        keys, new_keys = new_keys, keys
        order, new_order = new_order, order
    return keys, order


@compiled
def _digit(key, shift):  # type: ignore[no-untyped-def] # numba infers
    return (key >> shift) & ((1 << _DIGIT) - 1)


@compiled
def link_neighbours(keys, step, near):  # type: ignore[no-untyped-def] # numba infers
    """Fill `Lattice.near` of points whose numbers rise."""
    count = len(keys)
    for axis in range(len(step)):
        ways = near[axis]
        i, j = np.int64(0), np.int64(0)
        while i < count and j < count:  # without branches: which of both is behind is a coin's toss
            shifted, key = keys[i] + step[axis], keys[j]
            ways[i, 0] = j if shifted == key else count
            ways[j, 1] = i if shifted == key else count
            i += np.int64(shifted <= key)
            j += np.int64(key <= shifted)
        ways[i:, 0] = count
        ways[j:, 1] = count
