"""The compiled loops: one for each factor."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import cgutils, types
from numba.extending import intrinsic

from wsiseg.kernels import kernel

__all__ = ["LOOPS", "move"]


@intrinsic  # type: ignore[untyped-decorator]  # numba has no types
def move(context: Any, target: Any, at: Any, source: Any, start: Any, count: Any) -> Any:
    """Copy `count` bytes from `source[start:]` to `target[at:]`, inside numba code.

    A pixel is copied as four bytes, the last of which the next pixel overwrites: copying three
    bytes one by one costs as much as the averaging. The target line has one spare byte at its end.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        to, to_start, of, of_start, number = values
        kinds = signature.args
        places = (
            builder.gep(context.make_array(kind)(context, builder, array).data, [index])
            for kind, array, index in ((kinds[0], to, to_start), (kinds[2], of, of_start))
        )
        cgutils.raw_memcpy(builder, *places, number, 1)
        return context.get_dummy_value()

    return types.void(target, at, source, start, count), generate


def _compile(factor: int) -> Any:
    """Compile the loop for one factor; it is several times as fast as one loop for all factors."""
    # A shift that is known when it is compiled is done in 16 bits, any other in 64.
    area = factor * factor
    bits, half = np.uint16(area.bit_length() - 1), np.uint16(area // 2)

    @kernel(error_model="numpy")
    def average(source, out):  # type: ignore[no-untyped-def]  # numba infers the types
        # Over neighbours in memory, many at a time: so sums are taken at every place of a line,
        # also where no square starts, and those that are wanted are picked last.
        flat = source.reshape(source.shape[0], source.shape[1] * 3)
        line = np.empty(flat.shape[1], np.uint16)  # 16 * 16 * 255 + 128 still fits
        mean = np.empty(flat.shape[1] + 1, np.uint8)
        picked = np.empty(3 * out.shape[1] + 1, np.uint8)
        for i in range(out.shape[0]):
            first, second = flat[i * factor], flat[i * factor + 1]
            for x in range(line.shape[0]):
                line[x] = np.uint16(first[x]) + np.uint16(second[x])
            for k in range(2, factor):
                row = flat[i * factor + k]
                for x in range(line.shape[0]):
                    line[x] += np.uint16(row[x])
            for x in range(line.shape[0] - 3 * (factor - 1)):
                total = half
                for k in range(factor):
                    total += line[x + 3 * k]
                mean[x] = np.uint8(total >> bits)
            for j in range(out.shape[1]):
                move(picked, 3 * j, mean, 3 * factor * j, 4)
            move(out, i * out.strides[0], picked, 0, 3 * out.shape[1])

    return average


LOOPS = {factor: _compile(factor) for factor in (2, 4, 8, 16)}
