"""Runs of equal labels in an array, line by line; components consist of runs."""

import numpy as np

from wsiseg.kernels import kernel

__all__ = ["add_runs", "find_ends", "grow", "paint_runs", "spread_runs", "sum_runs"]


@kernel
def grow(array, used, more):  # type: ignore[no-untyped-def]  # numba infers the types
    """Return `array`, or a copy at least twice as long if `more` rows do not fit after `used`."""
    if used + more <= array.shape[0]:
        return array
    larger = np.empty((max(2 * array.shape[0], used + more), array.shape[1]), array.dtype)
    for i in range(used):  # a loop compiles in a fraction of a slice's time
        for k in range(array.shape[1]):
            larger[i, k] = array[i, k]
    return larger


@kernel
def find_ends(row, ends):  # type: ignore[no-untyped-def]  # numba infers the types
    """Write the end of every run of equal labels in `row` to `ends`; return their count."""
    count = 0
    for k in range(1, row.size):
        ends[count] = k  # overwritten until a run really ends: no branch to mispredict
        count += row[k] != row[k - 1]
    ends[count] = row.size
    return count + 1


@kernel
def add_runs(row, scores, ends, count, own, runs, first):  # type: ignore[no-untyped-def]  # numba infers the types
    """Append a row's runs as (parent, label, pixels, sum of scores); the margin is not counted."""
    start = 0
    for m in range(count):
        label, end = row[start], ends[m]
        pixels, total = 0, 0
        if own:
            start = max(start, 1)
            pixels = end - start
            for k in range(start, min(end, scores.size)):
                total += scores[k]
        run = runs[first + m]
        run[0], run[1], run[2], run[3] = first + m, label, pixels, total
        start = end


@kernel
def spread_runs(ends, count, first):  # type: ignore[no-untyped-def]  # numba infers the types
    """Return the run of each pixel of a row, int32."""
    out = np.empty(ends[count - 1], np.int32)
    start = 0
    for m in range(count):
        out[start : ends[m]] = first + m
        start = ends[m]
    return out


@kernel
def sum_runs(runs, count):  # type: ignore[no-untyped-def]  # numba infers the types
    """Return label ``(C,)`` uint8 and (pixels, sum of scores) ``(C, 2)`` int64 of components."""
    labels, sums = np.empty(count, np.uint8), np.zeros((count, 2), np.int64)
    for i in range(runs.shape[0]):
        component = runs[i, 0]
        labels[component] = runs[i, 1]
        sums[component, 0] += runs[i, 2]
        sums[component, 1] += runs[i, 3]
    return labels, sums


@kernel
def paint_runs(labels, runs, new_labels):  # type: ignore[no-untyped-def]  # numba infers the types
    """Copy `labels`, giving every run the new label of its component."""
    out = np.empty_like(labels)
    ends, first = np.empty(labels.shape[1], np.int32), 0
    for i in range(labels.shape[0]):
        start, count = 0, find_ends(labels[i], ends)
        for m in range(count):
            out[i, start : ends[m]] = new_labels[runs[first + m, 0]]
            start = ends[m]
        first += count
    return out
