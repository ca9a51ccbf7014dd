"""Whether masks with a palette agree on each number's colour: editors put it in another order."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

__all__ = ["Color", "find_renumbered", "list_colors"]

Color = tuple[int, ...]
"""RGB."""


class _Shown(NamedTuple):
    """What a mask says of its numbers."""

    colors: dict[int, Color]
    """Its palette."""
    used: list[int]
    """The numbers that pixels have."""


def _read(path: Path) -> _Shown:
    """Return what a mask says: nothing without a palette, or if it cannot be read."""
    try:
        with Image.open(path) as mask:
            if mask.mode != "P":
                return _Shown({}, [])
            return _Shown(list_colors(mask), np.unique(np.asarray(mask)).tolist())
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError):
        return _Shown({}, [])


def list_colors(mask: Image.Image) -> dict[int, Color]:
    """Return the colour of each number in the palette of an open mask; none if it has none."""
    flat = mask.getpalette() or []
    return dict(enumerate(zip(flat[::3], flat[1::3], flat[2::3], strict=True)))


def find_renumbered(paths: Sequence[Path]) -> list[str]:
    """Describe the masks that show a number in the colour that another has in most of them.

    A colour that no number has elsewhere says nothing: such palettes are taken as they are.
    """
    with ThreadPoolExecutor() as pool:
        masks = list(pool.map(_read, paths))
    usual = _vote(masks)
    problems = []
    for path, mask in zip(paths, masks, strict=True):
        for number in mask.used:
            color = mask.colors.get(number)
            others = [other for other, of_other in usual.items() if of_other == color]
            if others and number not in others:
                problems.append(
                    f"{path.parent.name}/{path.name}: shows {number} in the colour {color}, which "
                    f"in most masks is that of {others[0]}; an editor has put its palette in "
                    f"another order: save it with the numbers of the others"
                )
                break
    return problems


def _vote(masks: Sequence[_Shown]) -> dict[int, Color]:
    """Return the colour of each number that any mask uses, in most of their palettes."""
    used = {number for mask in masks for number in mask.used}
    votes: defaultdict[int, Counter[Color]] = defaultdict(Counter)
    for mask in masks:
        for number in used & mask.colors.keys():
            votes[number][mask.colors[number]] += 1
    return {number: votes[number].most_common(1)[0][0] for number in sorted(votes)}
