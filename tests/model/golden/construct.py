"""Golden arrays of the released model and its training steps, and its synthetic weights."""

from __future__ import annotations

import json
import zlib
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.model.golden import HERE


@cache
def _held() -> dict[str, Any]:
    return dict(json.loads((HERE / "construct.json").read_text()))


@cache
def _arrays() -> dict[str, NDArray[Any]]:
    with np.load(HERE / "construct.npz") as held:
        return {name: held[name] for name in held.files}


def names(start: str) -> list[str]:
    """Of the golden arrays that begin with `start`."""
    return [name for name in _held()["arrays"] if name.startswith(start)]


def array(name: str) -> Tensor:
    return torch.from_numpy(np.array(_arrays()[name]))


def make_tensors(case: str = "224") -> dict[str, Tensor]:
    """The trained part by the released names, and ``extra.memory_queue``."""
    tensors = {row[0]: _fill(*row[1:]) for row in _held()["tensors"]}
    tensors["prototypes"] = array(f"{case}/prototypes_text_init")
    return tensors


def _fill(seed: str, shape: list[int], kind: str, mean: float, std: float) -> Tensor:
    if kind == "const":
        counts = seed.endswith("num_batches_tracked")
        return torch.full(shape, mean, dtype=torch.int64 if counts else torch.float32)
    random = np.random.Generator(np.random.Philox(key=zlib.crc32(seed.encode())))
    values = random.standard_normal(int(np.prod(shape)))
    if kind == "absnorm":
        np.abs(values, out=values)
    values *= std
    values += mean
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def check(name: str, mine: Tensor) -> None:
    """Compare the whole of `mine` with the golden array within its tolerance."""
    entry, wanted = _held()["arrays"][name], _arrays()[name].astype(np.float64)
    assert list(mine.shape) == entry["full_shape"], name
    cut = tuple(slice(*axis) for axis in entry["slice"] or ())
    found = mine.detach().double().numpy()[cut]
    off = np.abs(found - wanted) > entry["atol"] + entry["rtol"] * np.abs(wanted)
    assert off.mean() <= entry.get("max_outside", 0), (
        f"{name}: {off.mean():.2%} outside, largest {np.abs(found - wanted).max():g}"
    )
