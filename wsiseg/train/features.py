"""What the frozen encoders see in each patch, computed once where that is enough."""

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
from wsiseg.model.encoders import Encoder, Teacher
from wsiseg.train.patches import PatchSource

__all__ = ["FrozenFeatures", "Seen", "draw_turns", "turn"]

_CACHE_BYTES = 1 << 30
_READERS = 4

Maps = dict[int, Tensor]
_Pixels = dict[int, Future[NDArray[np.uint8]]]
"""Patches ``(1, side, side, 3)`` that are being read, by number."""


class Seen(NamedTuple):
    """A batch of patches and what the frozen encoders make of it."""

    images: Tensor
    """``(B, 3, H, W)`` float32 RGB in [0, 1]; ``(B, 3, 0, 0)`` where nobody wants them."""
    pyramid: Maps
    """Student maps ``(B, C, h, w)`` float32 by level: only those that training needs."""
    stages: Maps
    """Teacher maps likewise; empty without a teacher."""
    known: Tensor | None = None
    """``(B, c, c)`` bool: the cells that the labels are of; None for all."""


def turn(maps: Tensor, flip: int, quarter: int) -> Tensor:
    """``(..., h, w)`` mirrored left to right if `flip`, then turned by `quarter` right angles."""
    if flip:
        maps = maps.flip(-1)
    return torch.rot90(maps, quarter, (-2, -1)) if quarter else maps


def draw_turns(count: int, preset: Preset, generator: torch.Generator) -> Tensor:
    """``(B, 2)``: whether each patch is flipped left to right, then its quarter turns.

    Ours draws the eight views alike. The released code flips each way with probability 1/2, and
    turns with 1/2 by any number of quarters.
    """
    if preset == "wsiseg":
        flips, quarters = (torch.randint(n, (count,), generator=generator) for n in (2, 4))
        return torch.stack([flips, quarters], 1)
    across, down, turned = (torch.randint(2, (count,), generator=generator) for _ in range(3))
    quarters = turned * torch.randint(4, (count,), generator=generator)
    # A flip top to bottom is one left to right and half a turn.
    return torch.stack([across ^ down, (2 * down + quarters) % 4], 1)


class FrozenFeatures:
    """Batches of a set of patches, each patch flipped and turned as asked.

    Where both encoders are equivariant, or nothing is turned, what they see of a patch is kept
    (maps as float16, the image as bytes) and flipped and turned itself, as far as it fits in 1 GiB.
    Else it is computed every time.

    Parameters
    ----------
    levels, guided
        Levels that are wanted of the pyramid and of the teacher; None: the CAM's and the guided
        ones of the encoder.
    device
        Where the encoders are; None is the CPU.
    autocast
        Makes the context that the encoders compute in, for a lower precision.
    turns
        Whether any patch will be asked for flipped or turned.
    images
        Whether the images are wanted too, at whose regions the contrast looks; else they are empty.
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
        self._keeps, self._images = equivariant or not turns, images
        self._kept: dict[int, Seen] = {}
        self._room = _CACHE_BYTES

    def read(self, batch: Tensor, turns: Tensor) -> Seen:
        """Patches of the numbers `batch` ``(B,)``, turned by `turns` ``(B, 2)``: flip, quarter."""
        return next(iter(self.stream([(batch, turns)])))

    def stream(self, plan: Sequence[tuple[Tensor, Tensor]]) -> Iterator[Seen]:
        """Batch after batch of `read`; the pixels of the next are read while one is used."""
        with ThreadPoolExecutor(_READERS) as readers:
            waiting = self._fetch(readers, plan[0][0])
            for step, (batch, turns) in enumerate(plan):
                pixels = waiting
                if step + 1 < len(plan):
                    waiting = self._fetch(readers, plan[step + 1][0])
                yield self._see(batch.tolist(), turns.tolist(), pixels)

    def _fetch(self, readers: Executor, batch: Tensor) -> _Pixels:
        """Begin to read what of a batch is not kept."""
        wanted = [number for number in batch.tolist() if number not in self._kept]
        return {number: readers.submit(self._patches.read, [number]) for number in wanted}

    def _see(self, numbers: list[int], turns: list[list[int]], pixels: _Pixels) -> Seen:
        known = self._turn_known(numbers, turns)
        if self._keeps:
            kept = [self._recall(number, pixels) for number in numbers]
            seen = _stack([_turn(one, *how) for one, how in zip(kept, turns, strict=True)])
        else:
            images = [self._to_image(pixels[number]) for number in numbers]
            turned = [turn(i, *h) for i, h in zip(images, turns, strict=True)]
            seen = self._look(torch.stack(turned))
        return seen._replace(known=known)

    def _turn_known(self, numbers: list[int], turns: list[list[int]]) -> Tensor | None:
        if self._known is None:
            return None
        cells = torch.from_numpy(self._known[numbers]).to(self._device)
        return torch.stack([turn(one, *how) for one, how in zip(cells, turns, strict=True)])

    def _recall(self, number: int, pixels: _Pixels) -> Seen:
        """What is seen of a patch; what is new is looked at, and kept if it fits.

        One by one: what is seen of a patch must not depend on the batch it came with first, or a
        resumed run would round otherwise.
        """
        seen = self._kept.get(number)
        if seen is None:
            seen = _pack(self._look(self._to_image(pixels[number])[None]), 0)
            size = sum(part.nbytes for part in _parts(seen))
            if size <= self._room:
                self._kept[number] = seen
                self._room -= size
        return seen

    def _to_image(self, pixels: Future[NDArray[np.uint8]]) -> Tensor:
        """``(3, H, W)`` float32 in [0, 1]."""
        image = torch.from_numpy(pixels.result()[0]).to(self._device)
        return image.permute(2, 0, 1).float() / 255

    def _look(self, images: Tensor) -> Seen:
        with self._autocast():
            pyramid = self._encoder.pyramid(images, self._levels)
            stages: list[Tensor] = []
            if self._teacher is not None:
                stages = self._teacher.stages(images, self._guided)
        return Seen(
            images if self._images else images[..., :0, :0],
            {level: found.float() for level, found in zip(self._levels, pyramid, strict=True)},
            {level: found.float() for level, found in zip(self._guided, stages, strict=True)},
        )


def _parts(seen: Seen) -> list[Tensor]:
    return [seen.images, *seen.pyramid.values(), *seen.stages.values()]


def _pack(seen: Seen, at: int) -> Seen:
    """One patch of a batch, small enough to keep; images are whole numbers of 1/255."""
    pyramid, stages = ({i: m[at].half() for i, m in maps.items()} for maps in seen[1:3])
    return Seen((seen.images[at] * 255).round().to(torch.uint8), pyramid, stages)


def _turn(seen: Seen, flip: int, quarter: int) -> Seen:
    pyramid, stages = (
        {i: turn(one, flip, quarter) for i, one in maps.items()} for maps in seen[1:3]
    )
    return Seen(turn(seen.images, flip, quarter), pyramid, stages)


def _stack(batch: Sequence[Seen]) -> Seen:
    """Packed patches as one batch of float32; channels last, as adapters are a third faster so."""
    pyramid, stages = (
        {i: _join_maps([maps[i] for maps in many]) for i in many[0]}
        for many in ([seen.pyramid for seen in batch], [seen.stages for seen in batch])
    )
    return Seen(torch.stack([seen.images for seen in batch]).float() / 255, pyramid, stages)


def _join_maps(maps: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(maps)).float().contiguous(memory_format=torch.channels_last)
