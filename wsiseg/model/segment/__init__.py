"""Networks of the second stage by name: images to logits of every place, in one pass.

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
    """What a network of the second stage promises.

    ``(B, 3, H, W)`` to logits ``(B, channels, H / stride, W / stride)``. It learns in a form with
    batch norms, and is used `folded`: the same function without them.
    """

    stride: ClassVar[int]
    """Input pixels a logit."""
    step: ClassVar[int]
    """Sides of images are multiples of it."""
    context: ClassVar[int]
    """Pixels around an image by which its logits gain, as `CamSource.context`."""
    mean: ClassVar[tuple[float, float, float]]
    """Mean of its normalisation, RGB in [0, 1]."""
    std: ClassVar[tuple[float, float, float] | None]
    """Spread of its normalisation."""
    options: ClassVar[tuple[str, ...]] = ("weights",)
    """What `begin` takes beside the channels."""
    begun: str
    """Identity of the weights that its body began as; empty: random ones."""
    body: nn.Module
    """The part that may begin as weights; the rest begins at random."""

    @classmethod
    def begin(cls, channels: int, **options: Any) -> SegmentNetwork:
        """To be trained, with weights in its body where there are any."""
        raise NotImplementedError

    @classmethod
    def empty(cls, channels: int) -> SegmentNetwork:
        """Folded, to take the tensors of a checkpoint."""
        raise NotImplementedError

    def folded(self) -> SegmentNetwork:
        """The same function in evaluation mode, as checkpoints hold it."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images."""
        raise NotImplementedError


NETWORKS: dict[str, str] = {
    "small": "wsiseg.model.segment.small:SmallSegmenter",
    "segformer-b0": "wsiseg.model.segment.segformer:SegformerB0",
    "segformer-b1": "wsiseg.model.segment.segformer:SegformerB1",
}
"""Where each network is found, as ``module:name``."""


def begin_network(name: str, channels: int, options: Mapping[str, Any]) -> SegmentNetwork:
    """The network `name`, to be trained; torch's random numbers decide what has no weights.

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
    """The network `name`, folded, to take tensors; raises `ConfigError` if it is unknown."""
    return find_network(name).empty(channels)


def find_network(name: str) -> type[SegmentNetwork]:
    """The class of the network `name`; raises `ConfigError` if it is unknown."""
    if name not in NETWORKS:
        raise ConfigError(f"network {name!r} is unknown; known are {', '.join(NETWORKS)}")
    module, attribute = NETWORKS[name].split(":")
    return cast(type[SegmentNetwork], getattr(import_module(module), attribute))
