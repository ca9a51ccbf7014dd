"""Where µm/px are found, which of several is taken, and what is said where they contradict."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

import pytest
import tifffile

from tests.slide.aperio import picture
from wsiseg.compute import SerialExecutor
from wsiseg.config import Config, SlideConfig
from wsiseg.errors import MppError
from wsiseg.geometry import Size
from wsiseg.run import annotate
from wsiseg.slide import open_slide, resolve_mpp
from wsiseg.slide.description import microns, read_number, read_ome
from wsiseg.slide.mpp import find_contradictions, find_objective
from wsiseg.store import SlideStore
from wsiseg.tile import tile_slide

READERS = ("direct", "openslide", "tiffslide")
OME = (
    '<?xml version="1.0" encoding="UTF-8"?>'
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
    '<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="{w}" SizeY="{h}" SizeC="3" '
    'SizeZ="1" SizeT="1" {more}><Channel ID="Channel:0:0" SamplesPerPixel="3"/>'
    '<TiffData IFD="0"/></Pixels></Image></OME>'
)
MOTIC = "Motic V1.0.0 {w}x{h} [0,0 {w}x{h}] [64x64] JPEG/RGB Q = 75|AppMag = 20|MPP = 0.499000"
TAG_72 = {"tiff.ResolutionUnit": "inch", "tiff.XResolution": "72", "tiff.YResolution": "72"}


def ome(x: object, unit: str | None = None, y: object = None, unit_y: str | None = None) -> str:
    """OME-XML that gives the physical size; no attribute where it is None."""
    given = {"X": x, "Y": x if y is None else y, "XUnit": unit, "YUnit": unit_y or unit}
    more = " ".join(f'PhysicalSize{key}="{value}"' for key, value in given.items() if value)
    return OME.format(w=200, h=150, more=more)


def described(text: str, **more: str) -> dict[str, str]:
    return {"tiff.ImageDescription": text, **more}


def write(path: Path, description: str, **options: object) -> Path:
    """A tiled JPEG of 200 x 150 px that says `description`."""
    options = {"photometric": "ycbcr", "compression": "jpeg", **options}
    tifffile.imwrite(
        path, picture(150, 200), tile=(64, 64), metadata=None, description=description, **options
    )
    return path


@pytest.mark.parametrize(
    ("value", "unit"),
    [
        (499, "nm"), (0.499, "µm"), (0.499, "μm"), (0.499, "um"), (0.499, None),
        (0.499, "&#181;m"), (0.000499, "mm"), (0.0000499, "cm"), (1.9645669e-5, "in"),
        (4.99e-7, "m"), (499000, "pm"), (4990, "Å"), (0.499, "micron"), (0.499, "\ufffdm"),
        (0.019645669, "thou"), (499, "nanometers"), (0.499, "Âµm"), (0.499, "Î¼m"),
    ],
)  # fmt: skip
def test_ome_xml_in_any_unit(value: float, unit: str | None) -> None:
    mpp, source = resolve_mpp(described(ome(value, unit)))
    assert mpp == pytest.approx((0.499, 0.499))
    assert source == "OME-XML PhysicalSize"


def test_ome_xml_of_each_axis_and_of_the_right_image() -> None:
    assert resolve_mpp(described(ome(250, "nm", 0.5, "µm")))[0] == pytest.approx((0.25, 0.5))
    only_x = ome(0.25).replace('PhysicalSizeY="0.25"', "")
    assert resolve_mpp(described(only_x))[0] == (0.25, 0.25)
    label = ome(9.0).replace('SizeX="200"', 'SizeX="50"')
    image = ome(0.25)
    inner = image[image.index("<Image") : image.index("</OME>")]
    both = label.replace("</OME>", f"{inner}</OME>")
    assert resolve_mpp(described(both), size=Size(200, 150))[0] == (0.25, 0.25)
    prefixed = ome(0.25).replace("<", "<ome:").replace("<ome:/", "</ome:")
    prefixed = prefixed.replace("<ome:?", "<?").replace("xmlns=", "xmlns:ome=")
    assert resolve_mpp(described(prefixed))[0] == (0.25, 0.25)


@pytest.mark.parametrize("unit", ["pixel", "reference frame", "li", ""])
def test_ome_xml_without_a_length_is_no_measurement(unit: str) -> None:
    text = ome(1, unit) if unit else ome(None)
    with pytest.raises(MppError, match=r"looked at: .*OME-XML PhysicalSize, MPP in the desc"):
        resolve_mpp(described(text))


@pytest.mark.parametrize("encoding", ["ISO-8859-1", "UTF-16", "windows-1252"])
def test_ome_xml_in_any_declared_encoding(encoding: str) -> None:
    """Readers have decoded it by then."""
    text = ome(0.499, "µm").replace("UTF-8", encoding)
    assert resolve_mpp(described(text))[0] == (0.499, 0.499)


def test_broken_xml_is_no_measurement() -> None:
    assert read_ome(ome(0.25)[:-9]) is None
    assert read_ome("Aperio") is None
    assert read_ome("<OME/>") is None


@pytest.mark.parametrize(
    "text",
    [
        MOTIC.format(w=1, h=1), "Scanner X|MPP=0.499|AppMag=20", "mpp: 0.499", "MPP = 0,499|Mag",
        "a\nMPP = 4.99e-1", "MPPX = 0.499; MPPY = 0.499", "Zeiss|mpp-x=0.499|mpp-y=0.499",
        "Microns Per Pixel = 0.499", '<iScan Magnification="20" ScanRes="0.499"/>',
        '{"name": "a", "mpp": 0.499}', "scanned at 0.499 µm/px, 20x", "0.499 microns per pixel",
    ],
)  # fmt: skip
def test_mpp_in_the_description(text: str) -> None:
    assert resolve_mpp(described(text)) == ((0.499, 0.499), "MPP in the description")
    assert resolve_mpp({"openslide.comment": text})[0] == (0.499, 0.499)


def test_numbers_of_other_keys_are_not_taken() -> None:
    assert read_number("OriginalMPP = 3|xMPP=2", "MPP") is None
    assert read_number("AppMag = 40|StripeWidth = 2040", "AppMag") == 40
    with pytest.raises(MppError, match="does not say"):
        resolve_mpp(described("MPP = unknown"))


@pytest.mark.parametrize("nothing", ["0", "0.0", "-0.25", "nan", "inf", "1e999", ""])
def test_what_is_no_measurement_leaves_it_to_the_objective(nothing: str) -> None:
    lens = {"openslide.objective-power": "20"}
    given = (
        {"openslide.mpp-x": nothing, "openslide.mpp-y": nothing}, {"aperio.MPP": nothing},
        described(f"MPP = {nothing}"), described(ome(nothing or None)),
        {**TAG_72, "openslide.mpp-x": "352.778", "openslide.mpp-y": "352.778"},
    )  # fmt: skip
    for properties in given:
        with pytest.warns(UserWarning, match="took 0.5 from the objective power 20"):
            assert resolve_mpp(properties | lens) == ((0.5, 0.5), "objective power")
    with pytest.raises(MppError, match="does not say"):
        resolve_mpp(given[0])


@pytest.mark.parametrize(("unit", "value"), [("micron", 4), ("\\u00B5m", 4), ("mm", 4000)])
def test_imagej_counts_pixels_in_its_own_unit(unit: str, value: float) -> None:
    text = f"ImageJ=1.53t\nimages=1\nunit={unit}\nloop=false\n"
    tags = {f"tiff.{axis}Resolution": str(value) for axis in "XY"}
    found = resolve_mpp(described(text, **tags, **{"tiff.ResolutionUnit": "none"}))
    assert found == ((0.25, 0.25), "ImageJ's unit")


def test_what_describes_the_image_goes_before_the_resolution_tag() -> None:
    placeholder = {**TAG_72, "openslide.mpp-x": "352.778", "openslide.mpp-y": "352.778"}
    assert resolve_mpp(described(ome(0.25), **placeholder))[0] == (0.25, 0.25)
    assert find_contradictions(
        described(ome(0.25), **placeholder), *resolve_mpp(described(ome(0.25), **placeholder))
    ) == ()  # fmt: skip
    with pytest.raises(MppError, match=r"352\.778 x 352\.778 .*from openslide\.mpp"):
        resolve_mpp(placeholder)


def test_units_of_the_resolution_tag() -> None:
    tags = {"tiff.XResolution": "4", "tiff.YResolution": "4", "tiff.ResolutionUnit": "MICROMETER"}
    assert resolve_mpp(tags) == ((0.25, 0.25), "tiff.XResolution")
    assert microns("NONE") is None


# -- contradictions ------------------------------------------------------------------------------


def contradictions(properties: dict[str, str], override: float | None = None) -> str:
    return " ".join(find_contradictions(properties, *resolve_mpp(properties, override)))


@pytest.mark.parametrize("mpp", ["1.0", "4.0", "0.12"])
def test_mpp_against_the_objective(mpp: str) -> None:
    properties = {"openslide.mpp-x": mpp, "openslide.mpp-y": mpp, "openslide.objective-power": "40"}
    said = contradictions(properties)
    assert f"took {float(mpp):g} from openslide.mpp" in said
    assert "the objective power 40 suggests 0.25" in said
    assert "--mpp-override" in said
    assert contradictions(properties, override=1.0) == ""


def test_tag_against_description_and_axis_against_axis() -> None:
    tag = {f"tiff.{axis}Resolution": "10000" for axis in "XY"} | {"tiff.ResolutionUnit": "cm"}
    said = contradictions(described("MPP = 0.25", **tag))
    assert "took 0.25 from MPP in the description, but tiff.XResolution says 1" in said
    assert "x and y differ" in contradictions({"openslide.mpp-x": ".25", "openslide.mpp-y": "0.5"})
    said = contradictions(described(ome(0.5) + "", **{"aperio.MPP": "1e-5"}))
    assert "took 0.5 from OME-XML PhysicalSize, but aperio.MPP says 1e-05" in said


def test_what_is_alike_is_not_said() -> None:
    tag = {f"tiff.{axis}Resolution": "36000" for axis in "XY"} | {"tiff.ResolutionUnit": "cm"}
    assert contradictions(described("AppMag = 40|MPP = 0.2265", **tag)) == ""
    assert contradictions(described(MOTIC.format(w=1, h=1), **TAG_72)) == ""
    mirax = {"openslide.vendor": "mirax", "openslide.objective-power": "20"}
    assert contradictions({"openslide.mpp-x": ".232", "openslide.mpp-y": ".232", **mirax}) == ""


def test_the_objective_is_found() -> None:
    assert find_objective(described(MOTIC.format(w=1, h=1))) == 20
    assert find_objective({"aperio.AppMag": "40"}) == 40
    assert find_objective(described('<iScan Magnification="40" ScanRes="0.23"/>')) == 40
    assert find_objective(described("Objective Power = 20x")) == 20
    lens = '<Instrument ID="I:0"><Objective ID="O:0" NominalMagnification="63"/></Instrument>'
    assert find_objective(described(ome(0.1).replace("<Image", f"{lens}<Image", 1))) == 63
    assert find_objective({"openslide.objective-power": "0"}) is None


# -- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("name", "text", "source"),
    [
        ("a.ome.tif", ome(499, "nm"), "OME-XML PhysicalSize"),
        ("a.ome.tif", ome(0.499, "µm"), "OME-XML PhysicalSize"),
        ("motic.svs", MOTIC.format(w=200, h=150), "MPP in the description"),
    ],
)
def test_every_reader_finds_it(
    tmp_path: Path, reader: str, name: str, text: str, source: str
) -> None:
    path = write(tmp_path / name, text.encode())
    with open_slide(path, SlideConfig.model_validate({"reader": reader})) as slide:
        assert slide.mpp == pytest.approx((0.499, 0.499))
        assert slide.mpp_source == source
        assert slide.objective == (20 if name == "motic.svs" else None)
        assert slide.notes == ()


@pytest.mark.parametrize("reader", READERS)
def test_a_contradiction_is_a_note_of_the_slide(tmp_path: Path, reader: str) -> None:
    path = write(tmp_path / "a.svs", "Aperio Image v11\n200x150|AppMag = 40|MPP = 1.0")
    with open_slide(path, SlideConfig.model_validate({"reader": reader})) as slide:
        assert slide.mpp == (1.0, 1.0)
        assert "took 1 from openslide.mpp, but the objective power 40" in slide.notes[0]
    with open_slide(path, SlideConfig.model_validate({"reader": reader, "mpp_override": 1})) as one:
        assert one.notes == ()


def test_a_contradiction_is_in_log_store_summary_and_report(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "a.svs", "Aperio Image v11\n200x150|AppMag = 40|MPP = 1.0")
    config = Config.model_validate({"predict": {"checkpoint": "tiny"}})
    with caplog.at_level(logging.WARNING, "wsiseg"):
        tile_slide(path, tmp_path / "a.zarr", config, SerialExecutor())
    assert "a.svs: µm/px contradict each other: took 1 from openslide.mpp" in caplog.text
    (note,) = SlideStore(tmp_path / "a.zarr").slide["notes"]
    (planned,) = annotate(path, tmp_path / "out", config, dry_run=True)
    assert planned.note.startswith(f"{note}; has 1 µm/px and is enlarged 2 times to 0.5")
    (result,) = annotate(path, tmp_path / "out", config, executor="serial")
    assert note in result.note, result.error
    with (tmp_path / "out" / "summary.csv").open(encoding="utf-8-sig") as file:
        assert note in next(csv.DictReader(file))["note"]
    assert "µm/px contradict each other" in (tmp_path / "out" / "report.html").read_text("utf-8")
