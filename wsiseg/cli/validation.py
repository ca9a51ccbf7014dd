"""The data of `--validate`: a folder or table of other patches, or a share of these."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from wsiseg.config import TrainConfig
from wsiseg.errors import ConfigError

if TYPE_CHECKING:
    from wsiseg.train import PatchSource, Validate

__all__ = ["Split", "count_cases", "open_other", "open_validation", "read_share"]


class Split(NamedTuple):
    """The training patches, and the score that chooses the epoch."""

    patches: PatchSource
    validate: Validate
    held_out: str
    """A short description of the held-out data."""


def open_validation(given: str, patches: PatchSource, config: TrainConfig) -> Split:
    """Open the validation data, from other files or held out of the `patches`.

    Parameters
    ----------
    given
        A folder with ``img/`` and ``mask/`` (or a data set with them in ``valid/``), a folder or
        table of labelled patches, or a share of `patches` such as ``0.2``.

    Raises
    ------
    ConfigError
        If it is none of these.
    DataError
        If patches are invalid, or cannot be split.
    """
    from wsiseg.train import HeldOut, hold_out

    if Path(given).exists():
        shown = config.classes[: len(config.classes) - len(config.background)]
        return Split(patches, *open_other(Path(given), config.classes, shown))
    kept, out = hold_out(patches, read_share(given), config.classes, config.seed)
    return Split(kept, HeldOut(out), f"{len(out)} patches of {count_cases(out.cases)}")


def open_other(path: Path, classes: Sequence[str], shown: Sequence[str]) -> tuple[Validate, str]:
    """Open other patches that choose the epoch; also return a short description.

    Parameters
    ----------
    classes
        All class names of the model, which labels may use; they may leave out the background.
    shown
        Those that are no background, in the order of mask numbers.

    Raises
    ------
    DataError
        If anything is wrong with the patches.
    """
    from wsiseg.train import HeldOut, load_patches

    if path.is_dir() and _has_masks(path):
        from wsiseg.evaluate import MaskScore, load_masked_patches

        masked = load_masked_patches(path, shown, "valid")
        return MaskScore(masked), f"{len(masked)} patches with masks"
    background = classes[len(shown) :]
    other = load_patches(path, shown, background=background, to_learn=False)
    return HeldOut(other), f"{len(other)} patches with labels"


def read_share(given: str) -> float:
    """Read the share of patches in `--validate`; raises `ConfigError` if it is not one."""
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


def count_cases(cases: Sequence[str | None]) -> str:
    """Describe the number of known cases."""
    known = set(cases) - {None}
    return f"{len(known)} case(s)" if known else "unknown cases, held out one by one"
