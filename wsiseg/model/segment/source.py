"""A network of the second stage with what its checkpoint says: together a source of CAMs.

Its CAMs are the logits of cells, whose softmax gives the class probabilities.
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

_SHARE = 0.05
"""A class is present if it is likely in this share of an image's cells: as `class_fraction`."""
_EPSILON = 1e-4  # probabilities are kept this far from 0 and 1, so that logits are finite


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
        """K, plus one if it was trained on the first stage's background."""
        return len(self.info.names)

    @property
    def calibration(self) -> tuple[tuple[float, float], ...]:
        """The checkpoint's; ones and zeros if it was trained on calibrated confidence."""
        return self.info.calibration

    @property
    def stride(self) -> int:
        """Input pixels per logit."""
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
        """The device of the weights."""
        return next(self.network.parameters()).device

    @property
    def mean(self) -> tuple[float, float, float]:
        """The network's mean colour."""
        return self.network.mean

    @property
    def std(self) -> tuple[float, float, float] | None:
        """The standard deviation of the network's normalisation, if it has one."""
        return self.network.std

    @property
    def exclusive(self) -> bool:
        """True: each cell is of one class, and the softmax gives its probability."""
        return True

    def cams(self, images: Tensor) -> Tensor:
        """``(B, channels, h, w)`` logits."""
        logits: Tensor = self.network(images)
        return logits

    def pool(self, cams: Tensor, known: Tensor | None = None) -> Tensor:
        """``(B, channels)``: logit of each class's probability where it is most likely.

        That is the mean over a twentieth of the (known) cells, those of the highest probability.
        """
        shares = cams.float().softmax(1).flatten(2)
        counts = shares.new_full((len(shares),), shares.shape[2])
        if known is not None:
            parts = known_shares(known, cams.shape[2:])
            used = parts >= 0.5
            # If no cell is known for the most part, use those that are known in part.
            used = torch.where(used.any(2, keepdim=True), used, parts > 0)
            shares, counts = shares * used, used.sum((1, 2)).to(shares.dtype)
        top = (_SHARE * counts).ceil().clamp_min(1).long()
        sums = shares.topk(int(top.max()), 2).values.cumsum(2)
        index = (top - 1)[:, None, None].expand(-1, shares.shape[1], 1)
        mean = sums.gather(2, index)[..., 0] / top[:, None]
        return torch.logit(mean, _EPSILON)

    def distance(self, images: Tensor) -> Tensor | None:
        """None: the distribution of its training windows is not recorded."""
        return None

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Do nothing: a folded network is always in evaluation mode."""
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
    """Load the network of a checkpoint onto a device.

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
            raise CheckpointError(f"{path}: {name} holds values that are not finite")
    return Segmenter(network.to(device).eval(), info)
