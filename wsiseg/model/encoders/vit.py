"""Shared by all vision transformers: four taps at equal depths, made into a pyramid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsiseg.errors import ConfigError, GeometryError
from wsiseg.model.encoders import LEVELS

__all__ = [
    "apply_alone",
    "build_pyramid",
    "check_images",
    "denormalize",
    "normalize",
    "pyramid_strides",
    "tap_blocks",
    "unit_maps",
]

_BATCH = 8192  # sequences of one token: attention kernels take fewer than 65,536 at once


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """``(B, 3, H, W)`` RGB in [0, 1] to zero mean and unit spread."""
    centre = images.new_tensor(mean)[:, None, None]
    return (images - centre) / images.new_tensor(std)[:, None, None]


def denormalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Undo `normalize`."""
    return images * images.new_tensor(std)[:, None, None] + images.new_tensor(mean)[:, None, None]


def tap_blocks(depth: int) -> list[int]:
    """The last block of each quarter of `depth` blocks: 2, 5, 8, 11 of 12."""
    return [depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4)]


def pyramid_strides(patch: int, image_size: int) -> tuple[int, int, int, int]:
    """Input pixels per cell of each pyramid level: a quarter, half, once and twice the patch.

    Where a quarter of the patch is not a whole number of pixels (14), the first is half of it too.

    Raises
    ------
    ConfigError
        If the levels would not have whole strides or whole sides.
    """
    if patch % 2 or image_size % (2 * patch):
        pair = 2 * patch
        least = max(pair, image_size // pair * pair)
        raise ConfigError(
            f"patches of {patch} px on images of {image_size} px give no pyramid: the patch must "
            f"be even, and the image a whole number of 2 patches ({pair} px): {least} or "
            f"{least + pair} px would do"
        )
    return patch // _finer(patch, 0), patch // _finer(patch, 1), patch, 2 * patch


def _finer(patch: int, level: int) -> int:
    """Cells of a level along a patch, for the levels that are finer than the patches."""
    return 4 if level == 0 and patch % 4 == 0 else 2


def build_pyramid(
    taps: Sequence[Tensor] | Mapping[int, Tensor],
    levels: Sequence[int] = LEVELS,
    patch: int = 16,
) -> list[Tensor]:
    """Resize maps ``(B, C, h, w)``, one per level, to the sizes of `levels`.

    With patches of 16 px these are 4h, 2h, h and h / 2.
    """
    return [_resize(taps[level], level, patch) for level in levels]


def _resize(tap: Tensor, level: int, patch: int) -> Tensor:
    if level < 2:
        times = _finer(patch, level)
        return F.interpolate(tap, scale_factor=times, mode="bilinear", align_corners=False)
    return tap if level == 2 else F.avg_pool2d(tap, 2)


def check_images(images: Tensor, size: int, encoder: str) -> None:
    """Refuse images that position embeddings made for `size` do not fit.

    Raises
    ------
    GeometryError
        If they are not ``(B, 3, size, size)``.
    """
    if images.ndim != 4 or tuple(images.shape[1:]) != (3, size, size):
        raise GeometryError(
            f"{encoder} takes images (B, 3, {size}, {size}), not {tuple(images.shape)}; "
            f"set tile and image size to the same number"
        )


def apply_alone(module: nn.Module, tokens: Tensor) -> Tensor:
    """Apply a module over sequences to each of the tokens ``(B, N, D)`` by itself: ``(B, N, E)``.

    A softmax over one key is 1, so attention becomes its value projection followed by its output
    projection. On the last attention of a CLIP that is MaskCLIP (Zhou et al. 2022, as in its code:
    with the residual connection and the MLP of the block); each token describes its own patch,
    instead of gathering the image for the class token.
    """
    batch, count, width = tokens.shape
    parts = torch.split(tokens.reshape(-1, 1, width), _BATCH)
    return torch.cat([module(part) for part in parts]).reshape(batch, count, -1)


def unit_maps(embedded: Tensor, side: int) -> Tensor:
    """``(B, side * side, E)``, row by row, to L2-normalised float32 ``(B, E, side, side)``."""
    unit = F.normalize(embedded.float(), dim=2)
    return unit.mT.reshape(len(unit), -1, side, side)
