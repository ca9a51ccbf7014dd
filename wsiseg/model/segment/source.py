"""A network of the second stage and what its checkpoint says, which together are a source of CAMs.

Its CAMs are logits of places, whose softmax is what it thinks of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from torch import Tensor

from wsiseg.annotations import Palette
from wsiseg.errors import CheckpointError, ConfigError
from wsiseg.model.cam import known_shares
from wsiseg.model.checkpoint import (
    CheckpointInfo,
    fill_tensors,
    find_checkpoint,
    read_info,
    write_checkpoint,
)
from wsiseg.model.segment import SegmentNetwork, empty_network
from wsiseg.model.source import Sides

__all__ = ["Segmenter", "load_segmenter", "save_segmenter"]

_SHOWN = 0.05
"""A class shows in an image if it is likely in this share of its places: as `class_fraction`."""
_LEAST = 1e-4  # of a probability, so that its logit is finite


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A network of the second stage as a `CamSource`."""

    network: SegmentNetwork
    """Folded."""
    info: CheckpointInfo

    @property
    def name(self) -> str:
        """The network, by its name."""
        return f"network {self.info.encoder!r}"

    @property
    def palette(self) -> Palette:
        """Names and colours of the checkpoint's classes."""
        return self.info.palette

    @property
    def channels(self) -> int:
        """K, and one more if it learned what the first stage calls background."""
        return len(self.info.names)

    @property
    def calibration(self) -> tuple[tuple[float, float], ...]:
        """The checkpoint's: of ones and zeros if it learned from confidence that was calibrated."""
        return self.info.calibration

    @property
    def stride(self) -> int:
        """Input pixels a logit."""
        return self.network.stride

    @property
    def sides(self) -> Sides:
        """Multiples of the coarsest map's cell."""
        return Sides(self.network.step, self.network.step)

    @property
    def tile(self) -> int:
        """Side of the training windows, pixels."""
        return self.info.tile

    @property
    def context(self) -> int:
        """The network's."""
        return self.network.context

    @property
    def mpp(self) -> float:
        """µm/px of the training windows."""
        return self.info.mpp

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    @property
    def mean(self) -> tuple[float, float, float]:
        """The network's mean colour."""
        return self.network.mean

    @property
    def std(self) -> tuple[float, float, float] | None:
        """The network's spread of colours, if it normalises by one."""
        return self.network.std

    @property
    def exclusive(self) -> bool:
        """True: a place is of one class, and the logits say of which."""
        return True

    def cams(self, images: Tensor) -> Tensor:
        """``(B, channels, h, w)`` logits."""
        logits: Tensor = self.network(images)
        return logits

    def pool(self, cams: Tensor, known: Tensor | None = None) -> Tensor:
        """``(B, channels)``: logit of each class's probability where it is most likely.

        That is the mean over a twentieth of the (known) places, those of the highest probability.
        """
        shares = cams.float().softmax(1).flatten(2)
        counts = shares.new_full((len(shares),), shares.shape[2])
        if known is not None:
            seen = known_shares(known, cams.shape[2:]) >= 0.5
            # Where no cell is known for the most part, those that are at all count.
            seen = torch.where(
                seen.any(2, keepdim=True), seen, known_shares(known, cams.shape[2:]) > 0
            )
            shares, counts = shares * seen, seen.sum((1, 2)).to(shares.dtype)
        most = (_SHOWN * counts).ceil().clamp_min(1).long()
        ranked = shares.topk(int(most.max()), 2).values.cumsum(2)
        index = (most - 1)[:, None, None].expand(-1, shares.shape[1], 1)
        mean = ranked.gather(2, index)[..., 0] / most[:, None]
        return torch.logit(mean, _LEAST)

    def distance(self, images: Tensor) -> Tensor | None:
        """None: where its training windows lie is not kept."""
        return None

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """It is folded, so it is always as in use."""
        yield


def save_segmenter(network: SegmentNetwork, info: CheckpointInfo, path: str | Path) -> Path:
    """Write a folded network and `info`; the file appears whole or not at all."""
    state = {
        name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()
    }
    return write_checkpoint(state, info, path)


def load_segmenter(
    name_or_path: str | Path,
    encoder_options: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
) -> Segmenter:
    """The network of a checkpoint on a device.

    Raises
    ------
    CheckpointError
        If the file is missing, is no checkpoint or of another kind, its tensors do not fit the
        network and the classes that it names, or options are given: it holds all its weights.
    """
    info, path = read_info(name_or_path), find_checkpoint(name_or_path)
    if info.kind != "segmenter":
        raise CheckpointError(
            f"{path}: is a {info.kind} of `wsiseg train`; a checkpoint of `wsiseg distill` is "
            f"needed here"
        )
    if encoder_options:
        raise CheckpointError(
            f"{path}: is a segmenter, which holds all its weights; leave encoder_options out"
        )
    try:
        network = empty_network(info.encoder, len(info.names))
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
    tensors = load_tensors(path.read_bytes())
    what = f"network {info.encoder!r} of {len(info.names)} channels"
    fill_tensors(network, network.state_dict(), tensors, path, what)
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise CheckpointError(f"{path}: {name} holds values that are no finite numbers")
    return Segmenter(network.to(device).eval(), info)
