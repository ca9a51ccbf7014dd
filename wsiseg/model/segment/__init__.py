"""Networks of the second stage by name: images to logits of every cell, in one pass.

Beside them goes evidence of which classes an image shows at all, by which it is gated.

Images enter as ``(B, 3, H, W)`` float32 RGB in [0, 1]; each network normalises for itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar, NamedTuple, cast

from torch import Tensor, nn

from wsiseg.errors import ConfigError

__all__ = [
    "NETWORKS",
    "SegmentNetwork",
    "SegmentOutput",
    "begin_network",
    "empty_network",
    "find_network",
]


class SegmentOutput(NamedTuple):
    """Output of a network for ``(B, 3, H, W)`` images."""

    logits: Tensor
    """``(B, channels, H / stride, W / stride)``: of which channel each cell is."""
    evidence: Tensor | None
    """``(B, channels, h, w)`` at a coarser stride: logits of showing a class, to be pooled by
    `pool_evidence`; None of a network without `presence`."""


class SegmentNetwork(nn.Module, ABC):
    """The interface of a network of the second stage.

    It is trained with batch norms, and used `folded`: the same function without them.
    """

    stride: ClassVar[int]
    """Input pixels per logit."""
    step: ClassVar[int]
    """Sides of images are multiples of it."""
    context: ClassVar[int]
    """Pixels of surroundings that improve an image's logits, as `CamSource.context`."""
    mean: ClassVar[tuple[float, float, float]]
    """Mean of its normalisation, RGB in [0, 1]."""
    std: ClassVar[tuple[float, float, float] | None]
    """Standard deviation of its normalisation."""
    options: ClassVar[tuple[str, ...]] = ("weights",)
    """Options that `begin` takes besides the channels."""
    begun: str
    """Identity of the weights that its body started from; empty: random ones."""
    body: nn.Module
    """The part that may start from given weights; the rest starts at random."""
    body_rate: ClassVar[float]
    """Learning rate of a body that started so, as a share of the rest's; 0 keeps it as it is."""
    presence: nn.Conv2d | None
    """From a map of the body to the evidence, which does not train the body. None in checkpoints
    of before there was one."""

    @classmethod
    @abstractmethod
    def begin(cls, channels: int, **options: Any) -> SegmentNetwork:
        """Make a network to be trained, with weights in its body if there are any."""

    @classmethod
    @abstractmethod
    def empty(cls, channels: int, *, presence: bool = True) -> SegmentNetwork:
        """Make a folded network, with `presence` or without, to load tensors into."""

    @abstractmethod
    def folded(self) -> SegmentNetwork:
        """Return the same function in evaluation mode, as checkpoints hold it."""

    @abstractmethod
    def forward(self, images: Tensor) -> SegmentOutput:
        """Logits and evidence of images."""


NETWORKS: dict[str, str] = {
    "ensemble": "wsiseg.model.segment.unet:EnsembleSegmenter",
    "lite": "wsiseg.model.segment.unet:LiteSegmenter",
    "small": "wsiseg.model.segment.unet:SmallSegmenter",
    "segformer-b0": "wsiseg.model.segment.segformer:SegformerB0",
    "segformer-b1": "wsiseg.model.segment.segformer:SegformerB1",
}
"""Where to find each network, as ``module:name``."""


def begin_network(name: str, channels: int, options: Mapping[str, Any]) -> SegmentNetwork:
    """Make the network `name`, to be trained; torch's random numbers fill what has no weights.

    Raises
    ------
    ConfigError
        If the name or an option is unknown; lists the known ones.
    CheckpointError
        If its weights are not found or are not its own.
    """
    network = find_network(name)
    unknown = sorted(options.keys() - set(network.options))
    if unknown:
        raise ConfigError(
            f"network {name!r} has no option {', '.join(map(repr, unknown))}; it takes "
            f"{', '.join(network.options)}"
        )
    return network.begin(channels, **options)


def empty_network(name: str, channels: int, *, presence: bool = True) -> SegmentNetwork:
    """Make the network `name`, folded, to load tensors into; `ConfigError` if it is unknown."""
    return find_network(name).empty(channels, presence=presence)


def find_network(name: str) -> type[SegmentNetwork]:
    """Return the class of the network `name`; raises `ConfigError` if it is unknown."""
    if name not in NETWORKS:
        raise ConfigError(f"network {name!r} is unknown; known are {', '.join(NETWORKS)}")
    module, attribute = NETWORKS[name].split(":")
    return cast(type[SegmentNetwork], getattr(import_module(module), attribute))
