"""Model cards: what people should know of a checkpoint that its tensors and settings do not say.

What the checkpoint says already (names and colours of the classes, µm/px, tile, encoder and its
hash, settings) is not repeated here; `wsiseg model show` joins both. An empty field is unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from wsiseg.config import load_config
from wsiseg.errors import ConfigError

__all__ = ["Calibration", "Card", "DataSource", "Score", "check_classes", "load_card"]

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]

_NO_CLASS = "background"  # what scores call the pixels of no class


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False,
        defer_build=True,
    )  # fmt: skip


class DataSource(_Part):
    """One set of data that the model was trained on."""

    name: str
    """What it is called."""
    source: str = ""
    """Where to get it: an address, a DOI's landing page, a folder's name."""
    licence: str = ""
    """Its licence, by SPDX name where it has one."""
    attribution: str = ""
    """The words that its licence or its authors ask for."""
    doi: str = ""
    """DOI of the data, or of the paper that describes them."""
    slides: Count | None = None
    """Slides that the patches come from."""
    patches: Count | None = None
    """Patches or tiles that were trained on."""
    identity: str = ""
    """`PatchSource.identity`: hash of which patches these were; written by training."""


class Score(_Part):
    """One figure that was measured, and what it was measured on."""

    protocol: str
    """How it was measured: `oracle`, `deploy`, or in words; figures of different protocols are
    not comparable."""
    metric: str
    """What was measured, such as `mIoU`."""
    over: str
    """What was counted: `pixels`, `tiles`, `slides`."""
    value: float
    """The figure; a share is given as a fraction, not in percent."""
    low: float | None = None
    """Lower end of its interval; `note` says which kind of interval."""
    high: float | None = Field(default=None, validate_default=True)
    """Upper end."""
    by_class: dict[str, float | None] = {}
    """The figure of each class; null where the class does not occur."""
    by_slide: dict[str, float] = {}
    """The figure of each slide."""
    note: str = ""
    """The data, the settings and the kind of interval."""

    @field_validator("high")
    @classmethod
    def _check_interval(cls, high: float | None, info: ValidationInfo) -> float | None:
        low = info.data.get("low")
        if (low is None) != (high is None):
            raise ValueError("low and high come together: give both or neither")
        if low is not None and high is not None and low > high:
            raise ValueError(f"low {low:g} is above high {high:g}")
        return high


class Calibration(_Part):
    """How well the model's confidence agrees with its accuracy."""

    method: str
    """How the confidence was calibrated, such as `temperature`; `none` if only measured."""
    fitted_on: str = ""
    """The data that it was fitted on."""
    ece: Share | None = None
    """Expected calibration error, as a fraction."""
    bins: tuple[tuple[Share, Share, Count], ...] = ()
    """Mean confidence, accuracy and number of cases of each bin, by confidence."""


class Card(_Part):
    """The part of a model card that people write, and the figures measured after training."""

    title: str = ""
    """The model's name."""
    summary: str = ""
    """What it does, in a sentence or two."""
    intended_use: str = ""
    """Who should use it for what."""
    limits: tuple[str, ...] = ()
    """What it cannot do, and where it fails."""
    classes: dict[str, str] = {}
    """What each class means: what counts as it and what does not."""
    mpp_range: tuple[float, float] | None = None
    """Lowest and highest µm/px that it may be used at."""
    data: tuple[DataSource, ...] = ()
    """What it was trained on; empty: training fills in the number of patches and their hash."""
    labels: str = ""
    """Origin of the labels: who or what made them, and how they were checked."""
    scores: tuple[Score, ...] = ()
    """What was measured."""
    calibration: Calibration | None = None
    """How confidence and accuracy compare."""
    references: tuple[str, ...] = ()
    """Papers and pages to read or cite."""
    licence: str = ""
    """Licence of the trained weights."""

    @field_validator("mpp_range")
    @classmethod
    def _check_range(cls, ends: tuple[float, float] | None) -> tuple[float, float] | None:
        if ends is not None and not 0 < ends[0] <= ends[1]:
            raise ValueError(f"{ends[0]:g} to {ends[1]:g}: lowest first, above 0")
        return ends


def load_card(path: str | Path, names: Sequence[str]) -> Card:
    """Read a card that was written as YAML, for a model of the classes `names`.

    Raises
    ------
    ConfigError
        If the file cannot be read, a field is unknown or refused, or it mentions other classes.
    """
    card = load_config(path, Card)
    check_classes(card, names, str(path))
    return card


def check_classes(card: Card, names: Sequence[str], source: str) -> None:
    """Refuse a card that mentions classes that the model does not have.

    Raises
    ------
    ConfigError
        If it does; names `source`, the field and the class.
    """
    mentions: list[tuple[str, Sequence[str]]] = [("classes", tuple(card.classes))]
    mentions += [(f"scores.{i}.by_class", tuple(s.by_class)) for i, s in enumerate(card.scores)]
    for field, mentioned in mentions:
        for name in mentioned:
            if name not in names and name != _NO_CLASS:
                raise ConfigError(
                    f"{source}: {field} names {name!r}; the model's classes are {', '.join(names)}"
                )
