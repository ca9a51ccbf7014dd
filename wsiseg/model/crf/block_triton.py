"""The windowed dense CRF as one fused GPU kernel in the shape of flash attention.

A program holds 64 query pixels (a block of 8 x 8) and walks over the keys of its window. Pixels are
described by 16 half-precision numbers whose dot product is minus the squared distance, exactly:
colours and coordinates are small integers (or halves), and what does not fit into eleven bits is
split into a high and a low part. Then exp2, a second dot product with the values, and at the end
the softmax: an iteration is this kernel and the two matrix products of the smoothness kernel.
"""

from __future__ import annotations

import math
import os
from typing import Any, NamedTuple

import torch
import triton  # type: ignore[import-untyped] # ships no types
import triton.language as tl  # type: ignore[import-untyped] # ships no types
from torch.nn import functional

from wsiseg.config import CrfConfig
from wsiseg.errors import ConfigError
from wsiseg.model.crf.smoothness import Smoothness
from wsiseg.model.crf.window import (
    BLOCK,
    MIN_PROBABILITY,
    TRITON_CLASSES,
    phase_of,
    window_radius,
)

__all__ = ["attend_blocks", "kernel_constants", "refine_batch"]

_PIXELS = BLOCK * BLOCK
_HALF_MAX = 60_000.0
_LOG2_E = math.log2(math.e)


def refine_batch(
    probabilities: torch.Tensor, image: torch.Tensor, config: CrfConfig
) -> torch.Tensor:
    """Mean field by the fused kernel; see `wsiseg.model.crf.refine` for the arguments.

    Raises
    ------
    ConfigError
        If the tensors are not on a CUDA device, or for more classes than `TRITON_CLASSES`.
    """
    classes = probabilities.shape[1]
    if not probabilities.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        raise ConfigError(
            f"the triton CRF needs a CUDA device, the tensors are on {probabilities.device}; "
            "use backend: numba or torch"
        )
    if classes > TRITON_CLASSES:
        raise ConfigError(
            f"the triton CRF takes at most {TRITON_CLASSES} classes, not {classes}; "
            "use backend: torch"
        )
    prior = probabilities.clamp(MIN_PROBABILITY, 1.0).contiguous()
    if config.iterations == 0:
        return prior / prior.sum(1, keepdim=True)
    if prior.is_cuda:
        with torch.cuda.device(prior.device):
            return _iterate(prior, image, config)
    return _iterate(prior, image, config)


def _iterate(prior: torch.Tensor, image: torch.Tensor, config: CrfConfig) -> torch.Tensor:
    """Launch the kernel once for the norms and once an iteration, with the smoothness between."""
    batch, classes, height, width = prior.shape
    features = _describe(image, config)
    constants = kernel_constants(classes, config)
    rows, columns = features.query.shape[1:3]
    shape = (batch, rows, columns, _PIXELS, constants["LANES"])
    value = torch.empty(shape, dtype=torch.float16, device=prior.device)
    other = torch.empty_like(value)
    norm = torch.empty(shape[:4], dtype=torch.float32, device=prior.device)
    smooth = Smoothness(height, width, config.smooth_sxy, prior.device)
    q = torch.empty_like(prior)
    for iteration in range(-1, config.iterations):
        first = iteration < 0
        message = q if first else smooth(q).contiguous()
        tensors = (*features[:4], value, other, norm, prior, message, q)
        sizes = (height, width, rows, columns, classes)
        factors = (features.exponent, config.appearance_weight, config.smooth_weight)
        attend_blocks[(rows * columns, batch)](
            *tensors,
            *sizes,
            *factors,
            *phase_of(max(iteration, 0)),
            FIRST=first,
            **constants,
            num_warps=4,
        )
        value, other = other, value
    return q


def kernel_constants(classes: int, config: CrfConfig) -> dict[str, Any]:
    """What the kernel is compiled for, apart from `FIRST`."""
    thin = config.mode == "fast"
    return {
        "RADIUS": window_radius(config.appearance_sxy),
        "THIN": thin,
        "KEYS": _PIXELS // 4 if thin else _PIXELS,
        "CHUNK": 64,
        "LANES": max(16, 1 << (classes - 1).bit_length()),
    }


class _Features(NamedTuple):
    query: torch.Tensor
    """`(B, rows, columns, 64, 8)` float16: colour as a query."""
    key: torch.Tensor
    """The same as a key."""
    query_place: torch.Tensor
    """`(64, 8)` float16: position in the query block."""
    key_place: torch.Tensor
    """`(keys, 8)` float16: position of each key of the window, relative to the query block."""
    exponent: float
    """Factor from minus the squared distance to the exponent of two."""


def _describe(image: torch.Tensor, config: CrfConfig) -> _Features:
    """Numbers whose dot products are minus squared distances in (scaled) grey levels."""
    radius = window_radius(config.appearance_sxy)
    ratio = (config.appearance_srgb / config.appearance_sxy) ** 2
    # Halve everything until the largest squared position fits into a half; exact, as a power of 2.
    largest = 2 * ratio * ((radius + 1.0) * BLOCK) ** 2
    halvings = max(0, math.ceil(math.log(largest / _HALF_MAX, 4))) if largest > 0 else 0
    shrink = 0.5**halvings
    query, key = _describe_colour(image, shrink)
    query_place, key_place = _describe_place(radius, ratio * shrink**2)
    exponent = _LOG2_E / (2 * (config.appearance_srgb * shrink) ** 2)
    return _Features(query, key, query_place.to(image.device), key_place.to(image.device), exponent)


def _describe_colour(image: torch.Tensor, shrink: float) -> tuple[torch.Tensor, torch.Tensor]:
    height, width = image.shape[2:]
    colour = (image.float() - 128.0) * shrink
    colour = functional.pad(colour, (0, -width % BLOCK, 0, -height % BLOCK))
    blocks = colour.unfold(2, BLOCK, BLOCK).unfold(3, BLOCK, BLOCK).flatten(4)
    blocks = blocks.permute(0, 2, 3, 4, 1)
    high, low = _split(blocks.square().sum(-1, keepdim=True))
    one, none = torch.ones_like(high), torch.zeros_like(high)
    query = torch.cat((2 * blocks, -one, -one, -high, -low, none), -1)
    key = torch.cat((blocks, high, low, one, one, none), -1)
    return query.half().contiguous(), key.half().contiguous()


def _describe_place(radius: int, ratio: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions relative to the centre of the query block, `(64, 8)` and `(keys, 8)`."""
    ratio_high = _keep_bits(ratio, 8)
    ratio_low = ratio - ratio_high
    inner = torch.arange(BLOCK, dtype=torch.float64) - (BLOCK - 1) / 2
    y, x = (part.reshape(-1) for part in torch.meshgrid(inner, inner, indexing="ij"))
    high, low = _split(ratio * (y * y + x * x))
    one = torch.ones_like(y)
    parts = (2 * ratio_high * y, 2 * ratio_low * y, 2 * ratio_high * x, 2 * ratio_low * x)
    query = torch.stack((*parts, -one, -one, -high, -low), -1)
    block = torch.arange(-radius, radius + 1, dtype=torch.float64) * BLOCK
    by, bx = (part.reshape(-1, 1) for part in torch.meshgrid(block, block, indexing="ij"))
    y, x = (by + y).reshape(-1), (bx + x).reshape(-1)
    high, low = _split(ratio * (y * y + x * x))
    one = torch.ones_like(y)
    key = torch.stack((y, y, x, x, high, low, one, one), -1)
    return query.half(), key.half()


def _split(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """High and low parts, each of which a half holds (the low one up to 2^-22 of the whole)."""
    high = values.half().to(values.dtype)
    return high, values - high


def _keep_bits(value: float, bits: int) -> float:
    """`value` rounded to its leading `bits` binary digits."""
    fraction, exponent = math.frexp(value)
    return math.ldexp(round(fraction * 2**bits) / 2**bits, exponent)


_VARYING = ["height", "width", "rows", "columns", "classes", "phase_row", "phase_column"]


# Otherwise it would be compiled anew for each size and phase.
@triton.jit(do_not_specialize=_VARYING)  # type: ignore[untyped-decorator] # ships no types
def attend_blocks(  # type: ignore[no-untyped-def] # triton compiles it
    query_ptr,
    key_ptr,
    query_place_ptr,
    key_place_ptr,
    value_ptr,
    next_ptr,
    norm_ptr,
    prior_ptr,
    message_ptr,
    q_ptr,
    height,
    width,
    rows,
    columns,
    classes,
    exponent,
    appearance_weight,
    smooth_weight,
    phase_row,
    phase_column,
    FIRST: tl.constexpr,
    RADIUS: tl.constexpr,
    THIN: tl.constexpr,
    KEYS: tl.constexpr,
    CHUNK: tl.constexpr,
    LANES: tl.constexpr,
):
    """One iteration for the 64 pixels of a block; `FIRST` computes the norms and the first Q."""
    SIDE: tl.constexpr = 2 * RADIUS + 1
    TOTAL: tl.constexpr = SIDE * SIDE * KEYS
    block = tl.program_id(0)
    image = tl.program_id(1).to(tl.int64)
    block_row = block // columns
    block_column = block % columns
    pixel = tl.arange(0, 64)
    depth = tl.arange(0, 16)
    lane = tl.arange(0, LANES)
    queries = (image * rows * columns + block) * 64 + pixel

    colour = tl.load(
        query_ptr + queries[:, None] * 8 + depth[None, :], mask=depth[None, :] < 8, other=0.0
    )
    place = tl.load(
        query_place_ptr + pixel[:, None] * 8 + depth[None, :] - 8,
        mask=depth[None, :] >= 8,
        other=0.0,
    )
    query = colour + place
    total = tl.zeros((64, LANES), dtype=tl.float32)
    # Rows of blocks above and below the image are left out; the masks see to the rest.
    first_key = tl.maximum(RADIUS - block_row, 0) * (SIDE * KEYS) // CHUNK * CHUNK
    last_key = tl.minimum(rows - block_row + RADIUS, SIDE) * (SIDE * KEYS)
    for start in range(first_key, last_key, CHUNK):
        n = start + tl.arange(0, CHUNK)
        window = n // KEYS
        inner = n % KEYS
        if THIN:
            inner = (inner // 4 * 2 + phase_row) * 8 + inner % 4 * 2 + phase_column
        key_row = block_row - RADIUS + window // SIDE
        key_column = block_column - RADIUS + window % SIDE
        inside = (key_row >= 0) & (key_row < rows) & (key_column >= 0) & (key_column < columns)
        inside = inside & (n < TOTAL)
        if FIRST:
            inside = inside & (key_row * 8 + inner // 8 < height)
            inside = inside & (key_column * 8 + inner % 8 < width)
        there = ((image * rows + key_row) * columns + key_column) * 64 + inner
        key_colour = tl.load(
            key_ptr + there[None, :] * 8 + depth[:, None],
            mask=inside[None, :] & (depth[:, None] < 8),
            other=0.0,
        )
        key_place = tl.load(
            key_place_ptr + (window * 64 + inner)[None, :] * 8 + depth[:, None] - 8,
            mask=(n < TOTAL)[None, :] & (depth[:, None] >= 8),
            other=0.0,
        )
        distance = tl.dot(query, key_colour + key_place)
        weight = tl.exp2(distance * exponent).to(tl.float16)
        if FIRST:
            value = tl.broadcast_to(inside[:, None], (CHUNK, LANES)).to(tl.float16)
        else:
            value = tl.load(
                value_ptr + there[:, None] * LANES + lane[None, :],
                mask=inside[:, None],
                other=0.0,
            )
        total = tl.dot(weight, value, total)

    y = block_row * 8 + pixel // 8
    x = block_column * 8 + pixel % 8
    within = (y < height) & (x < width)
    if FIRST:
        own = tl.full((64, LANES), 1.0, dtype=tl.float32)
    else:
        own = tl.load(value_ptr + queries[:, None] * LANES + lane[None, :]).to(tl.float32)
    if THIN:
        # A pixel counts itself once; the quarter stands for the others only.
        sampled = (y % 2 == phase_row) & (x % 2 == phase_column)
        total = 4.0 * (total - tl.where(sampled[:, None], own, 0.0)) + own
    held = within[:, None] & (lane[None, :] < classes)
    at = ((image * classes + lane[None, :]) * height + y[:, None]) * width + x[:, None]
    logits = tl.log(tl.load(prior_ptr + at, mask=held, other=1.0))
    if FIRST:
        row_sum = tl.sum(tl.where(lane[None, :] == 0, total, 0.0), 1)
        norm = tl.rsqrt(tl.where(within, row_sum, 1.0))
        tl.store(norm_ptr + queries, norm)
    else:
        norm = tl.load(norm_ptr + queries)
        smooth = tl.load(message_ptr + at, mask=held, other=0.0)
        logits += appearance_weight * norm[:, None] * total + smooth_weight * smooth
    logits = tl.where(lane[None, :] < classes, logits, float("-inf"))
    logits -= tl.max(logits, 1)[:, None]
    q = tl.exp(logits)
    q = q / tl.sum(q, 1)[:, None]
    tl.store(q_ptr + at, q, mask=held)
    following = tl.where(held, q * norm[:, None], 0.0)
    tl.store(next_ptr + queries[:, None] * LANES + lane[None, :], following.to(tl.float16))
