"""A finer CAM: levels of a pyramid fused top-down, and windows that overlap."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["TopDown", "overlapped_cams"]


class TopDown(nn.Module):
    """Fuse maps of several levels on the finest grid (Lin et al. 2017, feature pyramids).

    The coarsest is enlarged step by step, and each finer one is added through a 1x1 convolution.
    The convolutions start at zero: untrained, the result is the coarsest map, enlarged.

    Parameters
    ----------
    channels
        Channels of each level, the finest first; the fused map has those of the coarsest.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        *finer, width = channels
        self.laterals = nn.ModuleList(nn.Conv2d(count, width, 1) for count in finer)
        for lateral in self.laterals:
            nn.init.zeros_(lateral.weight)  # type: ignore[arg-type]  # all of them are Conv2d
            nn.init.zeros_(lateral.bias)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """``(B, C_i, h_i, w_i)``, the finest first, to ``(B, C, h_0, w_0)``."""
        *finer, fused = maps
        for lateral, features in zip(reversed(self.laterals), reversed(finer), strict=True):
            size = (features.shape[2], features.shape[3])
            fused = F.interpolate(fused, size, mode="bilinear", align_corners=False)
            fused = fused + lateral(features)
        return fused


def overlapped_cams(cams_of: Callable[[Tensor], Tensor], images: Tensor, stride: int) -> Tensor:
    """CAMs of twice the rows and columns, from four passes a quarter cell off (shift and stitch).

    A cell's window overlaps its neighbours' by half, each centred on the cell that it gives
    (Sermanet et al. 2014, Long et al. 2015). Beyond the border, the last pixel is repeated.

    Parameters
    ----------
    cams_of
        Gives CAMs ``(B, K, h, w)`` of images.
    images
        ``(B, 3, H, W)`` float RGB in [0, 1].
    stride
        Input pixels per cell of these CAMs, a multiple of 4.

    Returns
    -------
    ``(B, K, 2h, 2w)``.
    """
    quarter = stride // 4
    height, width = images.shape[2:]
    padded = F.pad(images, (quarter,) * 4, mode="replicate")
    rows = []
    for down in (0, 2 * quarter):
        shifted = [
            cams_of(padded[:, :, down : down + height, right : right + width])
            for right in (0, 2 * quarter)
        ]
        rows.append(torch.stack(shifted, 4).flatten(3))
    return torch.stack(rows, 3).flatten(2, 3)
