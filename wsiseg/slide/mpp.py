"""Micrometres per pixel: from the user, else the slide, else an estimate, else an error."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from wsiseg.errors import MppError, WsisegWarning
from wsiseg.geometry import Mpp, MppXY, Size
from wsiseg.slide.description import (
    microns,
    read_description,
    read_number,
    read_ome,
    read_scale,
    to_measure,
)

__all__ = ["MPP_MAX", "MPP_MIN", "SOURCES", "find_contradictions", "find_objective", "resolve_mpp"]

MPP_MIN = 0.05
"""Finest plausible level-0 µm/px."""
MPP_MAX = 10.0
"""Coarsest plausible level-0 µm/px."""

_REMEDY = (
    "give it in the manifest's mpp column, or with --mpp-override, which holds for every slide of "
    "the run (a 20x scan has about 0.5, a 40x scan 0.25; a lymphocyte is about 7 µm wide)"
)
_MAX_RATIO = 1.5
"""Sources of one slide that differ by more than this factor contradict each other."""
_MAX_POWER = 200.0
_ADAPTERS = frozenset({"mirax"})
"""Vendors with a magnifying camera adapter: 20x at 0.23 µm/px is usual and correct."""
_SAME = 1e-4  # relative difference
_KEYS = "(?:MPP|Microns?[-_ ]?Per[-_ ]?Pixel|ScanRes)"  # ScanRes: Ventana's µm/px
_POWERS = "(?:AppMag|Magnification|Objective(?:[-_ ]?(?:Power|Magnification))?)"

Properties = Mapping[str, str]


def _openslide(properties: Properties, _: Size | None) -> MppXY | None:
    mpp = _pair(properties, "openslide.mpp-x", "openslide.mpp-y")
    # In a plain TIFF it repeats the resolution tag, which is less reliable than a description.
    return None if mpp is None or _is_tag(mpp, properties) else mpp


def _openslide_from_tag(properties: Properties, _: Size | None) -> MppXY | None:
    mpp = _pair(properties, "openslide.mpp-x", "openslide.mpp-y")
    return mpp if mpp is not None and _is_tag(mpp, properties) else None


def _aperio(properties: Properties, _: Size | None) -> MppXY | None:
    return _pair(properties, "aperio.MPP", "aperio.MPP")


def _ome(properties: Properties, size: Size | None) -> MppXY | None:
    ome = read_ome(read_description(properties), size)
    return MppXY(*map(Mpp, ome.mpp)) if ome and ome.mpp else None


def _description(properties: Properties, _: Size | None) -> MppXY | None:
    text = read_description(properties)
    x, y = (read_number(text, key) for key in ("MPP[-_ ]?X", "MPP[-_ ]?Y"))
    both = read_number(text, _KEYS) or read_scale(text)
    x, y = x or both or y, y or both or x
    return MppXY(Mpp(x), Mpp(y)) if x is not None and y is not None else None


def _imagej(properties: Properties, _: Size | None) -> MppXY | None:
    text = read_description(properties)
    unit = next((line[5:] for line in text.splitlines() if line.startswith("unit=")), "")
    length = microns(unit) if text.startswith("ImageJ=") else None
    return _per_unit(properties, length)  # its resolution tag counts pixels in that unit


def _tag(properties: Properties, _: Size | None) -> MppXY | None:
    mpp = _per_unit(properties, microns(properties.get("tiff.ResolutionUnit", "")))
    # Software that does not know the resolution writes 72 or 96 dpi: not a measurement.
    return mpp if mpp and _is_plausible(mpp) else None


SOURCES: tuple[tuple[str, Callable[[Properties, Size | None], MppXY | None]], ...] = (
    ("openslide.mpp", _openslide),
    ("aperio.MPP", _aperio),
    ("OME-XML PhysicalSize", _ome),
    ("MPP in the description", _description),
    ("ImageJ's unit", _imagej),
    ("openslide.mpp", _openslide_from_tag),
    ("tiff.XResolution", _tag),
)
"""Sources of a slide's µm/px, in order; the last resort is its objective power."""


class _Stated(NamedTuple):
    source: str
    mpp: MppXY


def resolve_mpp(
    properties: Properties,
    override: float | None = None,
    name: str = "slide",
    size: Size | None = None,
) -> tuple[MppXY, str]:
    """Determine level-0 µm/px and its source.

    Parameters
    ----------
    properties
        Slide properties under OpenSlide's names.
    override
        µm/px of both axes given by the user; takes precedence over everything else.
    name
        Name of the slide in error messages and warnings.
    size
        Level-0 pixels, which identify the image among others that OME-XML describes.

    Returns
    -------
    The µm/px and ``"override"``, the first of `SOURCES` that gives plausible ones, or
    ``"objective power"`` (10 / power, with a `WsisegWarning`).

    Raises
    ------
    MppError
        If no source gives it, or the value is outside ``[MPP_MIN, MPP_MAX]``.
    """
    if override is not None:
        return _check(MppXY(Mpp(override), Mpp(override)), "override", name), "override"
    stated = list(_read_sources(properties, size))
    for source, mpp in stated:
        if _is_plausible(mpp):
            return mpp, source
    measured = [each for each in stated if not _is_tag(each.mpp, properties)]
    if measured or (stated and find_objective(properties) is None):
        first = (measured or stated)[0]
        _check(first.mpp, first.source, name)
    return _from_objective(properties, name), "objective power"


def find_contradictions(
    properties: Properties, mpp: MppXY, source: str, size: Size | None = None
) -> tuple[str, ...]:
    """Return a note if metadata differ from the `mpp` of `source` by a factor of more than 1.5.

    A value given by the user is not questioned.
    """
    if source == "override":
        return ()
    others = [
        f"{other} says {_show(value)}"
        for other, value in _read_sources(properties, size)
        if other != source
        and (_differ(value, mpp) if _is_plausible(value) else not _is_tag(value, properties))
    ]
    power = find_objective(properties)
    if properties.get("openslide.vendor") in _ADAPTERS:
        power = None
    if power and _differ(MppXY(Mpp(10 / power), Mpp(10 / power)), mpp):
        others.append(f"the objective power {power:g} suggests {10 / power:.3g}")
    if _ratio(mpp.x, mpp.y) > _MAX_RATIO:
        others.append("x and y differ")
    if not others:
        return ()
    taken = f"took {_show(mpp)} from {source}, but {'; '.join(dict.fromkeys(others))}"
    return (f"µm/px contradict each other: {taken}. If that is wrong, {_REMEDY}",)


def find_objective(properties: Properties) -> float | None:
    """Return the magnification of the objective, if a property or the description states it."""
    text = read_description(properties)
    ome = read_ome(text)
    candidates = (
        _number(properties, "openslide.objective-power"), _number(properties, "aperio.AppMag"),
        read_number(text, _POWERS), ome and ome.objective,
    )  # fmt: skip
    return next((power for power in candidates if power and 0 < power <= _MAX_POWER), None)


def _read_sources(properties: Properties, size: Size | None) -> Iterator[_Stated]:
    for source, read in SOURCES:
        mpp = read(properties, size)
        if mpp is not None:
            yield _Stated(source, mpp)


def _check(mpp: MppXY, source: str, name: str) -> MppXY:
    if _is_plausible(mpp):
        return mpp
    raise MppError(
        f"{name}: {mpp.x:g} x {mpp.y:g} µm/px (from {source}) is outside {MPP_MIN:g} to "
        f"{MPP_MAX:g} µm/px; {_REMEDY}"
    )


def _is_plausible(mpp: MppXY) -> bool:
    return all(MPP_MIN <= value <= MPP_MAX for value in mpp)


def _ratio(one: float, two: float) -> float:
    return max(one / two, two / one)


def _differ(one: MppXY, two: MppXY) -> bool:
    return max(_ratio(one.x, two.x), _ratio(one.y, two.y)) > _MAX_RATIO


def _show(mpp: MppXY) -> str:
    return f"{mpp.x:g}" if mpp.x == mpp.y else f"{mpp.x:g} x {mpp.y:g}"


def _pair(properties: Properties, key_x: str, key_y: str) -> MppXY | None:
    x, y = _number(properties, key_x), _number(properties, key_y)
    return MppXY(Mpp(x), Mpp(y)) if x is not None and y is not None else None


def _per_unit(properties: Properties, unit: float | None) -> MppXY | None:
    x, y = _number(properties, "tiff.XResolution"), _number(properties, "tiff.YResolution")
    return MppXY(Mpp(unit / x), Mpp(unit / y)) if unit and x and y else None


def _is_tag(mpp: MppXY, properties: Properties) -> bool:
    tag = _per_unit(properties, microns(properties.get("tiff.ResolutionUnit", "")))
    return tag is not None and all(
        abs(value - other) <= _SAME * other for value, other in zip(mpp, tag, strict=True)
    )


def _from_objective(properties: Properties, name: str) -> MppXY:
    power = find_objective(properties)
    if not power:
        sources = ", ".join(dict.fromkeys(source for source, _ in SOURCES))
        raise MppError(
            f"{name}: the slide does not say its µm/px; {_REMEDY} "
            f"(looked at: {sources}{_placeholder(properties)}, objective power)"
        )
    mpp = _check(MppXY(Mpp(10 / power), Mpp(10 / power)), f"objective power {power:g}", name)
    warnings.warn(
        f"{name}: the slide does not say its µm/px; took {mpp.x:g} from the objective power "
        f"{power:g}. If that is wrong, {_REMEDY}",
        WsisegWarning,
        stacklevel=4,
    )
    return mpp


def _placeholder(properties: Properties) -> str:
    mpp = _per_unit(properties, microns(properties.get("tiff.ResolutionUnit", "")))
    return f" (which says {_show(mpp)}: no measurement)" if mpp else ""


def _number(properties: Properties, key: str) -> float | None:
    """Return a property if it is a measurement: scanners write 0 for unknown values."""
    return to_measure(properties.get(key))
