"""Class names: rename and merge them by a mapping, and find typing errors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher

from wsiseg.errors import ConfigError

__all__ = ["find_lookalikes", "format_map", "parse_map"]

_ALIKE = 0.85  # share of letters in common: Tumour and Tumor 0.91, Muscle and Mucin 0.55
_SPECIAL = re.compile(r'^\s|\s$|[,="$`\\!{\x00-\x1f]')  # to `parse_map`, or to a shell


def parse_map(text: str) -> dict[str, str]:
    """Parse ``"Tumour=Tumor,Tumor: invasive=Tumor"`` to a dict of old to new names.

    ``Artefact=`` leaves a class out. Names with commas, equals signs or blanks around them are
    given as JSON: ``{"Tumor, invasive": "Tumor"}``.

    Raises
    ------
    ConfigError
        If a part is not ``old=new``, the JSON not such a mapping, or a name has two meanings.
    """
    if text.lstrip().startswith("{"):
        return _parse_json(text)
    pairs = []
    for part in filter(str.strip, text.split(",")):
        old, equals, new = part.lstrip().partition("=")
        if not equals or not old.strip():
            raise ConfigError(
                f"--map {part!r} needs the form old=new; names with commas or equals signs are "
                f"given as JSON: {format_map({'a, b': 'a'})}"
            )
        pairs.append((old, new.strip()))
    return _gather(pairs)


def format_map(mapping: Mapping[str, str]) -> str:
    """Format the option ``--map`` that `parse_map` reads as `mapping`, quoted for a shell."""
    if not any(_SPECIAL.search(name) for name in (*mapping, *mapping.values())):
        return '--map "' + ",".join(f"{old}={new}" for old, new in mapping.items()) + '"'
    text = json.dumps(mapping, ensure_ascii=False).replace("'", r"\u0027")
    return f"--map '{text}'"


def _parse_json(text: str) -> dict[str, str]:
    try:
        mapping = json.loads(text, object_pairs_hook=_gather)
    except json.JSONDecodeError as error:
        raise ConfigError(f"--map {text!r} begins as JSON, but is none ({error})") from error
    wrong = [f"{old!r}: {new!r}" for old, new in mapping.items() if not isinstance(new, str)]
    if wrong:
        raise ConfigError(f"--map {text!r}: {wrong[0]} is not one name for another")
    return dict(mapping)


def _gather(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    mapping: dict[str, str] = {}
    for old, new in pairs:
        if mapping.setdefault(old, new) != new:
            raise ConfigError(f"--map gives {old!r} two meanings: {mapping[old]!r} and {new!r}")
    return mapping


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
    order = sorted(
        counts,
        key=lambda name: (name not in known, name != name.strip(), -counts[name], name),
    )
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
