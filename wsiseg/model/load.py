"""Load a checkpoint of any kind as a source of CAMs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from wsiseg.model.checkpoint import read_info
from wsiseg.model.segment.source import Segmenter, load_segmenter
from wsiseg.model.trained import TrainedModel, load_trained

__all__ = ["load_source"]


def load_source(
    name_or_path: str | Path,
    encoder_options: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
) -> TrainedModel | Segmenter:
    """Load the model of a checkpoint onto a device.

    Raises
    ------
    CheckpointError
        As `load_checkpoint` and `load_segmenter` do.
    """
    segmenter = read_info(name_or_path).kind == "segmenter"
    load = load_segmenter if segmenter else load_trained
    return load(name_or_path, encoder_options, device)
