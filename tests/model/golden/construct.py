"""The released model's trained part, as it was when the golden arrays were made."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tests.model import golden


def array(name: str) -> Tensor:
    return torch.from_numpy(np.array(golden.array(name)))


def make_tensors(case: str = "224") -> dict[str, Tensor]:
    """The trained part by the released names, and ``extra.memory_queue``."""
    tensors = {row[0]: _fill(*row[1:]) for row in golden.manifests()["construct"]}
    tensors["prototypes"] = array(f"{case}/prototypes_text_init")
    return tensors


def _fill(seed: str, shape: list[int], kind: str, mean: float, std: float) -> Tensor:
    if kind == "const":
        counts = seed.endswith("num_batches_tracked")
        return torch.full(shape, mean, dtype=torch.int64 if counts else torch.float32)
    return golden.fill(seed, shape, mean, std, positive=kind == "absnorm")
