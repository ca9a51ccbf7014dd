"""Features of the frozen encoders for each patch, computed once where that is enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsiseg.config import Preset
from wsiseg.model.device import to_images
from wsiseg.model.encoders import Encoder, Teacher
from wsiseg.train.patches import PatchSource

__all__ = ["FrozenFeatures", "Seen", "draw_turns", "read_images", "turn"]

_CACHE_BYTES = 1 << 30
_READERS = 4
_BATCH = 16

Maps = dict[int, Tensor]
_Pixels = dict[int, Future[NDArray[np.uint8]]]
"""Patches ``(1, side, side, 3)`` that are being read, by number."""


class Seen(NamedTuple):
    """A batch of patches and its features from the frozen encoders."""

    images: Tensor
    """``(B, 3, H, W)`` float32 RGB in [0, 1]; ``(B, 3, 0, 0)`` if they are not needed."""
    pyramid: Maps
    """Student maps ``(B, C, h, w)`` float32 by level: only those that training needs."""
    stages: Maps
    """Teacher maps likewise; empty without a teacher."""
    known: Tensor | None = None
    """``(B, c, c)`` bool: the cells that the labels describe; None for all."""


def read_images(
    patches: PatchSource, which: NDArray[np.integer], device: torch.device
) -> Iterator[Tensor]:
    """Yield patches of the numbers `which` in batches ``(B, 3, side, side)`` float32 in [0, 1]."""
    for batch in np.array_split(which, -(-len(which) // _BATCH)):
        yield to_images(patches.read(batch.tolist()), device)


def turn(maps: Tensor, flip: int, quarter: int) -> Tensor:
    """``(..., h, w)`` mirrored left to right if `flip`, then turned by `quarter` right angles."""
    if flip:
        maps = maps.flip(-1)
    return torch.rot90(maps, quarter, (-2, -1)) if quarter else maps


def draw_turns(count: int, preset: Preset, generator: torch.Generator) -> Tensor:
    """Draw ``(B, 2)``: whether each patch is flipped left to right, then its quarter turns.

    Preset `wsiseg` draws the eight views with equal probability. The released code flips each way
    with probability 1/2, and turns with probability 1/2 by any number of quarters.
    """
    if preset == "wsiseg":
        flips, quarters = (torch.randint(n, (count,), generator=generator) for n in (2, 4))
        return torch.stack([flips, quarters], 1)
    across, down, turned = (torch.randint(2, (count,), generator=generator) for _ in range(3))
    quarters = turned * torch.randint(4, (count,), generator=generator)
    # A flip top to bottom is one left to right and half a turn.
    return torch.stack([across ^ down, (2 * down + quarters) % 4], 1)


class FrozenFeatures:
    """Batches of a set of patches, each patch flipped and turned as requested.

    Where both encoders are equivariant, or nothing is turned, the features of a patch are cached
    (maps as float16, the image as bytes; up to 1 GiB), and are flipped and turned themselves.
    Otherwise they are computed every time.

    Parameters
    ----------
    levels, guided
        Levels needed of the pyramid and of the teacher; None: the CAM's and the guided
        ones of the encoder.
    device
        Where the encoders are; None is the CPU.
    autocast
        Returns the context that the encoders compute in, for a lower precision.
    turns
        Whether any patch will be requested flipped or turned.
    images
        Whether the images are needed too, for the contrast's regions; otherwise they are empty.
    """

    def __init__(
        self,
        encoder: Encoder,
        teacher: Teacher | None,
        patches: PatchSource,
        levels: Sequence[int] | None = None,
        guided: Sequence[int] | None = None,
        device: torch.device | None = None,
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
        turns: bool = True,
        images: bool = True,
    ) -> None:
        self._encoder, self._teacher, self._patches = encoder, teacher, patches
        self._known, self._autocast = patches.known, autocast
        self._device = device or torch.device("cpu")
        guided = encoder.guidance_levels if guided is None else guided
        self._guided = tuple(guided) if teacher is not None else ()
        wanted = (encoder.cam_level, *self._guided) if levels is None else levels
        self._levels = sorted(set(wanted))
        equivariant = encoder.equivariant and (teacher is None or teacher.equivariant)
        self._caches, self._images = equivariant or not turns, images
        self._cache: dict[int, Seen] = {}
        self._free_bytes = _CACHE_BYTES

    def read(self, batch: Tensor, turns: Tensor) -> Seen:
        """Patches of the numbers `batch` ``(B,)``, turned by `turns` ``(B, 2)``: flip, quarter."""
        return next(iter(self.stream([(batch, turns)])))

    def stream(self, plan: Sequence[tuple[Tensor, Tensor]]) -> Iterator[Seen]:
        """Yield batch after batch of `read`; the next one's pixels are read meanwhile."""
        with ThreadPoolExecutor(_READERS) as readers:
            waiting = self._fetch(readers, plan[0][0])
            for step, (batch, turns) in enumerate(plan):
                pixels = waiting
                if step + 1 < len(plan):
                    waiting = self._fetch(readers, plan[step + 1][0])
                yield self._compute(batch.tolist(), turns.tolist(), pixels)

    def _fetch(self, readers: Executor, batch: Tensor) -> _Pixels:
        """Start reading the patches of a batch that are not cached."""
        wanted = [number for number in batch.tolist() if number not in self._cache]
        return {number: readers.submit(self._patches.read, [number]) for number in wanted}

    def _compute(self, numbers: list[int], turns: list[list[int]], pixels: _Pixels) -> Seen:
        known = self._turn_known(numbers, turns)
        if self._caches:
            cached = [self._look_up(number, pixels) for number in numbers]
            seen = _stack([_turn(one, *how) for one, how in zip(cached, turns, strict=True)])
        else:
            images = [self._to_image(pixels[number]) for number in numbers]
            turned = [turn(i, *h) for i, h in zip(images, turns, strict=True)]
            seen = self._encode(torch.stack(turned))
        return seen._replace(known=known)

    def _turn_known(self, numbers: list[int], turns: list[list[int]]) -> Tensor | None:
        if self._known is None:
            return None
        cells = torch.from_numpy(self._known[numbers]).to(self._device)
        return torch.stack([turn(one, *how) for one, how in zip(cells, turns, strict=True)])

    def _look_up(self, number: int, pixels: _Pixels) -> Seen:
        """Return a patch's features; new ones are computed, and cached if they fit.

        One patch at a time: its features must not depend on the batch that it was first in, or a
        resumed run would round differently.
        """
        seen = self._cache.get(number)
        if seen is None:
            seen = _pack(self._encode(self._to_image(pixels[number])[None]), 0)
            size = sum(part.nbytes for part in _parts(seen))
            if size <= self._free_bytes:
                self._cache[number] = seen
                self._free_bytes -= size
        return seen

    def _to_image(self, pixels: Future[NDArray[np.uint8]]) -> Tensor:
        """``(3, H, W)`` float32 in [0, 1]."""
        image = torch.from_numpy(pixels.result()[0]).to(self._device)
        return image.permute(2, 0, 1).float() / 255

    def _encode(self, images: Tensor) -> Seen:
        with self._autocast():
            pyramid = self._encoder.pyramid(images, self._levels)
            stages: list[Tensor] = []
            if self._teacher is not None:
                stages = self._teacher.stages(images, self._guided)
        return Seen(
            images if self._images else images[..., :0, :0],
            {level: maps.float() for level, maps in zip(self._levels, pyramid, strict=True)},
            {level: maps.float() for level, maps in zip(self._guided, stages, strict=True)},
        )


def _parts(seen: Seen) -> list[Tensor]:
    return [seen.images, *seen.pyramid.values(), *seen.stages.values()]


def _pack(seen: Seen, at: int) -> Seen:
    """One patch of a batch, packed for the cache; images are whole numbers of 1/255."""
    pyramid, stages = ({i: m[at].half() for i, m in maps.items()} for maps in seen[1:3])
    return Seen((seen.images[at] * 255).round().to(torch.uint8), pyramid, stages)


def _turn(seen: Seen, flip: int, quarter: int) -> Seen:
    pyramid, stages = (
        {i: turn(one, flip, quarter) for i, one in maps.items()} for maps in seen[1:3]
    )
    return Seen(turn(seen.images, flip, quarter), pyramid, stages)


def _stack(batch: Sequence[Seen]) -> Seen:
    """Stack packed patches as float32, channels last, which makes adapters a third faster."""
    pyramid, stages = (
        {i: _join_maps([maps[i] for maps in patches]) for i in patches[0]}
        for patches in ([seen.pyramid for seen in batch], [seen.stages for seen in batch])
    )
    return Seen(torch.stack([seen.images for seen in batch]).float() / 255, pyramid, stages)


def _join_maps(maps: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(maps)).float().contiguous(memory_format=torch.channels_last)
