"""Golden arrays of the released code's inference and evaluation (reference set A)."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

HERE = Path(__file__).parent
MINI_BCSS = HERE.parent / "mini_bcss"


@cache
def _arrays() -> dict[str, NDArray[Any]]:
    with np.load(HERE / "evaluation.npz") as held:
        return {name: held[name] for name in held.files}


@cache
def _index() -> dict[str, Any]:
    return dict(json.loads((HERE / "evaluation.json").read_text()))


def array(name: str) -> NDArray[Any]:
    return np.array(_arrays()[name])


def check(name: str, mine: Tensor | NDArray[Any]) -> None:
    """Compare the whole of `mine` with the golden array within its tolerance."""
    entry, wanted = _index()[name], _arrays()[name].astype(np.float64)
    found = mine.numpy() if isinstance(mine, Tensor) else mine
    assert list(found.shape) == entry["full_shape"], name
    found = found[tuple(slice(*axis) for axis in entry["slice"] or ())].astype(np.float64)
    off = np.abs(found - wanted) > entry["atol"] + entry["rtol"] * np.abs(wanted)
    assert off.mean() <= entry.get("max_outside", 0), (
        f"{name}: {off.mean():.2%} outside, largest {np.abs(found - wanted).max():g}"
    )
