"""The device and the precision that a model runs in."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsiseg.config import Precision
from wsiseg.errors import ConfigError

__all__ = [
    "autocast",
    "blocks_at_once",
    "check_devices",
    "lend_device",
    "open_device",
    "planning_device",
    "scale_pixels",
    "to_images",
]

_BLOCKS_A_DEVICE = 2
"""While one block computes, the next one's pixels are read and the last one's CAMs written."""


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


def planning_device(names: str) -> torch.device:
    """The first of the devices of `names`, or the CPU where this machine lacks it.

    The workers may have it.

    Raises
    ------
    ConfigError
        If torch knows no such device.
    """
    device = check_devices(names)[0]
    return device if _is_available(device) else torch.device("cpu")


def check_devices(names: str) -> list[torch.device]:
    """The devices called `names`, with commas between them, wherever they are.

    Raises
    ------
    ConfigError
        If torch knows no such device, or one is named twice.
    """
    devices = [_parse(name.strip()) for name in names.split(",")]
    if len(set(devices)) < len(devices):
        raise ConfigError(f"device {names!r}: names one twice")
    return devices


def blocks_at_once(names: str) -> int:
    """Blocks that keep the accelerators called `names` busy together; 0 for a CPU."""
    here = [
        device for device in check_devices(names) if device.type != "cpu" and _is_available(device)
    ]
    return _BLOCKS_A_DEVICE * len(here)


_LENT: Counter[str] = Counter()
"""How many blocks of this process use each device."""
_LENDING = threading.Lock()


@contextmanager
def lend_device(names: str, block: int) -> Iterator[torch.device]:
    """One of the devices called `names`, with commas between them: that of the fewest blocks here.

    Of equals the number of the block decides, so that several processes spread over them.

    Raises
    ------
    ConfigError
        If torch knows no such device, or it is not there.
    """
    choice = [name.strip() for name in names.split(",")]
    choice = choice[block % len(choice) :] + choice[: block % len(choice)]
    with _LENDING:
        name = min(choice, key=lambda name: _LENT[name])
        _LENT[name] += 1
    try:
        yield open_device(name)
    finally:
        with _LENDING:
            _LENT[name] -= 1


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
    return scale_pixels(torch.from_numpy(pixels).to(device))


def scale_pixels(pixels: Tensor) -> Tensor:
    """``(B, H, W, 3)`` uint8 to ``(B, 3, H, W)`` float32 in [0, 1], where they are."""
    return pixels.permute(0, 3, 1, 2).float() / 255
