"""Networks of the second stage by name: images to logits of every cell, in one pass.

Images enter as ``(B, 3, H, W)`` float32 RGB in [0, 1]; each network normalises for itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from wsiseg.errors import ConfigError

__all__ = ["NETWORKS", "SegmentNetwork", "begin_network", "empty_network", "find_network"]


class SegmentNetwork(nn.Module):
    """The interface of a network of the second stage.

    ``(B, 3, H, W)`` to logits ``(B, channels, H / stride, W / stride)``. It is trained with batch
    norms, and used `folded`: the same function without them.
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

    @classmethod
    def begin(cls, channels: int, **options: Any) -> SegmentNetwork:
        """Make a network to be trained, with weights in its body if there are any."""
        raise NotImplementedError

    @classmethod
    def empty(cls, channels: int) -> SegmentNetwork:
        """Make a folded network, to load a checkpoint's tensors into."""
        raise NotImplementedError

    def folded(self) -> SegmentNetwork:
        """Return the same function in evaluation mode, as checkpoints hold it."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images."""
        raise NotImplementedError


NETWORKS: dict[str, str] = {
    "small": "wsiseg.model.segment.small:SmallSegmenter",
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


def empty_network(name: str, channels: int) -> SegmentNetwork:
    """Make the network `name`, folded, to load tensors into; `ConfigError` if it is unknown."""
    return find_network(name).empty(channels)


def find_network(name: str) -> type[SegmentNetwork]:
    """Return the class of the network `name`; raises `ConfigError` if it is unknown."""
    if name not in NETWORKS:
        raise ConfigError(f"network {name!r} is unknown; known are {', '.join(NETWORKS)}")
    module, attribute = NETWORKS[name].split(":")
    return cast(type[SegmentNetwork], getattr(import_module(module), attribute))
