"""A DICOM series is one slide, however it is given."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import pytest

from tests.slide.aperio import picture, write_aperio
from wsiseg.errors import SlideOpenError
from wsiseg.geometry import Box
from wsiseg.run import plan_jobs
from wsiseg.slide import find_slides, gather_slide, identify_slide, name_slide, open_slide
from wsiseg.slide.dicom import find_series, read_header

FIELD = Path(__file__).resolve().parents[3] / "shared" / "data" / "field" / "dicom-series"
WSI = "1.2.840.10008.5.1.4.1.1.77.1.6"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"


def element(tag: int, vr: bytes, value: bytes, explicit: bool = True) -> bytes:
    value += b"\0" * (len(value) % 2)
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if not explicit:
        return head + struct.pack("<I", len(value)) + value
    if vr in (b"SQ", b"OB", b"UN"):
        return head + vr + struct.pack("<HI", 0, len(value)) + value
    return head + vr + struct.pack("<H", len(value)) + value


def undefined(tag: int, items: bytes, explicit: bool) -> bytes:
    """A sequence of undefined length with one item of undefined length."""
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    head += b"SQ\0\0" if explicit else b""
    end = struct.pack("<I", 0xFFFFFFFF)
    item = struct.pack("<HH", 0xFFFE, 0xE000) + end + items
    closing = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    return head + end + item + closing


def write(
    path: Path, series: str = "1.2.3", description: str = "", kind: str = WSI,
    syntax: str = EXPLICIT, body: bytes = b"",
) -> Path:  # fmt: skip
    """The header of a DICOM file; its sequences name other series before its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    explicit = syntax != IMPLICIT

    def put(tag: int, vr: bytes, text: str) -> bytes:
        return element(tag, vr, text.encode(), explicit)

    meta = element(0x00020002, b"UI", kind.encode()) + element(0x00020010, b"UI", syntax.encode())
    inner = put(0x0020000E, b"UI", "9.9.9")
    data = put(0x00080016, b"UI", kind)
    data += undefined(0x00081115, inner + undefined(0x00081199, inner, explicit), explicit)
    data += put(0x0008103E, b"LO", description) if description else b""
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
    data += element(0x00081140, b"SQ", item, explicit)
    data += put(0x0020000E, b"UI", series) + put(0x00400512, b"LO", "S7")
    path.write_bytes(bytes(128) + b"DICM" + meta + data + body)
    return path


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_the_header_is_read_past_sequences(tmp_path: Path, syntax: str) -> None:
    path = write(tmp_path / "a.dcm", "1.2.3", "Case 5", syntax=syntax)
    assert read_header(path) == ("1.2.3", "Case 5")
    assert read_header(write(tmp_path / "b.dcm", "1.2.4", syntax=syntax)) == ("1.2.4", "S7")


def test_what_is_no_whole_slide_image_is_none(tmp_path: Path) -> None:
    assert read_header(write(tmp_path / "ct.dcm", kind="1.2.840.10008.5.1.4.1.1.2")) is None
    assert read_header(write(tmp_path / "big.dcm", syntax="1.2.840.10008.1.2.2")) is None
    content = write(tmp_path / "a.dcm").read_bytes()
    for length in range(0, len(content), 7):  # cut off anywhere: none, or what stands there
        (tmp_path / "cut.dcm").write_bytes(content[:length])
        assert read_header(tmp_path / "cut.dcm") in (None, ("1.2.3", ""), ("1.2.3", "S7"))
    deep = content[:132] + struct.pack("<HH2sHI", 8, 0x1115, b"SQ", 0, 0xFFFFFFFF) * 5000
    (tmp_path / "deep.dcm").write_bytes(deep)
    assert read_header(tmp_path / "deep.dcm") is None
    assert read_header(tmp_path / "missing.dcm") is None


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two series as folders, two more mixed in one folder, and a plain slide."""
    for name in ("1.2.1.dcm", "1.2.2.dcm", "1.2.3.dcm"):
        write(tmp_path / "A.1" / name, "1.1", body=name.encode())
        write(tmp_path / "B" / name, "1.2")
    for i, series in enumerate(("2.1", "2.2", "2.1")):
        write(tmp_path / "mixed" / f"{i}.dcm", series, f"Slide {series}/x")
    (tmp_path / "mixed" / "z.svs").touch()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").touch()
    return tmp_path


def names(*sources: Path, nested: bool = False) -> list[tuple[str, str]]:
    jobs = plan_jobs(list(sources), nested=nested)
    return [(job.name, job.path.name) for job in jobs]


def test_a_series_is_one_slide_however_it_is_given(study: Path) -> None:
    files = sorted((study / "A.1").iterdir())
    for given in ([study / "A.1"], files, files[:1], files[2:], [study / "A.1", *files]):
        assert names(*given) == [("A.1", "A.1")]
    assert names(study) == [("A.1", "A.1"), ("B", "B")]
    manifest = study / "m.csv"
    manifest.write_text("slide,mpp\nA.1/1.2.2.dcm,0.3\nB,\n")
    assert names(manifest) == [("A.1", "A.1"), ("B", "B")]


def test_series_in_one_folder_are_named_by_their_description(study: Path) -> None:
    want = [("Slide 2.1_x", "0.dcm"), ("Slide 2.2_x", "1.dcm"), ("z", "z.svs")]
    assert names(study / "mixed") == want
    assert names(study / "mixed" / "2.dcm") == want[:1]
    nested = names(study, nested=True)
    assert nested == [("A.1", "A.1"), ("B", "B"), *((f"mixed/{n}", p) for n, p in want)]


def test_series_without_a_name_of_their_own_stay_apart(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / "flat" / f"{i}.dcm", f"1.{i % 2}", "same")
    found = names(tmp_path / "flat")
    assert [path for _, path in found] == ["0.dcm", "1.dcm"]
    assert len({name for name, _ in found}) == 2


def test_archives_name_files_without_a_suffix(tmp_path: Path) -> None:
    for name in ("1.2.826.0.1", "1.2.826.0.2", "0003"):
        write(tmp_path / "case" / name)
    assert find_slides(tmp_path) == [tmp_path / "case"]
    assert names(tmp_path / "case" / "0003") == [("case", "case")]
    assert len(next(iter(find_series(tmp_path / "case").values()))) == 3


def test_a_new_file_is_seen(tmp_path: Path) -> None:
    write(tmp_path / "a" / "1.dcm")
    assert len(find_series(tmp_path / "a")) == 1
    write(tmp_path / "a" / "2.dcm", "7.7")
    assert len(find_series(tmp_path / "a")) == 2


def test_files_of_one_slide_have_one_identity(study: Path) -> None:
    files = sorted((study / "A.1").iterdir())
    same = {identify_slide(path) for path in (study / "A.1", *files)}
    assert len(same) == 1
    files[2].write_bytes(files[2].read_bytes()[:-1] + b"!")
    assert identify_slide(files[0]) not in same


def test_the_folder_of_an_mrxs_is_its_slide(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "Slidedat.ini").touch()
    (tmp_path / "a.mrxs").touch()
    assert names(tmp_path / "a") == names(tmp_path) == [("a", "a.mrxs")]
    assert identify_slide(tmp_path / "a") == identify_slide(tmp_path / "a.mrxs")


def test_a_folder_that_is_no_slide_is_refused(study: Path) -> None:
    with pytest.raises(SlideOpenError, match="is a folder, and holds no DICOM series"):
        open_slide(study / "notes")
    with pytest.raises(SlideOpenError, match=r"is a folder of 2 DICOM series; .* such as 0\.dcm"):
        open_slide(study / "mixed")


def test_other_slides_are_themselves(tmp_path: Path) -> None:
    path = write_aperio(tmp_path / "a.svs", picture(100, 100))
    assert gather_slide(path) == path
    assert name_slide(path) == "a.svs"
    assert names(tmp_path) == [("a", "a.svs")]


def test_real_series_open_as_folder_and_as_any_file(tmp_path: Path) -> None:
    if not FIELD.is_dir():
        pytest.skip("shared/data/field is not beside the checkout")
    assert [path.name for path in find_slides(FIELD)] == ["slideA", "slideB"]
    shutil.copytree(FIELD / "slideA", tmp_path / "moved")
    pixels = set()
    for path in (tmp_path / "moved", *sorted((tmp_path / "moved").iterdir())):
        with open_slide(path) as slide:
            assert (slide.vendor, slide.mpp, slide.objective) == ("dicom", (0.499, 0.499), 20)
            assert slide.level_sizes == ((1152, 1536), (288, 384))
            pixels.add((slide.identity, slide.read(Box(200, 200, 50, 50), 1.0).sum()))
    assert len(pixels) == 1
