"""Class names: renamed and merged by a mapping, and typing errors found."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher

from wsiseg.errors import ConfigError

__all__ = ["find_lookalikes", "format_map", "parse_map"]

_ALIKE = 0.85  # share of letters in common: Tumour and Tumor 0.91, Muscle and Mucin 0.55


def parse_map(text: str) -> dict[str, str]:
    """``"Tumour=Tumor,Tumor: invasive=Tumor"`` as old name to new.

    ``Artefact=`` leaves a class out.

    Raises
    ------
    ConfigError
        If a part is not ``old=new``, or one name is given two meanings.
    """
    found: dict[str, str] = {}
    for part in filter(str.strip, text.split(",")):
        old, equals, new = part.lstrip().partition("=")
        if not equals or not old.strip():
            raise ConfigError(f"--map {part!r} needs the form old=new")
        if found.setdefault(old, new.strip()) != new.strip():
            raise ConfigError(f"--map gives {old!r} two meanings: {found[old]!r} and {new!r}")
    return found


def format_map(names: Iterable[str], into: str) -> str:
    """The ``--map`` that makes one class of several names."""
    return ",".join(f"{name}={into}" for name in names if name != into)


def find_lookalikes(counts: Mapping[str, int], known: Iterable[str] = ()) -> list[tuple[str, ...]]:
    """Groups of names that are likely one class, the name to keep first.

    Parameters
    ----------
    counts
        How often each name occurs.
    known
        Names that are meant as they are: they are kept, and two of them are never one.
    """
    known = set(known)
    order = sorted(counts, key=lambda name: (name not in known, -counts[name], name))
    groups: list[list[str]] = []
    for name in order:
        near = next((g for g in groups if _alike(g[0], name)), None)
        if near is None or name in known:
            groups.append([name])
        else:
            near.append(name)
    return [tuple(group) for group in groups if len(group) > 1]


def _alike(a: str, b: str) -> bool:
    a, b = (re.sub(r"[\W_]+", "", name.casefold()) for name in (a, b))
    if re.findall(r"\d+", a) != re.findall(r"\d+", b):
        return False  # Grade 3 and Grade 4
    return a == b or SequenceMatcher(None, a, b).ratio() >= _ALIKE
