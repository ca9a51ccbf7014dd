"""An unfinished training run on disk: written after each epoch, resumed by the next call."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from torch import Tensor

from wsiseg.atomic import open_atomic
from wsiseg.config import TrainConfig, digest_of
from wsiseg.errors import CheckpointError, ConfigError
from wsiseg.model.card import Card
from wsiseg.model.checkpoint import read_info
from wsiseg.model.encoders import keep_portable
from wsiseg.model.weights import translated
from wsiseg.train.patches import PatchSource

__all__ = [
    "Unfinished",
    "check_out",
    "discard_results",
    "is_finished",
    "name_best",
    "name_unfinished",
    "read_unfinished",
    "run_digest",
    "write_unfinished",
]


class Unfinished(TypedDict):
    """The state of a run after an epoch, before it is scored."""

    digest: str
    """Digest of everything that decides its result: another run's file is not resumed."""
    epoch: int
    """Epochs done."""
    trainer: dict[str, Any]
    """`Trainer.state`."""
    generator: NotRequired[Tensor]
    """State of the generator that orders and turns the patches, if steps depend on it."""
    history: list[list[float]]
    """The losses so far."""
    best: float
    """Score of the best of the epochs before."""
    scores: list[float]
    """Score of each epoch before, if patches are held out."""


def run_digest(
    patches: PatchSource, config: TrainConfig, identities: list[str], note: str, validation: str
) -> str:
    """Hash the settings, patches and frozen weights, wherever these are stored."""
    plain = config.model_dump(mode="json")
    for options in ("encoder_options", "teacher_options"):
        plain[options] = keep_portable(plain[options])
    return digest_of(plain, patches.identity, identities, note, validation)


def write_unfinished(state: Unfinished, path: Path) -> None:
    """Write `state`; the file appears whole or not at all."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    with open_atomic(path) as file:
        file.write(buffer.getvalue())


def name_best(out: Path) -> Path:
    """Name the file of the best epoch, beside that of the last one."""
    return out.with_name(f"{out.stem}.best{out.suffix}")


def name_unfinished(out: Path) -> Path:
    """Name the file of the state to resume from."""
    return out.with_name(f"{out.name}.unfinished")


def check_out(out: Path, digest: str, card: Card, *, overwrite: bool) -> None:
    """Refuse an `out` that the run of this digest and card would refuse, without writing anything.

    Raises
    ------
    ConfigError, CheckpointError
        As `read_unfinished` and `is_finished`.
    """
    state = read_unfinished(name_unfinished(out), digest, overwrite=overwrite)
    if state is None and not overwrite:
        is_finished(out, digest, card)


def discard_results(out: Path) -> None:
    """Remove what another run left beside `out` that this one may not write over.

    A run without `--validate` writes no scores, and one whose losses are not finite no best epoch.
    """
    for path in (name_best(out), out.with_name(f"{out.name}.validation.csv")):
        path.unlink(missing_ok=True)


def is_finished(out: Path, digest: str, card: Card) -> bool:
    """Whether `out` is what a run of this digest and card would write.

    Raises
    ------
    ConfigError
        If `out` is another file.
    """
    if not out.exists():
        return False
    remedy = "write to another file, or give --overwrite to replace it"
    try:
        info = read_info(out)
    except CheckpointError as error:
        raise ConfigError(f"{out}: exists and is not a finished model; {remedy}") from error
    if info.run != digest:
        raise ConfigError(
            f"{out}: is the finished model of other settings, patches or weights; {remedy}"
        )
    if info.card != card:
        raise ConfigError(
            f"{out}: is the finished model of these settings, with another card; put the new card "
            f"into it with `wsiseg model card`, or give --overwrite to train it anew"
        )
    return True


def read_unfinished(path: Path, digest: str, *, overwrite: bool = False) -> Unfinished | None:
    """Read the state in `path`; None if there is none, or another run's that may be overwritten.

    Raises
    ------
    CheckpointError
        If the file is damaged.
    ConfigError
        If it belongs to a run of other settings, patches or weights.
    """
    if not path.exists():
        return None
    with translated(path):
        state: Unfinished = torch.load(path, map_location="cpu", weights_only=True)
        saved = state["digest"]
    if saved == digest:
        return state
    if overwrite:
        return None
    raise ConfigError(
        f"{path}: holds an unfinished run of other settings, patches or weights; give "
        f"--overwrite to start anew, or write to another file"
    )
