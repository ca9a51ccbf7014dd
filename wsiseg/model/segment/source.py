"""A network of the second stage with what its checkpoint says: together a source of CAMs.

Its CAMs are the logits of cells, whose softmax gives the class probabilities. Which classes an
image shows is pooled from its evidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load as load_tensors
from torch import Tensor

from wsiseg.annotations import Palette
from wsiseg.errors import CheckpointError, ConfigError
from wsiseg.model.checkpoint import (
    CheckpointInfo,
    fill_tensors,
    find_checkpoint,
    read_info,
    write_checkpoint,
)
from wsiseg.model.segment import SegmentNetwork, SegmentOutput, empty_network
from wsiseg.model.segment.presence import pool_evidence, pool_shares
from wsiseg.model.source import Sides

__all__ = ["Segmenter", "load_segmenter", "save_segmenter"]


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
    def background(self) -> tuple[str, ...]:
        """The last channel's, if it was trained on the first stage's background."""
        return self.info.names[len(self.palette) :]

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
        output: SegmentOutput = self.network(images)
        return output.logits

    def look(self, images: Tensor) -> Tensor:
        """The CAMs, and as many channels of evidence if the network gives it."""
        output: SegmentOutput = self.network(images)
        if output.evidence is None:
            return output.logits
        factor = output.logits.shape[2] // output.evidence.shape[2]
        return torch.cat([output.logits, F.interpolate(output.evidence, scale_factor=factor)], 1)

    def pool(self, seen: Tensor, known: Tensor | None = None) -> Tensor:
        """``(B, channels)``: of the evidence; without it, of the CAMs' probabilities."""
        evidence = seen[:, self.channels :]
        return pool_evidence(evidence, known) if evidence.shape[1] else pool_shares(seen, known)

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
    tensors = load_tensors(path.read_bytes())
    presence = "presence.weight" in tensors  # which checkpoints of before do not have
    try:
        network = empty_network(info.encoder, len(info.names), presence=presence)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
    what = f"network {info.encoder!r} of {len(info.names)} channels"
    fill_tensors(network, network.state_dict(), tensors, path, what)
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise CheckpointError(f"{path}: {name} holds values that are not finite")
    return Segmenter(network.to(device).eval(), info)
