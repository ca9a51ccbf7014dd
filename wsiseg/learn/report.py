"""The report of `learn`: figures by class, corrections not learned, and advice."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from wsiseg.atomic import open_atomic

__all__ = ["Learned", "Missed", "Round", "describe_learned", "read_rounds", "write_report"]

_RISING = 0.01
"""A held-out score that gained more than this since the last round is still rising."""
_DOUBLED = 1.7
"""Labels that grew by this factor count as doubled."""


class Missed(NamedTuple):
    """A correction that the model did not learn."""

    where: str
    name: str
    """The class."""
    shown: bool
    """Whether the correction says that the class is there."""


class Round(NamedTuple):
    """One round of labels and its score."""

    digest: str
    tiles: int
    score: float
    """Mean average precision on held-out slides; NaN if none were held out."""


@dataclass(frozen=True)
class Learned:
    """The result of `learn_model`."""

    out: Path
    """The checkpoint."""
    digest: str
    """Digest of labels and settings."""
    classes: tuple[str, ...]
    tiles: int
    """Training windows with any label."""
    shown: tuple[int, ...]
    """Windows that show each class."""
    absent: tuple[int, ...]
    """Windows known to be without each class."""
    slides: int
    folds: tuple[str, ...]
    """Who was held out in each fold."""
    epochs: int
    """Epochs of the final training, on all windows."""
    precision: tuple[float, ...]
    """Average precision of each class on held-out windows, mean of the folds; NaN where no fold
    could be scored."""
    guess: tuple[float, ...]
    """What a random guess reaches: the share of these windows that show the class."""
    kept: tuple[str, ...]
    """Classes of the checkpoint without labels."""
    remembers: bool
    """Whether the checkpoint has exemplars, which keep these classes near what they were."""
    missed: tuple[Missed, ...]
    """Corrections that the model did not learn."""
    notes: tuple[str, ...]
    rounds: tuple[Round, ...]
    """Earlier rounds, oldest first."""
    balance: bool = True
    """Whether rare classes counted more, as in `TrainConfig`."""

    @property
    def score(self) -> float:
        """Mean average precision over the classes that could be scored."""
        scored = [value for value in self.precision if math.isfinite(value)]
        return sum(scored) / len(scored) if scored else math.nan


def describe_learned(learned: Learned) -> Iterator[str]:
    """Yield the lines of the report on the terminal."""
    yield from learned.notes
    if learned.balance:
        yield (
            "rare classes count more, by up to five times (balance)"
            if _uneven(learned)
            else "no class is rare enough to need balancing"
        )
    if learned.kept:
        fate = "kept near the checkpoint's" if learned.remembers else "may fade in maps"
        yield f"not labelled, {fate}: {', '.join(learned.kept)}"
    unscored = [n for n, p in zip(learned.classes, learned.precision, strict=True) if math.isnan(p)]
    if learned.folds and set(unscored) - set(learned.kept):
        names = ", ".join(name for name in unscored if name not in learned.kept)
        yield f"no score for {names}: label them on slides of at least two patients"
    if learned.folds:
        yield (
            f"held out in turn: {'; '.join(learned.folds)}; mean average precision "
            f"{learned.score:.3f}; then {learned.epochs} epochs on all {learned.tiles} windows"
        )
    for missed in learned.missed[:10]:
        verb = "shows" if missed.shown else "does not show"
        yield f"correction not learned: {missed.where} {verb} {missed.name}"
    if len(learned.missed) > 10:
        more, where = len(learned.missed) - 10, _report(learned.out).name
        yield f"and {more} more corrections were not learned; {where} lists them"
    yield _advise(learned)


def _uneven(learned: Learned) -> bool:
    pairs = zip(learned.shown, learned.absent, strict=True)
    return any(shown and absent and not 1 / 4 < shown / absent < 4 for shown, absent in pairs)


def _advise(learned: Learned) -> str:
    """Say whether another round is likely to help."""
    target = f"about {2 * learned.tiles} labelled windows in total"
    scored = [former for former in learned.rounds if math.isfinite(former.score)]
    if not math.isfinite(learned.score):
        return "label a second slide first: without a score, the gain of a round is unknown"
    if not scored:
        return f"a second round will show whether more labels help: aim for {target}"
    gain = learned.score - scored[-1].score
    change = f"the score changed by {gain:+.3f} since {scored[-1].tiles} windows"
    if gain > _RISING:
        return f"{change}, so another round is likely to help: aim for {target}"
    if learned.tiles < _DOUBLED * scored[-1].tiles:
        return f"{change}, with too few new labels to tell: aim for {target}"
    return f"{change}, though labels about doubled: more of the same are unlikely to help"


def read_rounds(out: Path, digest: str) -> tuple[Round, ...]:
    """Read the rounds in the report beside `out`, except that of `digest`."""
    try:
        plain = json.loads(_report(out).read_text(encoding="utf-8"))
        rounds = [
            Round(row["digest"], row["tiles"], math.nan if row["score"] is None else row["score"])
            for row in (*plain["rounds"], plain)
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    return tuple(former for former in rounds if former.digest != digest)


def write_report(learned: Learned) -> Path:
    """Write everything as JSON beside the checkpoint; NaN becomes null."""
    plain = {**asdict(learned), "out": learned.out.name, "score": learned.score}
    plain["missed"] = [missed._asdict() for missed in learned.missed]
    plain["rounds"] = [former._asdict() for former in learned.rounds]
    path = _report(learned.out)
    with open_atomic(path) as file:
        file.write(json.dumps(_without_nan(plain), indent=1).encode())
    return path


def _report(out: Path) -> Path:
    return out.with_name(f"{out.name}.json")


def _without_nan(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
