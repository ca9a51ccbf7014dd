"""The smoothness kernel of the block back ends: two banded matrix products."""

from __future__ import annotations

import torch

from wsiseg.model.crf.window import smooth_radius

__all__ = ["Smoothness"]

_STRIP = 256


class Smoothness:
    """Gaussian over pixel positions with symmetric normalisation, which is separable.

    Parameters
    ----------
    height, width
        Size of the image in pixels.
    sxy
        Standard deviation in pixels; cut off after four of them.
    device
        Where the matrices live.
    """

    def __init__(self, height: int, width: int, sxy: float, device: torch.device) -> None:
        self.radius = smooth_radius(sxy)
        self.rows = _normalized_band(height, sxy, self.radius).to(device)
        self.columns = _normalized_band(width, sxy, self.radius).to(device)

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Filter `(B, C, H, W)` float32 values; the result has the same shape."""
        across = _apply_band(values, self.columns, self.radius)
        down = _apply_band(across.transpose(2, 3), self.rows, self.radius)
        return down.transpose(2, 3)


def _normalized_band(size: int, sxy: float, radius: int) -> torch.Tensor:
    """The `(size, size)` float32 matrix n k n with n = 1 / sqrt(row sums of k)."""
    at = torch.arange(size, dtype=torch.float64)
    apart = at[:, None] - at[None, :]
    kernel = torch.exp(-0.5 * (apart / sxy) ** 2) * (apart.abs() <= radius)
    norm = kernel.sum(1).rsqrt()
    return (norm[:, None] * kernel * norm[None, :]).float()


def _apply_band(values: torch.Tensor, band: torch.Tensor, radius: int) -> torch.Tensor:
    """`values @ band` along the last axis; strips keep the cost linear in the size."""
    size = values.shape[-1]
    if size <= 2 * _STRIP:
        return values @ band
    strips = []
    for start in range(0, size, _STRIP):
        stop = min(start + _STRIP, size)
        first, last = max(start - radius, 0), min(stop + radius, size)
        strips.append(values[..., first:last] @ band[first:last, start:stop])
    return torch.cat(strips, dim=-1)
