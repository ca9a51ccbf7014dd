"""What `wsiseg train --validate` names: a folder or table of other patches, or a share of these."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from wsiseg.config import TrainConfig
from wsiseg.errors import ConfigError

if TYPE_CHECKING:
    from wsiseg.train import PatchSource, Validate

__all__ = ["Split", "open_validation"]


class Split(NamedTuple):
    """What is trained on, and what chooses the epoch."""

    patches: PatchSource
    validate: Validate
    held_out: str
    """What is held out, in a few words."""


def open_validation(given: str, patches: PatchSource, config: TrainConfig) -> Split:
    """Find what is held out of, or beside, the `patches`.

    Parameters
    ----------
    given
        A folder with ``img/`` and ``mask/`` (or a data set with them in ``valid/``), a folder or
        table of labelled patches, or a share of `patches` such as ``0.2``.

    Raises
    ------
    ConfigError
        If it is neither.
    DataError
        If patches are wrong, or cannot be split.
    """
    from wsiseg.train import HeldOut, hold_out, load_patches

    path = Path(given)
    if not path.exists():
        kept, out = hold_out(patches, _read_share(given), config.classes, config.seed)
        return Split(kept, HeldOut(out), f"{len(out)} patches of {_count_cases(out.cases)}")
    if path.is_dir() and _has_masks(path):
        from wsiseg.evaluate import MaskScore, load_masked_patches

        shown = config.classes[: len(config.classes) - len(config.background)]
        masked = load_masked_patches(path, shown, "valid")
        return Split(patches, MaskScore(masked), f"{len(masked)} patches with masks")
    other = load_patches(path, config.classes, to_learn=False)
    return Split(patches, HeldOut(other), f"{len(other)} patches with labels")


def _read_share(given: str) -> float:
    try:
        share = float(given)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise ConfigError(
            f"--validate {given}: is neither a folder, a table, nor a share of the patches between "
            f"0 and 1, such as 0.2"
        )
    return share


def _has_masks(folder: Path) -> bool:
    return any((part / "mask").is_dir() for part in (folder, folder / "valid", folder / "val"))


def _count_cases(cases: Sequence[str | None]) -> str:
    known = set(cases)
    return f"{len(known)} case(s)" if known - {None} else "no known case, one by one"
