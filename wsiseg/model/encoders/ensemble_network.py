"""The networks of `lite` and `small` as one, whose levels are those of both side by side."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from wsiseg.model.encoders.descriptors import Descriptors
from wsiseg.model.encoders.half_network import HalfNetwork
from wsiseg.model.encoders.lite_network import LiteNetwork
from wsiseg.model.encoders.small_network import SmallNetwork

__all__ = ["EnsembleNetwork"]


def _channels(level: int) -> int:
    return LiteNetwork.channels[level] + SmallNetwork.channels[level]


class EnsembleNetwork(HalfNetwork):
    """Each level has the channels of `lite` and after them those of `small`.

    The fixed filters, which both have, are computed once; they are the finest level.
    """

    channels: ClassVar[tuple[int, int, int, int]] = (
        Descriptors.COUNT, _channels(1), _channels(2), _channels(3),
    )  # fmt: skip

    def __init__(self, lite: HalfNetwork | None = None, small: HalfNetwork | None = None) -> None:
        super().__init__()
        self.lite = LiteNetwork() if lite is None else lite
        self.small = SmallNetwork() if small is None else small

    def look(
        self, half: Tensor, deepest: int = 2, filtered: Tensor | None = None
    ) -> dict[int, Tensor]:
        """Compute the levels from 1 on, up to `deepest`, as `HalfNetwork` says."""
        each = self.look_apart(half, deepest, filtered)
        return {level: torch.cat([own[level] for own in each], 1) for level in each[0]}

    def look_apart(
        self, half: Tensor, deepest: int = 2, filtered: Tensor | None = None
    ) -> list[dict[int, Tensor]]:
        """`look` of each of the two."""
        filtered = self.filter(half) if filtered is None else filtered
        return [network.look(half, deepest, filtered) for network in (self.lite, self.small)]
