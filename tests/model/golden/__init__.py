"""Golden arrays of the released code, and the synthetic weights that they were made with.

Nobody needs pretrained weights to show that a model computes the same numbers: each tensor is
filled from its own name, bit for bit the same on every machine.

The arrays are named ``<case>/<array>``: cases 224 and 448 (the model and its training), text, mit,
unit (small pairs of input and output) and e2e (a whole validation). `test_inventory` holds that
each of them is asserted by a test that says so (`asserts`), or why not.
"""

from __future__ import annotations

import functools
import json
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

HERE = Path(__file__).parent

_Test = TypeVar("_Test", bound=Callable[..., None])


@cache
def manifests() -> dict[str, Any]:
    """`conch`, `mit_b1`: rows (name, shape, mean, std) or (name, shape, constant);
    `mit_b1_official`: rows (name, names in `mit_b1` that are joined to it);
    `construct`: rows (name, name that seeds it, shape, kind, mean, std)."""
    return dict(json.loads((HERE / "manifests.json").read_text()))


def fill(name: str, shape: Sequence[int], *rule: float, positive: bool = False) -> Tensor:
    """One float32 tensor; `rule` is a constant, or mean and standard deviation."""
    if len(rule) == 1:
        return torch.full(list(shape), rule[0])
    mean, std = rule
    random = np.random.Generator(np.random.Philox(key=zlib.crc32(name.encode())))
    values = random.standard_normal(int(np.prod(shape)))
    if positive:
        np.abs(values, out=values)
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


@dataclass(frozen=True)
class Entry:
    """What is known of one golden array; every tolerance is the reference set's own."""

    shape: tuple[int, ...]
    """Of the whole array, of which a part may be kept."""
    atol: float
    rtol: float
    slice: tuple[tuple[int | None, ...], ...] = ()
    """Start, stop and step of each axis of the part that is kept; empty: all of it."""
    outside: float = 0.0
    """Share of the elements that may be further off."""
    stats: tuple[float, ...] = ()
    """Mean, standard deviation, least, largest and L2 norm of the whole array."""
    same_as: str = ""
    """The array that holds the same bytes."""


@cache
def index() -> dict[str, Entry]:
    """Every array of the reference set by name."""
    held = json.loads((HERE / "index.json").read_text())
    return {name: Entry(**entry) for name, entry in held.items()}


@cache
def _case(case: str) -> dict[str, NDArray[Any]]:
    with np.load(HERE / f"{case}.npz") as held:
        return {name: held[name] for name in held.files}


def array(name: str) -> NDArray[Any]:
    """A copy of what is kept of one array."""
    case, _, rest = (index()[name].same_as or name).partition("/")
    kept = _case(case)[rest]
    if name == "224/crf_image":  # kept as where it is one less than the image
        images = array("224/images")
        off = np.unpackbits(kept)[: images.size].reshape(images.shape)
        return np.asarray(images - off)
    return kept.copy()


def names(*patterns: str) -> list[str]:
    """Of the golden arrays that fit a pattern such as ``224/grad.*``."""
    return [name for name in index() if any(fnmatchcase(name, one) for one in patterns)]


def images(case: str) -> Tensor:
    """``(B, 3, H, W)`` float32 RGB in [0, 1]."""
    return torch.from_numpy(array(f"{case}/images")).permute(0, 3, 1, 2).float() / 255


def check(name: str, mine: Tensor | NDArray[Any] | float, rows: int | None = None) -> None:
    """Compare the whole of `mine`, or its only `rows`, with the golden array within tolerance."""
    entry, wanted = index()[name], array(name).astype(np.float64)
    if rows is not None:
        wanted = wanted[:rows]
    found = np.asarray(mine.detach().cpu() if isinstance(mine, Tensor) else mine, np.float64)
    full = entry.shape if rows is None else (rows, *entry.shape[1:])
    assert found.shape == tuple(full), f"{name}: {found.shape}, should be {tuple(full)}"
    if entry.stats and rows is None and not entry.outside:
        _check_stats(name, entry, found)
    part = found[tuple(slice(*axis) for axis in entry.slice)]
    off = np.where(np.isnan(part) & np.isnan(wanted), 0, np.abs(part - wanted))
    outside = ~(off <= entry.atol + entry.rtol * np.abs(np.nan_to_num(wanted)))
    assert outside.mean() <= entry.outside, (
        f"{name}: {outside.mean():.2%} outside atol {entry.atol:g} + rtol {entry.rtol:g}, "
        f"largest difference {off.max():g}"
    )
    _checked.add(name)


def _check_stats(name: str, entry: Entry, found: NDArray[np.float64]) -> None:
    """The whole array, where only a part of it is kept."""
    norm = np.linalg.norm(found)
    mine = np.array([found.mean(), found.std(), found.min(), found.max(), norm])
    wanted = np.array(entry.stats)
    room = entry.atol * np.array([1, 1, 1, 1, np.sqrt(found.size)]) + entry.rtol * np.abs(wanted)
    assert (np.abs(mine - wanted) <= room).all(), f"{name}: {mine} of the whole, not {wanted}"


_checked: set[str] = set()
"""Names that the running test has checked."""


def asserts(*patterns: str, needs: str = "") -> Callable[[_Test], _Test]:
    """Mark a test, which then fails unless it checks every golden array that `patterns` name.

    Of a test with a parameter `case`, each run is held to the names that begin with it. `needs` is
    the package without which the test is skipped.
    """

    def mark(test: _Test) -> _Test:
        @functools.wraps(test)
        def run(*args: Any, **kwargs: Any) -> None:
            _checked.clear()
            test(*args, **kwargs)
            start = str(kwargs.get("case", ""))
            left = [n for n in names(*patterns) if n.startswith(start) and n not in _checked]
            assert not left, f"says that it asserts {left}, and did not"

        run.asserts, run.needs = patterns, needs  # type: ignore[attr-defined] # read by test_inventory
        return run  # type: ignore[return-value] # wraps keeps the signature

    return mark


def asserted_by(tests: Iterable[object]) -> tuple[list[str], list[str]]:
    """Names that `tests` assert: those asserted everywhere, and those that need a package."""
    kinds: tuple[list[str], list[str]] = ([], [])
    for test in tests:
        if hasattr(test, "needs"):
            kinds[bool(test.needs)].extend(names(*test.asserts))  # type: ignore[attr-defined] # set by `asserts`
    return kinds
