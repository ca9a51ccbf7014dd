"""The device and the precision that a model runs in."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsiseg.config import Precision
from wsiseg.errors import ConfigError

__all__ = ["autocast", "open_device", "planning_device", "to_images"]


def open_device(name: str) -> torch.device:
    """Return the device `name`: `auto` is the first CUDA device, or the CPU if there is none.

    Raises
    ------
    ConfigError
        If torch knows no such device, or it is not available.
    """
    device = _parse(name)
    if not _is_available(device):
        raise ConfigError(
            f"device {name!r} is not available: torch sees {_count_cuda()} CUDA device(s)"
        )
    return device


def planning_device(name: str) -> torch.device:
    """Like `open_device`, but the CPU where this machine lacks the device: the workers may have it.

    Raises
    ------
    ConfigError
        If torch knows no such device.
    """
    device = _parse(name)
    return device if _is_available(device) else torch.device("cpu")


def _parse(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if _count_cuda() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name!r} is unknown; use auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device {name!r} is not supported; use auto, cpu, cuda or cuda:N")
    return device


def _is_available(device: torch.device) -> bool:
    return device.type == "cpu" or (device.index or 0) < _count_cuda()


def _count_cuda() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return a context in which products take `precision`; weights and sums stay float32."""
    return torch.autocast(device.type, getattr(torch, precision), enabled=precision != "float32")


def to_images(pixels: NDArray[np.uint8], device: torch.device | str = "cpu") -> Tensor:
    """``(B, H, W, 3)`` uint8 to ``(B, 3, H, W)`` float32 in [0, 1] on a device."""
    return torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 255
