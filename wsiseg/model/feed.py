"""Batches on their way to a device: each is copied while the one before it is computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsiseg.model.device import scale_pixels, to_images
from wsiseg.model.threads import fixed_threads

__all__ = ["feed"]


def feed(batches: Iterable[NDArray[np.uint8]], device: torch.device) -> Iterator[Tensor]:
    """``(B, 3, H, W)`` float32 in [0, 1] on a device, of ``(B, H, W, 3)`` uint8 RGB.

    To a CUDA device the next batch is sent before the last one is used: from pinned memory, on a
    stream of its own, so that it travels while the model computes.
    """
    if device.type != "cuda":
        for batch in batches:
            with fixed_threads(1):  # blocks are done side by side
                images = to_images(batch, device)
            yield images
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    waiting: list[_Sent] = []
    for batch in batches:
        waiting.append(_send(batch, device, stream))
        if len(waiting) > 1:
            yield _take(waiting.pop(0))
    yield from map(_take, waiting)


class _Sent(NamedTuple):
    pinned: Tensor
    """What is copied from; kept until the copy was waited for."""
    pixels: Tensor
    arrived: torch.cuda.Event


def _send(batch: NDArray[np.uint8], device: torch.device, stream: torch.cuda.Stream) -> _Sent:
    pinned = torch.from_numpy(batch).pin_memory()
    with torch.cuda.stream(stream):
        pixels = pinned.to(device, non_blocking=True)
        return _Sent(pinned, pixels, stream.record_event())


def _take(sent: _Sent) -> Tensor:
    current = torch.cuda.current_stream(sent.pixels.device)
    current.wait_event(sent.arrived)
    sent.pixels.record_stream(current)  # else the next batch might take its memory
    return scale_pixels(sent.pixels)
