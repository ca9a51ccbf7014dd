"""Eight float32 in one register, as a numba type: what the lattice's inner loops are made of.

Numba's own vectoriser guards every short loop against overlapping arrays, which costs four times
the loop itself. LLVM maps these vectors to AVX, to two SSE or NEON registers, or to scalars.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped] # ships no types
from numba.core import types
from numba.extending import intrinsic, models, register_model

__all__ = ["LANES", "add_scaled", "exp", "highest", "load", "scaled", "store", "sum_of", "times"]

LANES = 8
"""Floats in a vector."""

_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_INTEGERS = ir.VectorType(ir.IntType(32), LANES)
_CONTRACT = ("contract",)
_LOG2_E = 1.4426950408889634
# Taylor series of 2^x; on [-1/2, 1/2] within 2e-8 of it, finer than float32.
_POWERS = (
    1.540353039338161e-4,
    1.3333558146428443e-3,
    9.618129107628477e-3,
    5.550410866482158e-2,
    2.402265069591007e-1,
    6.931471805599453e-1,
    1.0,
)


class _LanesType(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Lanes")


_lanes = _LanesType()


@register_model(_LanesType)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc] # numba ships no types
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


def _pointer(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), _VECTOR.as_pointer())


def _spread(builder: Any, number: Any) -> Any:
    empty = ir.Constant(_VECTOR, ir.Undefined)
    one = builder.insert_element(empty, number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, empty, ir.Constant(_INTEGERS, [0] * LANES))


def _constant(value: float) -> Any:
    return ir.Constant(_VECTOR, [value] * LANES)


def _fold(builder: Any, vector: Any, join: Any) -> Any:
    """Join the lanes by halves, always in the same order; the result is one float."""
    empty = ir.Constant(_VECTOR, ir.Undefined)
    for half in (4, 2, 1):
        order = [(i + half) % LANES for i in range(LANES)]
        other = builder.shuffle_vector(vector, empty, ir.Constant(_INTEGERS, order))
        vector = join(vector, other)
    return builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))


def _larger(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


@intrinsic  # type: ignore[untyped-decorator] # numba ships no types
def load(typing: Any, array: Any, at: Any) -> Any:
    """Eight floats of a flat float32 array from `at` on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], *args)
        return builder.load(pointer, align=4)

    return _lanes(array, types.intp), generate


@intrinsic  # type: ignore[untyped-decorator] # numba ships no types
def store(typing: Any, array: Any, at: Any, value: Any) -> Any:
    """Write eight floats to a flat float32 array from `at` on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], *args[:2])
        builder.store(args[2], pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@intrinsic  # type: ignore[untyped-decorator] # numba ships no types
def scaled(typing: Any, factor: Any, value: Any) -> Any:
    """`factor * value` with one float32 factor."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fmul(_spread(builder, args[0]), args[1], flags=_CONTRACT)

    return value(types.float32, value), generate


@intrinsic  # type: ignore[untyped-decorator] # numba ships no types
def add_scaled(typing: Any, total: Any, factor: Any, value: Any) -> Any:
    """`total + factor * value` with one float32 factor."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        product = builder.fmul(_spread(builder, args[1]), args[2], flags=_CONTRACT)
        return builder.fadd(args[0], product, flags=_CONTRACT)

    return total(total, types.float32, value), generate


@intrinsic  # type: ignore[untyped-decorator] # numba ships no types
def times(typing: Any, a: Any, b: Any) -> Any:
    """Lane by lane product."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fmul(*args)

    return a(a, b), generate


@intrinsic  # type: ignore[untyped-decorator] # numba ships no types
def sum_of(typing: Any, value: Any) -> Any:
    """Sum over the lanes, a float32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _fold(builder, args[0], builder.fadd)

    return types.float32(value), generate


@intrinsic  # type: ignore[untyped-decorator] # numba ships no types
def highest(typing: Any, value: Any) -> Any:
    """Largest lane, a float32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _fold(builder, args[0], lambda a, b: _larger(builder, a, b))

    return types.float32(value), generate


@intrinsic  # type: ignore[untyped-decorator] # numba ships no types
def exp(typing: Any, value: Any, less: Any) -> Any:
    """`exp(value - less)` for differences of at most zero; below -42 it stays at 1e-18."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        shifted = builder.fsub(args[0], _spread(builder, args[1]))
        power = builder.fmul(shifted, _constant(_LOG2_E))
        # Products with smaller numbers would be denormal, which costs a hundred cycles each.
        power = _larger(builder, power, _constant(-60.0))
        # Cutting off the fraction rounds to nearest here, as `power` is never positive.
        exponent = builder.fptosi(builder.fsub(power, _constant(0.5)), _INTEGERS)
        part = builder.fsub(power, builder.sitofp(exponent, _VECTOR))
        result = _constant(_POWERS[0])
        for factor in _POWERS[1:]:
            product = builder.fmul(result, part, flags=_CONTRACT)
            result = builder.fadd(product, _constant(factor), flags=_CONTRACT)
        exponent = builder.add(exponent, ir.Constant(_INTEGERS, [127] * LANES))
        exponent = builder.shl(exponent, ir.Constant(_INTEGERS, [23] * LANES))
        return builder.fmul(result, builder.bitcast(exponent, _VECTOR))

    return value(value, types.float32), generate
