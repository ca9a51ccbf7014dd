"""Micrometres per pixel: what the user says, else the slide, else a guess, else an error."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from wsiseg.errors import MppError
from wsiseg.geometry import Mpp, MppXY

__all__ = ["MPP_MAX", "MPP_MIN", "resolve_mpp"]

MPP_MIN = 0.05
"""Finest believable level-0 µm/px."""
MPP_MAX = 10.0
"""Coarsest believable level-0 µm/px."""

_REMEDY = "give it with --mpp-override, or in the manifest's mpp column"
_MICRONS_PER_UNIT = {"centimeter": 10_000.0, "inch": 25_400.0}


def resolve_mpp(
    properties: Mapping[str, str], override: float | None = None, name: str = "slide"
) -> tuple[MppXY, str]:
    """Level-0 µm/px and where it comes from.

    Parameters
    ----------
    properties
        Slide properties under OpenSlide's names.
    override
        µm/px of both axes that the user gives; wins over all else.
    name
        The slide, as error messages and warnings name it.

    Returns
    -------
    The µm/px and one of ``"override"``, ``"openslide.mpp"``, ``"aperio.MPP"``,
    ``"tiff.XResolution"``, ``"objective power"`` (10 / power, with a `UserWarning`).

    Raises
    ------
    MppError
        If nothing says it, or the first that does is outside ``[MPP_MIN, MPP_MAX]``.
    """
    if override is not None:
        return _believe(MppXY(Mpp(override), Mpp(override)), "override", name), "override"
    found = _from_metadata(properties) or _from_resolution(properties)
    if found is not None:
        return _believe(*found, name), found[1]
    return _from_objective(properties, name), "objective power"


def _believe(mpp: MppXY, source: str, name: str) -> MppXY:
    if _is_believable(mpp):
        return mpp
    raise MppError(
        f"{name}: {mpp.x:g} x {mpp.y:g} µm/px (from {source}) is outside {MPP_MIN:g} to "
        f"{MPP_MAX:g} µm/px; {_REMEDY}"
    )


def _is_believable(mpp: MppXY) -> bool:
    return all(MPP_MIN <= value <= MPP_MAX for value in mpp)


def _from_metadata(properties: Mapping[str, str]) -> tuple[MppXY, str] | None:
    x, y = _number(properties, "openslide.mpp-x"), _number(properties, "openslide.mpp-y")
    if x is not None and y is not None:
        return MppXY(Mpp(x), Mpp(y)), "openslide.mpp"
    aperio = _number(properties, "aperio.MPP")
    if aperio is not None:
        return MppXY(Mpp(aperio), Mpp(aperio)), "aperio.MPP"
    return None


def _from_resolution(properties: Mapping[str, str]) -> tuple[MppXY, str] | None:
    unit = _MICRONS_PER_UNIT.get(properties.get("tiff.ResolutionUnit", "").lower())
    x, y = _number(properties, "tiff.XResolution"), _number(properties, "tiff.YResolution")
    if unit is None or not x or not y:
        return None
    mpp = MppXY(Mpp(unit / x), Mpp(unit / y))
    # 72 or 96 dpi is what software writes that knows no resolution: not a measurement.
    return (mpp, "tiff.XResolution") if _is_believable(mpp) else None


def _from_objective(properties: Mapping[str, str], name: str) -> MppXY:
    power = _number(properties, "openslide.objective-power")
    if not power:
        raise MppError(f"{name}: the slide does not say its µm/px; {_REMEDY}")
    mpp = _believe(MppXY(Mpp(10 / power), Mpp(10 / power)), f"objective power {power:g}", name)
    warnings.warn(
        f"{name}: the slide does not say its µm/px; took {mpp.x:g} from the objective power "
        f"{power:g}. If that is wrong, {_REMEDY}",
        UserWarning,
        stacklevel=4,
    )
    return mpp


def _number(properties: Mapping[str, str], key: str) -> float | None:
    try:
        return float(properties[key])
    except (KeyError, ValueError):
        return None
