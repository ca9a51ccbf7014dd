"""Regions of one slide and the palette that names and colours their classes."""

from __future__ import annotations

import colorsys
import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsiseg.errors import DataError

__all__ = [
    "BACKGROUND",
    "KNOWN_COLORS",
    "PALETTES",
    "UNSURE",
    "UNSURE_COLOR",
    "Annotations",
    "Palette",
    "Region",
    "agree_on_classes",
    "agree_on_model",
    "choose_colors",
    "color_new_class",
    "tell_models_apart",
]

BACKGROUND = 255
"""Label of pixels that belong to no class (not tissue, or no class gated in)."""
UNSURE = "Unsure"
"""Class name of tissue where no class is probable enough."""
UNSURE_COLOR = (190, 190, 190)
"""RGB of `UNSURE`."""


@dataclass(frozen=True)
class Palette:
    """Class names and their ``(r, g, b)`` colours, by label 0..K-1."""

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.colors):
            raise ValueError(f"{len(self.names)} names but {len(self.colors)} colours")

    def __len__(self) -> int:
        return len(self.names)

    def with_unsure(self) -> Palette:
        """Return this palette with `UNSURE` added as the last label."""
        return Palette((*self.names, UNSURE), (*self.colors, UNSURE_COLOR))

    @property
    def classes(self) -> Palette:
        """The classes that a model distinguishes: all but `UNSURE`."""
        count = len(self) - (UNSURE in self.names[-1:])
        return Palette(self.names[:count], self.colors[:count])


PALETTES: dict[str, Palette] = {
    # QuPath's own names and colours: it keeps its own colour for a class that it knows.
    "bcss": Palette(
        ("Tumor", "Stroma", "Immune cells", "Necrosis"),
        ((200, 0, 0), (150, 200, 150), (160, 90, 160), (50, 50, 50)),
    ),
    # Of the checkpoint `tissue`, whose epithelium may be normal: hence not the red of tumour.
    "tissue": Palette(
        (
            *("Epithelium", "Stroma", "Immune cells", "Necrosis"),
            *("Muscle", "Adipose", "Mucin", "Blood"),
        ),
        (
            *((205, 92, 60), (150, 200, 150), (160, 90, 160), (50, 50, 50)),
            *((150, 100, 60), (250, 220, 120), (110, 190, 225), (150, 0, 40)),
        ),
    ),
}

KNOWN_COLORS = {
    name: color
    for palette in PALETTES.values()
    for name, color in zip(palette.names, palette.colors, strict=True)
}
"""RGB by class name, over all palettes."""

_SPARE = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178))
"""The palette of Okabe and Ito (2008), whose colours colour-blind people can tell apart."""
_GOLDEN = 0.618034
"""Golden ratio: stepping round the colour circle by it never comes close to an earlier hue."""
_DRAWN = 24
"""Colours among which a new class finds its own."""
_APART = 60.0
"""Distance in RGB from which two colours are told apart on a slide."""
_NAMED = 9
"""Maps that a message names, at most."""


def agree_on_classes(classes: Mapping[Any, tuple[str, ...]], use: str) -> tuple[str, ...]:
    """Return the classes of one map or more, which have the same.

    Parameters
    ----------
    classes
        Those of each map, by where it lies; at least one.
    use
        What the user should do with maps of one model, for the error.

    Raises
    ------
    DataError
        If they differ.
    """
    first, *others = classes
    for other in others:
        if classes[other] != classes[first]:
            raise DataError(
                f"{other}: has the classes {', '.join(classes[other])}, {first} "
                f"{', '.join(classes[first])}; {use} maps of one model"
            )
    return classes[first]


def agree_on_model(sources: Mapping[Any, str], use: str) -> None:
    """Refuse maps of more than one model.

    Parameters
    ----------
    sources
        As for `tell_models_apart`.
    use
        As for `agree_on_classes`.

    Raises
    ------
    DataError
        If models differ; names the maps of the smaller group.
    """
    if told := tell_models_apart(sources):
        raise DataError(f"{told}; {use} maps of one model")


def tell_models_apart(sources: Mapping[Any, str]) -> str:
    """Say which maps are of another model than most are; empty if there are none.

    Models of one training have the same classes, so that these do not tell them apart. Of two
    groups of one size, the second is named.

    Parameters
    ----------
    sources
        Identity of the model of each map, by its name; empty where it is not known, which counts
        as no difference.
    """
    known = {name: source for name, source in sources.items() if source}
    models = Counter(known.values()).most_common()
    if len(models) < 2:
        return ""
    most, count = models[0]
    others = [str(name) for name, source in known.items() if source != most]
    more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    were, rest = "was" if len(others) == 1 else "were", "one" if count == 1 else f"{count}"
    named = ", ".join(others[:_NAMED])
    return f"{named}{more} {were} predicted by another model than the other {rest}"


def choose_colors(names: Sequence[str]) -> tuple[tuple[int, int, int], ...]:
    """Return the colour of each class: its predefined one, or one that no other class has."""
    known = KNOWN_COLORS | {UNSURE: UNSURE_COLOR}
    taken = {known[name] for name in names if name in known}
    spare = _draw_colors()
    chosen: dict[str, tuple[int, int, int]] = {}
    for name in names:
        if name not in chosen:
            color = known.get(name) or next(color for color in spare if color not in taken)
            chosen[name] = color
            taken.add(color)
    return tuple(chosen[name] for name in names)


def color_new_class(name: str, taken: Sequence[tuple[int, int, int]]) -> tuple[int, int, int]:
    """Return the colour of a class that joins others, whose colours are `taken`.

    It is the predefined one, or depends on the name, so that the class looks the same on all
    slides; another only if one that is taken looks like it.
    """
    if name in KNOWN_COLORS:
        return KNOWN_COLORS[name]
    first = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[0]
    drawn = list(islice(_draw_colors(), _DRAWN))
    turned = [drawn[(first + at) % _DRAWN] for at in range(_DRAWN)]

    def gap(color: tuple[int, int, int]) -> float:
        return min((math.dist(color, other) for other in taken), default=math.inf)

    return next((color for color in turned if gap(color) >= _APART), max(turned, key=gap))


def _draw_colors() -> Iterator[tuple[int, int, int]]:
    """Yield colours without end; the first ones are easy to tell apart."""
    yield from _SPARE
    for number in count():
        lightness = (0.5, 0.35, 0.65)[number % 3]
        red, green, blue = colorsys.hls_to_rgb(number * _GOLDEN % 1, lightness, 0.7)
        yield round(red * 255), round(green * 255), round(blue * 255)


@dataclass(frozen=True)
class Region:
    """One connected region of one class.

    Rings are ``(N, 2)`` int32 ``x, y`` in *raster* pixel corners, closed (first equals last point);
    whole numbers, so areas are exact. `Annotations.scale` converts them to level-0 pixels. Smoothed
    borders are on a raster finer than the labels'.
    """

    label: int
    exterior: NDArray[np.int32]
    holes: tuple[NDArray[np.int32], ...]
    area_px: int
    """Area in raster pixels, without the holes."""
    confidence: float
    """Mean confidence over the region's pixels, 0..1."""


@dataclass(frozen=True)
class Annotations:
    """All regions of one slide, ready to be written."""

    slide: str
    """Name of the slide file, with its extension."""
    palette: Palette
    regions: tuple[Region, ...]
    scale: tuple[float, float]
    """Level-0 pixels per pixel of the regions, x and y."""
    mpp: float
    """Micrometres per pixel of the regions: the raster's own, or finer where borders are smooth."""
    origin: tuple[int, int] = (0, 0)
    """Level-0 point that is (0, 0) in the written file (the slide's bounds corner)."""
    provenance: dict[str, str] = field(default_factory=dict)
    locked: bool = True
    """Whether QuPath keeps the outlines from being moved by accident; users can unlock them."""
    exact: bool = False
    """Whether the rings are pixel edges as traced: valid polygons at any scale that keeps the
    raster's columns and rows distinct. Leave it False for other outlines: they are then checked."""
    valid: bool = False
    """Whether the rings are valid polygons in raster coordinates: traced, simplified or smoothed
    by wsiseg."""

    def area_um2(self, region: Region) -> float:
        """Return the area of a region in µm²."""
        return region.area_px * self.mpp * self.mpp
