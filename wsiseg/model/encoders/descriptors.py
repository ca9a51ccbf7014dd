"""Fixed stain and texture filters: what describes tissue before anything is learned.

All are boxes and Gaussians, so flips and quarter turns of an image only flip and turn them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["MEAN", "STAINS", "Descriptors", "mean_around"]

MEAN = (0.75, 0.58, 0.72)
"""Approximate mean colour of H&E tissue, RGB in [0, 1]."""
STAINS = ((0.650, 0.704, 0.286), (0.072, 0.990, 0.105), (0.268, 0.570, 0.776))
"""Optical density of haematoxylin, eosin and DAB in red, green and blue (Ruifrok and Johnston)."""
_Make = Callable[..., Tensor]
_MEANS = (0.0, 1.5, 3.5, 8.0)  # sigmas of the stain averages, in cells of 4 px
_SPREADS = (1.2, 4.0)  # the same of the texture averages
# Mean and standard deviation of the descriptors, over synthetic and real (Kather et al.) tissue.
_TEXTURE_CENTRE = (0.123, 0.056, 0.140, 0.067, 0.150, 0.074, 0.047, 0.023)
_CENTRE = (0.281, 0.292, 0.293) * 4 + _TEXTURE_CENTRE * 2
_SPREAD = (
    *(0.231, 0.132, 0.121, 0.180, 0.112, 0.098, 0.156, 0.098, 0.084, 0.139, 0.087, 0.075),
    *(0.058, 0.032, 0.084, 0.038, 0.111, 0.044, 0.055, 0.023),
    *(0.045, 0.025, 0.062, 0.030, 0.083, 0.034, 0.028, 0.011),
)


class Descriptors(nn.Module):
    """How blue, how pink, how coarse: the first things to see in tissue; `COUNT` numbers per cell.

    Means of the three stains at four scales, then four kinds of texture of haematoxylin and eosin
    at two scales: gradients at 0.5, 1 and 2 µm, and how far the stain exceeds its surroundings.
    All are roughly standardised. ``(B, 3, H, W)`` to ``(B, COUNT, H / 4, W / 4)``.
    """

    COUNT = 3 * len(_MEANS) + 8 * len(_SPREADS)
    unmix: Tensor
    centre: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        stains = torch.tensor(STAINS)
        stains = stains / stains.norm(dim=1, keepdim=True)
        self.register_buffer("unmix", torch.linalg.inv(stains).T.contiguous(), persistent=False)
        self.register_buffer("centre", torch.tensor(_CENTRE)[:, None, None], persistent=False)
        self.register_buffer("spread", torch.tensor(_SPREAD)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` float RGB in [0, 1] to ``(B, COUNT, H / 4, W / 4)``, standardised."""
        return (self.measure(images) - self.centre) / self.spread

    def measure(self, images: Tensor) -> Tensor:
        """Compute the descriptors without standardising them."""
        batch, _, height, width = images.shape
        density = -torch.log(images.clamp(1 / 255, 1.0)).flatten(2)  # two floats, for ONNX
        fine = (self.unmix @ density).view(batch, 3, height, width)
        half = _shrink(fine, 2, 0.5)
        cell = _shrink(half, 2, 0.5)
        dyes = cell[:, :2]
        texture = torch.cat(
            [_gradient(fine[:, :2], 4), _gradient(half[:, :2], 2), _gradient(dyes, 1),
             F.relu(dyes - _shrink(dyes, 1, 2.5))], 1
        )  # fmt: skip
        means = [_shrink(cell, 1, sigma) if sigma else cell for sigma in _MEANS]
        return torch.cat([*means, *(_shrink(texture, 1, sigma) for sigma in _SPREADS)], 1)


def _gradient(maps: Tensor, factor: int) -> Tensor:
    """Mean absolute difference of neighbours, in cells `factor` times larger."""
    down = (maps[:, :, 1:] - maps[:, :, :-1]).abs()  # not `diff`, which ONNX lacks
    across = (maps[..., 1:] - maps[..., :-1]).abs()
    height, width = maps.shape[2] // factor, maps.shape[3] // factor
    rows, cols = (
        _smoothing(maps.shape[d], n, 0.5, maps.device) for d, n in ((2, height), (3, width))
    )
    between_rows = _smoothing(maps.shape[2] - 1, height, 0.5, maps.device)
    between_cols = _smoothing(maps.shape[3] - 1, width, 0.5, maps.device)
    return between_rows @ down @ cols.T + rows @ across @ between_cols.T


def _shrink(maps: Tensor, factor: int, sigma: float) -> Tensor:
    """Gaussian average at cells `factor` times larger, with `sigma` in these cells."""
    height, width = maps.shape[2] // factor, maps.shape[3] // factor
    rows = _smoothing(maps.shape[2], height, sigma, maps.device)
    cols = _smoothing(maps.shape[3], width, sigma, maps.device)
    return rows @ maps @ cols.T


def mean_around(maps: Tensor, reach: int) -> Tensor:
    """Mean of the cells at most `reach` away, in rows and columns, as far as the map goes."""
    rows, cols = (_nearby(size, reach, maps.device) for size in maps.shape[2:])
    return rows @ maps @ cols.T


def _kept(make: _Make) -> _Make:
    """Keep what a function returns for later calls with the same arguments."""

    @lru_cache(maxsize=256)
    def keep(*given: int | float | torch.device) -> Tensor:
        # Later calls may need gradients even if this one does not.
        with torch.inference_mode(False):
            return make(*given)

    def choose(*given: int | float | torch.device) -> Tensor:
        # An exported graph takes images of any size, and computes the weights itself.
        tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]  # torch's own
        return make(*given) if tracing else keep(*given)

    return choose


@_kept
def _smoothing(size: int, count: int, sigma: float, device: torch.device) -> Tensor:
    """``(count, size)``: Gaussian weights of `size` samples for `count` cells over their extent.

    Rows sum to 1, at the border too, and the matrix is its own mirror image. A product of small
    matrices is several times faster than pooling on a CPU.
    """
    at = (torch.arange(size, dtype=torch.float64) + 0.5) * count / size
    centre = torch.arange(count, dtype=torch.float64) + 0.5
    weights = torch.exp(-((at - centre[:, None]) ** 2) / (2 * sigma**2))
    return (weights / weights.sum(1, keepdim=True)).float().to(device)


@_kept
def _nearby(size: int, reach: int, device: torch.device) -> Tensor:
    """``(size, size)``: equal weights of the cells at most `reach` away; rows sum to 1."""
    at = torch.arange(size)
    weights = ((at - at[:, None]).abs() <= reach).double()
    return (weights / weights.sum(1, keepdim=True)).float().to(device)
