"""What `learn` says: figures by class, what did not hold, and whether a further round would pay."""

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
"""A held-out score that rose by more since the round before is still rising."""
_DOUBLED = 1.7
"""Labels that grew by this factor have about doubled."""


class Missed(NamedTuple):
    """A correction that the model does not follow."""

    where: str
    name: str
    """The class."""
    shown: bool
    """Whether it shows there."""


class Round(NamedTuple):
    """One round of labels and what came of it."""

    digest: str
    tiles: int
    score: float
    """Mean average precision on slides held out; NaN if none were."""


@dataclass(frozen=True)
class Learned:
    """What came of `learn_model`."""

    out: Path
    """The checkpoint."""
    digest: str
    """Of labels and settings."""
    classes: tuple[str, ...]
    tiles: int
    """Training windows of which anything was known."""
    shown: tuple[int, ...]
    """Windows that show each class."""
    absent: tuple[int, ...]
    """Windows known to be without it."""
    slides: int
    folds: tuple[str, ...]
    """Who was held out, time by time."""
    epochs: int
    """Of the final training, on all windows."""
    precision: tuple[float, ...]
    """Average precision of each class on windows of slides held out, the mean of the folds; NaN
    where no fold could say."""
    guess: tuple[float, ...]
    """What a guess without looking reaches: the share of those windows that show the class."""
    kept: tuple[str, ...]
    """Classes of the checkpoint that nothing was labelled as, which went on as they were."""
    missed: tuple[Missed, ...]
    """Corrections that did not hold."""
    notes: tuple[str, ...]
    rounds: tuple[Round, ...]
    """Those before this one, oldest first."""

    @property
    def score(self) -> float:
        """Mean average precision over the classes that could be scored."""
        known = [value for value in self.precision if math.isfinite(value)]
        return sum(known) / len(known) if known else math.nan


def describe_learned(learned: Learned) -> Iterator[str]:
    """What a person should read, line by line."""
    yield from learned.notes
    yield (
        "rare classes count more, by up to five times (balance)"
        if _uneven(learned)
        else ("no class is rare enough to need balancing")
    )
    if learned.kept:
        yield f"not labelled, so as they were but for corrections: {', '.join(learned.kept)}"
    lost = [n for n, p in zip(learned.classes, learned.precision, strict=True) if math.isnan(p)]
    if learned.folds and set(lost) - set(learned.kept):
        names = ", ".join(name for name in lost if name not in learned.kept)
        yield f"no score for {names}: label them on slides of at least two patients"
    if learned.folds:
        yield (
            f"held out in turn: {'; '.join(learned.folds)}; mean average precision "
            f"{learned.score:.3f}; then {learned.epochs} epochs on all {learned.tiles} windows"
        )
    for one in learned.missed[:10]:
        what = "shows" if one.shown else "does not show"
        yield f"did not hold: {one.where} {what} {one.name}, says a correction"
    if len(learned.missed) > 10:
        yield f"and {len(learned.missed) - 10} more corrections did not hold"
    yield _advise(learned)


def _uneven(learned: Learned) -> bool:
    pairs = zip(learned.shown, learned.absent, strict=True)
    return any(shown and absent and not 1 / 4 < shown / absent < 4 for shown, absent in pairs)


def _advise(learned: Learned) -> str:
    """Whether a further round is likely to pay."""
    wanted = f"about {2 * learned.tiles} labelled windows in all"
    before = [one for one in learned.rounds if math.isfinite(one.score)]
    if not math.isfinite(learned.score):
        return "label a second slide first: without a score nobody knows what a round brings"
    if not before:
        return f"a second round shows whether labels still help: {wanted}"
    gain = learned.score - before[-1].score
    said = f"the score moved by {gain:+.3f} since {before[-1].tiles} windows"
    if gain > _RISING:
        return f"{said}, so a further round is likely to pay: {wanted}"
    if learned.tiles < _DOUBLED * before[-1].tiles:
        return f"{said}, with too few new labels to tell; try {wanted}"
    return f"{said}, though labels about doubled: more of the same is unlikely to help"


def read_rounds(out: Path, digest: str) -> tuple[Round, ...]:
    """The rounds that the report beside `out` knows of, but for that of `digest`."""
    try:
        plain = json.loads(_report(out).read_text(encoding="utf-8"))
        known = [*plain["rounds"], {"digest": plain["digest"], "tiles": plain["tiles"],
                                    "score": plain["score"]}]  # fmt: skip
        rounds = [
            Round(one["digest"], one["tiles"], math.nan if one["score"] is None else one["score"])
            for one in known
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    return tuple(one for one in rounds if one.digest != digest)


def write_report(learned: Learned) -> Path:
    """Write everything as JSON beside the checkpoint; a NaN is null."""
    plain = {**asdict(learned), "out": learned.out.name, "score": learned.score}
    plain["missed"] = [one._asdict() for one in learned.missed]
    plain["rounds"] = [one._asdict() for one in learned.rounds]
    path = _report(learned.out)
    with open_atomic(path) as file:
        file.write(json.dumps(_without_nan(plain), indent=1).encode())
    return path


def _report(out: Path) -> Path:
    return out.with_name(f"{out.name}.json")


def _without_nan(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
