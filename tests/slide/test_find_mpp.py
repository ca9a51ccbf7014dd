from __future__ import annotations

import pytest

from wsiseg.errors import MppError
from wsiseg.slide import resolve_mpp


def test_mpp_takes_the_user_first_then_the_metadata() -> None:
    properties = {"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.26", "aperio.MPP": "0.3"}
    assert resolve_mpp(properties, 0.5) == ((0.5, 0.5), "override")
    assert resolve_mpp(properties) == ((0.25, 0.26), "openslide.mpp")
    assert resolve_mpp({"aperio.MPP": "0.3"}) == ((0.3, 0.3), "aperio.MPP")


def test_mpp_from_resolution_skips_placeholders() -> None:
    tags = {
        "tiff.ResolutionUnit": "CENTIMETER",
        "tiff.XResolution": "40000",
        "tiff.YResolution": "20000",
    }
    assert resolve_mpp(tags) == ((0.25, 0.5), "tiff.XResolution")
    inch = {"tiff.ResolutionUnit": "inch", "tiff.XResolution": "50800", "tiff.YResolution": "50800"}
    assert resolve_mpp(inch) == ((0.5, 0.5), "tiff.XResolution")
    with pytest.raises(MppError, match="does not say"):
        resolve_mpp(inch | {"tiff.XResolution": "72", "tiff.YResolution": "72"})
    with pytest.raises(MppError, match="does not say"):
        resolve_mpp(inch | {"tiff.ResolutionUnit": "none"})


def test_mpp_from_the_objective_warns() -> None:
    with pytest.warns(
        UserWarning, match=r"a\.svs.*0\.25 from the objective power 40.*--mpp-override"
    ):
        assert resolve_mpp({"openslide.objective-power": "40"}, name="a.svs")[0] == (0.25, 0.25)


def test_missing_mpp_says_what_to_do() -> None:
    with pytest.raises(MppError, match=r"^a\.svs: .*manifest's mpp column, or with --mpp-override"):
        resolve_mpp({"aperio.MPP": "unknown"}, name="a.svs")


@pytest.mark.parametrize("value", ["0.01", "352.858", "nan", "-1"])
def test_absurd_mpp_names_value_and_limits(value: str) -> None:
    none = value in ("nan", "-1")  # no measurement at all
    said = r"does not say its µm/px" if none else rf"{value} x .*0\.05 to 10 µm/px"
    with pytest.raises(MppError, match=rf"{said}; .*--mpp-override"):
        resolve_mpp({"aperio.MPP": value})
    with pytest.raises(MppError, match=r"from override"):
        resolve_mpp({}, float(value))
