"""Golden arrays of the released code, and the synthetic weights that they were made with.

Nobody needs pretrained weights to show that a model computes the same numbers: each tensor is
filled from its own name, bit for bit the same on every machine.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

HERE = Path(__file__).parent


@cache
def manifests() -> dict[str, Any]:
    """`conch`, `mit_b1`: rows (name, shape, mean, std) or (name, shape, constant);
    `mit_b1_official`: rows (name, names in `mit_b1` that are joined to it)."""
    return dict(json.loads((HERE / "manifests.json").read_text()))


def fill(name: str, shape: list[int], *rule: float) -> Tensor:
    """One float32 tensor; `rule` is a constant, or mean and standard deviation."""
    if len(rule) == 1:
        return torch.full(shape, rule[0])
    mean, std = rule
    random = np.random.Generator(np.random.Philox(key=zlib.crc32(name.encode())))
    values = random.standard_normal(int(np.prod(shape)))
    values *= std
    values += mean
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def make_tensors(model: str) -> dict[str, Tensor]:
    return {row[0]: fill(*row) for row in manifests()[model]}


def make_official_mit() -> dict[str, Tensor]:
    hub = make_tensors("mit_b1")
    return {
        name: torch.cat([hub[part] for part in parts])
        for name, parts in manifests()["mit_b1_official"]
    }


def make_hollow(model: str) -> dict[str, Tensor]:
    """Zeros of the right names and shapes, in a file of a few kilobytes."""
    return {row[0]: torch.zeros(()).expand(row[1]) for row in manifests()[model]}


@cache
def _arrays() -> dict[str, NDArray[Any]]:
    with np.load(HERE / "encoders.npz") as held:
        return {name: held[name] for name in held.files}


@cache
def _index() -> dict[str, Any]:
    return dict(json.loads((HERE / "encoders.json").read_text()))


def array(name: str) -> NDArray[Any]:
    return _arrays()[name]


def images(case: str) -> Tensor:
    """``(B, 3, H, W)`` float32 RGB in [0, 1]."""
    return torch.from_numpy(array(f"{case}/images")).permute(0, 3, 1, 2).float() / 255


def check(name: str, mine: Tensor, rows: int | None = None) -> None:
    """Compare the whole of `mine`, or its only `rows`, with the golden array within tolerance."""
    entry, wanted = _index()[name], array(name)[:rows]
    assert list(mine.shape) == [len(wanted), *entry["full_shape"][1:]], name
    cut: Iterable[Any] = (slice(*axis) for axis in entry["slice"] or ())
    found = mine.detach().double().numpy()[tuple(cut)]
    np.testing.assert_allclose(found, wanted, rtol=entry["rtol"], atol=entry["atol"], err_msg=name)
