"""What the frozen encoders see in each patch, computed once where that is enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from wsiseg.model.encoders import Encoder, Teacher
from wsiseg.train.patches import Patches

__all__ = ["FrozenFeatures", "Seen", "turn"]

_CACHE_BYTES = 1 << 30

Maps = dict[int, Tensor]


class Seen(NamedTuple):
    """A batch of patches and what the frozen encoders make of it."""

    images: Tensor
    """``(B, 3, H, W)`` float32 RGB in [0, 1]."""
    pyramid: Maps
    """Student maps ``(B, C, h, w)`` float32 by level: only those that training needs."""
    stages: Maps
    """Teacher maps likewise; empty without a teacher."""


def turn(maps: Tensor, flip: int, quarter: int) -> Tensor:
    """``(..., h, w)`` mirrored left to right if `flip`, then turned by `quarter` right angles."""
    if flip:
        maps = maps.flip(-1)
    return torch.rot90(maps, quarter, (-2, -1))


class FrozenFeatures:
    """Batches of a set of patches, each patch flipped and turned as asked.

    Where both encoders are equivariant, what they see of a patch is kept (maps as float16, the
    image as bytes) and flipped and turned itself, as far as it fits in 1 GiB. Else it is computed
    every time.
    """

    def __init__(self, encoder: Encoder, teacher: Teacher | None, patches: Patches) -> None:
        self._encoder, self._teacher, self._patches = encoder, teacher, patches
        self._equivariant = encoder.equivariant and (teacher is None or teacher.equivariant)
        self._kept: dict[int, Seen] = {}
        self._room = _CACHE_BYTES

    def read(self, batch: Tensor, turns: Tensor) -> Seen:
        """Patches of the numbers `batch` ``(B,)``, turned by `turns` ``(B, 2)``: flip, quarter."""
        numbers, how = batch.tolist(), turns.tolist()
        if self._equivariant:
            return _stack(
                [_turn(seen, *h) for seen, h in zip(self._recall(numbers), how, strict=True)]
            )
        images = self._load(numbers)
        return self._look(torch.stack([turn(i, *h) for i, h in zip(images, how, strict=True)]))

    def _recall(self, numbers: Sequence[int]) -> list[Seen]:
        """What is seen of each patch; what is new is looked at in one go, and kept if it fits."""
        new = [number for number in numbers if number not in self._kept]
        fresh: dict[int, Seen] = {}
        if new:
            looked = self._look(self._load(new))
            fresh = {number: _pack(looked, at) for at, number in enumerate(new)}
        for number, seen in fresh.items():
            size = sum(part.nbytes for part in _parts(seen))
            if size <= self._room:
                self._kept[number] = seen
                self._room -= size
        return [fresh.get(number) or self._kept[number] for number in numbers]

    def _load(self, numbers: Sequence[int]) -> Tensor:
        pixels = torch.from_numpy(self._patches.read(numbers))
        return pixels.permute(0, 3, 1, 2).float() / 255

    def _look(self, images: Tensor) -> Seen:
        guided = self._encoder.guidance_levels if self._teacher is not None else ()
        levels = sorted({self._encoder.cam_level, *guided})
        pyramid = self._encoder.pyramid(images)
        stages = self._teacher.stages(images) if self._teacher is not None else []
        return Seen(images, {i: pyramid[i] for i in levels}, {i: stages[i] for i in guided})


def _parts(seen: Seen) -> list[Tensor]:
    return [seen.images, *seen.pyramid.values(), *seen.stages.values()]


def _pack(seen: Seen, at: int) -> Seen:
    """One patch of a batch, small enough to keep; images are whole numbers of 1/255."""
    pyramid, stages = ({i: m[at].half() for i, m in maps.items()} for maps in seen[1:])
    return Seen((seen.images[at] * 255).round().to(torch.uint8), pyramid, stages)


def _turn(seen: Seen, flip: int, quarter: int) -> Seen:
    pyramid, stages = (
        {i: turn(one, flip, quarter) for i, one in maps.items()} for maps in seen[1:]
    )
    return Seen(turn(seen.images, flip, quarter), pyramid, stages)


def _stack(batch: Sequence[Seen]) -> Seen:
    """Packed patches as one batch of float32."""
    pyramid, stages = (
        {i: torch.stack([maps[i] for maps in many]).float() for i in many[0]}
        for many in ([seen.pyramid for seen in batch], [seen.stages for seen in batch])
    )
    return Seen(torch.stack([seen.images for seen in batch]).float() / 255, pyramid, stages)
