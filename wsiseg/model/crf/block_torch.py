"""The windowed dense CRF with plain tensor operations: any device, and the readable reference."""

from __future__ import annotations

import torch
from torch.nn import functional

from wsiseg.config import CrfConfig
from wsiseg.model.crf.smoothness import Smoothness
from wsiseg.model.crf.window import BLOCK, MIN_PROBABILITY, phase_of, window_radius

__all__ = ["refine_batch"]

_CPU_BYTES = 64 * 2**20
_GPU_BYTES = 1024 * 2**20


def refine_batch(
    probabilities: torch.Tensor,
    image: torch.Tensor,
    config: CrfConfig,
    radius: int | None = None,
) -> torch.Tensor:
    """Mean field with block windows; see `wsiseg.model.crf.refine` for the arguments.

    `radius` is the window in blocks on each side, if not the usual one; 6 or more at the default
    deviations is as good as the whole image, and serves as the truth in measurements.
    """
    prior = probabilities.clamp(MIN_PROBABILITY, 1.0)
    q = prior / prior.sum(1, keepdim=True)
    if config.iterations == 0:
        return q
    _, _, height, width = prior.shape
    smooth = Smoothness(height, width, config.smooth_sxy, prior.device)
    appearance = Appearance(image, config, radius)
    unary = prior.log()
    for iteration in range(config.iterations):
        logits = unary + config.smooth_weight * smooth(q)
        logits += config.appearance_weight * appearance(q, iteration)
        q = logits.softmax(1)
    return q


class Appearance:
    """The appearance kernel over block windows, with symmetric normalisation.

    Parameters
    ----------
    image
        `(B, 3, H, W)` uint8.
    config
        Standard deviations, and the mode: every key in the window, or a rotating quarter.
    radius
        Blocks on each side of the window; by default what the deviation asks for.
    """

    def __init__(self, image: torch.Tensor, config: CrfConfig, radius: int | None = None) -> None:
        self.height, self.width = image.shape[2:]
        self.thin = config.mode == "fast"
        self.radius = radius or window_radius(config.appearance_sxy)
        self.sxy = config.appearance_sxy
        # Centred colours keep the rounding of the expanded square small.
        colour = (image.float() - 127.5) / config.appearance_srgb
        self.colour = _to_whole_blocks(colour)
        ones = torch.ones_like(colour[:, :1])
        self.norm = self._sum(ones, iteration=0).rsqrt()

    def __call__(self, values: torch.Tensor, iteration: int) -> torch.Tensor:
        """The normalised kernel times `(B, C, H, W)` float32 values."""
        return self.norm * self._sum(self.norm * values, iteration)

    def _sum(self, values: torch.Tensor, iteration: int) -> torch.Tensor:
        if not self.thin:
            return self._window_sum(values, slice(None), slice(None))
        row, column = phase_of(iteration)
        rows, columns = slice(row, None, 2), slice(column, None, 2)
        total = 4.0 * self._window_sum(values, rows, columns)
        # A pixel is its own strongest neighbour: count it once, whether this quarter holds it or
        # not, and let the quarter stand for the other pixels only.
        total[..., rows, columns] -= 4.0 * values[..., rows, columns]
        return total + values

    def _window_sum(self, values: torch.Tensor, rows: slice, columns: slice) -> torch.Tensor:
        """Sum over the window's keys in `rows` and `columns` of kernel times value."""
        padded = _to_whole_blocks(values)
        margin = [self.radius * BLOCK] * 4
        keys = _windows(functional.pad(self.colour, margin), self.radius)[..., rows, columns]
        held = _windows(functional.pad(padded, margin), self.radius)[..., rows, columns]
        queries = self.colour.unfold(2, BLOCK, BLOCK).unfold(3, BLOCK, BLOCK)
        place = self._place_exponent(rows, columns)
        out = torch.empty_like(padded)
        tiles = out.unfold(2, BLOCK, BLOCK).unfold(3, BLOCK, BLOCK)
        for part in self._parts(queries.shape, place.numel()):
            tiles[part] = _attend(queries[part], keys[part], held[part], place)
        return out[..., : self.height, : self.width]

    def _place_exponent(self, rows: slice, columns: slice) -> torch.Tensor:
        """`(64, keys)` exponents of the positional factor, the same for every block."""
        query = torch.arange(BLOCK, device=self.colour.device) / self.sxy
        span = torch.arange(-self.radius * BLOCK, (self.radius + 1) * BLOCK)
        key = span.to(self.colour.device) / self.sxy
        down = (query[:, None] - key[rows][None]) ** 2
        across = (query[:, None] - key[columns][None]) ** 2
        square = down[:, None, :, None] + across[None, :, None, :]
        return -0.5 * square.reshape(BLOCK * BLOCK, -1)

    def _parts(self, shape: torch.Size, pairs: int) -> list[tuple[slice, ...]]:
        """Index tuples that cut (batch, rows, columns of blocks) to the memory bound."""
        batch, _, height, width = shape[:4]
        limit = _GPU_BYTES if self.colour.is_cuda else _CPU_BYTES
        blocks = max(1, limit // (2 * 4 * pairs))
        columns = min(width, blocks)
        rows = min(height, max(1, blocks // width))
        return [
            (slice(b, b + 1), slice(None), slice(y, y + rows), slice(x, x + columns))
            for b in range(batch)
            for y in range(0, height, rows)
            for x in range(0, width, columns)
        ]


def _to_whole_blocks(values: torch.Tensor) -> torch.Tensor:
    """Pad `(B, C, H, W)` with zeros on the right and below to multiples of the block side."""
    height, width = values.shape[2:]
    return functional.pad(values, (0, -width % BLOCK, 0, -height % BLOCK))


def _windows(padded: torch.Tensor, radius: int) -> torch.Tensor:
    """A view `(B, C, rows, columns, side, side)` of each block's window."""
    side = (2 * radius + 1) * BLOCK
    return padded.unfold(2, side, BLOCK).unfold(3, side, BLOCK)


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, place: torch.Tensor
) -> torch.Tensor:
    """Kernel times value for some blocks: `(1, F, r, c, 8, 8)` in, `(1, C, r, c, 8, 8)` out."""
    _, _, rows, columns, _, _ = query.shape
    q = query.flatten(4).permute(0, 2, 3, 4, 1).flatten(0, 2)
    k = key.flatten(4).permute(0, 2, 3, 1, 4).flatten(0, 2)
    v = value.flatten(4).permute(0, 2, 3, 4, 1).flatten(0, 2)
    # -|q - k|² / 2 = q·k - |q|² / 2 - |k|² / 2, and the same for the positions in `place`.
    exponent = torch.baddbmm(place, q, k)
    exponent -= 0.5 * q.square().sum(2, keepdim=True)
    exponent -= 0.5 * k.square().sum(1, keepdim=True)
    total = exponent.exp_() @ v
    return total.reshape(1, rows, columns, BLOCK, BLOCK, -1).permute(0, 5, 1, 2, 3, 4)
