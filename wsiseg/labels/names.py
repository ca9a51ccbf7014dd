"""Class names: rename and merge them by a mapping, and find typing errors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher

from wsiseg.errors import ConfigError

__all__ = ["find_lookalikes", "format_map", "parse_map"]

_ALIKE = 0.85  # share of letters in common: Tumour and Tumor 0.91, Muscle and Mucin 0.55


def parse_map(text: str) -> dict[str, str]:
    """Parse ``"Tumour=Tumor,Tumor: invasive=Tumor"`` to a dict of old to new names.

    ``Artefact=`` leaves a class out.

    Raises
    ------
    ConfigError
        If a part is not ``old=new``, or a name has two meanings.
    """
    mapping: dict[str, str] = {}
    for part in filter(str.strip, text.split(",")):
        old, equals, new = part.lstrip().partition("=")
        if not equals or not old.strip():
            raise ConfigError(f"--map {part!r} needs the form old=new")
        if mapping.setdefault(old, new.strip()) != new.strip():
            raise ConfigError(f"--map gives {old!r} two meanings: {mapping[old]!r} and {new!r}")
    return mapping


def format_map(names: Iterable[str], into: str) -> str:
    """Format the ``--map`` that merges several names into one class."""
    return ",".join(f"{name}={into}" for name in names if name != into)


def find_lookalikes(counts: Mapping[str, int], known: Iterable[str] = ()) -> list[tuple[str, ...]]:
    """Return groups of names that are probably one class, the name to keep first.

    Parameters
    ----------
    counts
        How often each name occurs.
    known
        Names that are intentional: they are kept, and two of them are never grouped.
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
