"""Prompt files: classes described in words, as YAML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from wsiseg.annotations import BACKGROUND, Palette
from wsiseg.config import load_config
from wsiseg.errors import ConfigError

__all__ = ["PromptClass", "PromptSet", "read_prompts"]

_Level = Annotated[int, Field(ge=0, le=255)]
_SLOT = "{}"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PromptClass(_Frozen):
    """One class, described in words."""

    name: str
    """Its name in QuPath."""
    color: tuple[_Level, _Level, _Level]
    """RGB of its labels and polygons."""
    prompts: tuple[str, ...] = ()
    """Phrasings of what is seen, each put into every template."""
    sentences: tuple[str, ...] = ()
    """Whole sentences, used as they are."""


class PromptSet(_Frozen):
    """The content of a prompt file."""

    classes: tuple[PromptClass, ...] = ()
    """The classes, in label order."""
    templates: tuple[str, ...] = (_SLOT,)
    """Sentences with `{}` where the phrasing goes; every phrasing is put into every one."""
    background: tuple[str, ...] = ()
    """Phrasings of what belongs to no class: glass, pen, blur. Each competes with the classes on
    its own, and the pixels that it wins get no label."""
    temperature: float | None = Field(default=None, gt=0)
    """Divisor of the cosines before the softmax; null: the one of the encoder's training."""

    @property
    def palette(self) -> Palette:
        """Names and colours of the classes."""
        return Palette(
            tuple(one.name for one in self.classes), tuple(one.color for one in self.classes)
        )

    @property
    def channels(self) -> int:
        """The classes, then the kinds of background."""
        return len(self.classes) + len(self.background)

    def texts(self) -> list[list[str]]:
        """All sentences of each channel: the classes, then the kinds of background."""
        classes = [[*self._fill(one.prompts), *one.sentences] for one in self.classes]
        return [*classes, *(self._fill((phrase,)) for phrase in self.background)]

    def _fill(self, phrases: Sequence[str]) -> list[str]:
        return [t.replace(_SLOT, phrase) for t in self.templates for phrase in phrases]


def read_prompts(path: str | Path) -> PromptSet:
    """Read a prompt file.

    Raises
    ------
    ConfigError
        If the file is missing, is not YAML, has an unknown key (names the closest known), no class,
        a class twice or without prompts, or a template that does not hold `{}` once.
    """
    prompts = load_config(path, PromptSet)
    problem = _find_problem(prompts)
    if problem:
        raise ConfigError(f"{path}: {problem}")
    return prompts


def _find_problem(prompts: PromptSet) -> str:
    """What is wrong with a prompt set; empty if nothing is."""
    count = len(prompts.classes)
    if not 0 < count < BACKGROUND:
        return f"has {count} classes; there must be 1 to {BACKGROUND - 1}"
    name, times = Counter(one.name for one in prompts.classes).most_common(1)[0]
    if times > 1:
        return f"class {name!r} appears {times} times; put all its prompts into one entry"
    for one in prompts.classes:
        if not one.prompts and not one.sentences:
            return f"class {one.name!r} has no prompts"
    phrases = [phrase for one in prompts.classes for phrase in (*one.prompts, *one.sentences)]
    if not all(phrase.strip() for phrase in (*phrases, *prompts.background)):
        return "holds an empty prompt"
    if not prompts.templates:
        return f"has no templates; leave them out, or give {_SLOT!r} for the phrasings as they are"
    for template in prompts.templates:
        if template.count(_SLOT) != 1:
            return f"template {template!r} must hold {_SLOT} once, where the phrasing goes"
    return ""
