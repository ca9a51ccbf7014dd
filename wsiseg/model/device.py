"""Where a model runs."""

from __future__ import annotations

import torch

from wsiseg.config import Precision
from wsiseg.errors import ConfigError

__all__ = ["autocast", "open_device"]


def open_device(name: str) -> torch.device:
    """The device called `name`: `auto` is the first CUDA device, else the CPU.

    Raises
    ------
    ConfigError
        If torch knows no such device, or it is not there.
    """
    cuda = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name!r} is unknown; use auto, cpu, cuda or cuda:N") from error
    count = torch.cuda.device_count() if cuda else 0
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device {name!r} is not supported; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ConfigError(f"device {name!r} is not there: torch sees {count} CUDA device(s)")
    return device


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Products computed in it take `precision`; weights and sums stay float32."""
    return torch.autocast(device.type, getattr(torch, precision), enabled=precision != "float32")
