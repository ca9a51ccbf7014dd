"""Another slide in the place of one is seen, wherever it differs and however many files it has."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

import wsiseg.slide.identity as identity
from tests.slide.aperio import picture, write_aperio
from wsiseg.config import SlideConfig
from wsiseg.errors import SlideOpenError
from wsiseg.slide import identify_slide, open_slide, was_identified_as
from wsiseg.slide.identity import slide_files


def write(path: Path, size: int, change: int | None = None, by: bytes = b"changed") -> Path:
    content = bytearray(np.random.default_rng(0).bytes(size))
    if change is not None:
        content[change : change + len(by)] = by
    path.write_bytes(content)
    return path


def write_plain(path: Path, seed: int, **options: object) -> Path:
    """An uncompressed tiled TIFF: its size and tables say nothing of its pixels."""
    image = np.full((768, 768, 3), 255, np.uint8)
    image[256:512] = np.random.default_rng(seed).integers(0, 255, (256, 768, 3), np.uint8)
    tifffile.imwrite(path, image, photometric="rgb", tile=(128, 128), metadata=None, **options)
    return path


@pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"byteorder": ">"}])
def test_an_uncompressed_tiff_of_the_same_size(tmp_path: Path, options: dict[str, object]) -> None:
    one, two = (write_plain(tmp_path / f"{seed}.tif", seed, **options) for seed in (1, 2))
    ends = [[p.read_bytes()[:65536], p.read_bytes()[-65536:]] for p in (one, two)]
    assert one.stat().st_size == two.stat().st_size
    assert ends[0] == ends[1], "size and ends do not tell them apart"
    assert identify_slide(one) != identify_slide(two)
    assert identify_slide(one) == identify_slide(write_plain(tmp_path / "copy.tif", 1, **options))


def test_tables_of_all_directories_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any sample: byte counts of a tile of a SubIFD, deep within the file."""
    monkeypatch.setattr(identity, "_ENDS", 16)
    monkeypatch.setattr(identity, "_SAMPLE", 0)
    paths = []
    for name, noisy in (("a.tif", 5), ("b.tif", 9)):
        small = np.zeros((256, 256, 3), np.uint8)
        small[64:128, 64:128] = np.random.default_rng(noisy).integers(0, noisy, (64, 64, 3))
        how = {"photometric": "rgb", "tile": (64, 64), "compression": "zlib", "metadata": None}
        with tifffile.TiffWriter(tmp_path / name) as tiff:
            tiff.write(np.zeros((512, 512, 3), np.uint8), subifds=1, **how)
            tiff.write(small, subfiletype=1, **how)
        with (tmp_path / name).open("ab") as file:
            file.write(bytes(10**6 - file.tell()))
        paths.append(tmp_path / name)
    assert identify_slide(paths[0]) != identify_slide(paths[1])


@pytest.mark.parametrize("at", [0, 50_000, 500_000, 999_990])
def test_ends_and_samples_count(tmp_path: Path, at: int) -> None:
    plain = write(tmp_path / "a.svs", 10**6)
    assert identify_slide(plain) != identify_slide(write(tmp_path / "b.svs", 10**6, at))
    assert identify_slide(plain) != identify_slide(write(tmp_path / "c.svs", 10**6 + 1))
    assert identify_slide(plain) == identify_slide(write(tmp_path / "d.svs", 10**6))


@pytest.mark.parametrize("size", [0, 1, 15, 16, 100, 4096, 70_000])
def test_small_files_have_one_too(tmp_path: Path, size: int) -> None:
    assert len(identify_slide(write(tmp_path / "a.svs", size))) == 64


def test_it_is_looked_at_again_when_the_time_stamp_changed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.svs", 10**6)
    before = identify_slide(path)
    status = path.stat()
    write(path, 10**6, 500_000)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert identify_slide(path) != before


def test_what_a_damaged_tiff_says_is_followed_as_far_as_it_goes(tmp_path: Path) -> None:
    content = write_plain(tmp_path / "a.tif", 1, bigtiff=True).read_bytes()
    random = np.random.default_rng(2)
    for i in range(40):
        broken = bytearray(content)
        for at in random.integers(0, 400, 6):
            broken[at] = random.integers(256)
        path = tmp_path / f"{i}.tif"
        path.write_bytes(broken)
        assert len(identify_slide(path)) == 64
    loop = bytearray(content)
    at = int.from_bytes(loop[8:16], "little")
    count = int.from_bytes(loop[at : at + 8], "little")
    loop[at + 8 + 20 * count : at + 16 + 20 * count] = at.to_bytes(8, "little")  # after itself
    path.write_bytes(loop)
    assert len(identify_slide(path)) == 64


# -- companions ----------------------------------------------------------------------------------


def make_mrxs(folder: Path, change: bytes = b"") -> Path:
    (folder / "a").mkdir(parents=True)
    (folder / "a.mrxs").write_bytes(b"thumbnail")
    (folder / "a" / "Slidedat.ini").write_text("[GENERAL]")
    (folder / "a" / "Data0000.dat").write_bytes(bytes(50_000) + change)
    return folder / "a.mrxs"


def make_vms(folder: Path, change: bytes = b"") -> Path:
    folder.mkdir(parents=True)
    lines = ["[Virtual Microscope Specimen]", "ImageFile=a-0.jpg", "MacroImage=gone.jpg"]
    (folder / "a.vms").write_text("\r\n".join(lines))
    (folder / "a-0.jpg").write_bytes(bytes(50_000) + change)
    (folder / "other.jpg").write_bytes(change)
    return folder / "a.vms"


@pytest.mark.parametrize("make", [make_mrxs, make_vms])
def test_companions_count(tmp_path: Path, make: object) -> None:
    one, same = make(tmp_path / "one"), make(tmp_path / "same")  # type: ignore[operator]
    other = make(tmp_path / "other", b"x")  # type: ignore[operator]
    assert len(slide_files(one)) == (3 if one.suffix == ".mrxs" else 2)
    assert identify_slide(one) == identify_slide(same)
    assert identify_slide(one) != identify_slide(other)


@pytest.mark.parametrize("reader", ["direct", "openslide", "tiffslide"])
def test_readers_and_names_do_not_matter(tmp_path: Path, reader: str) -> None:
    path = write_aperio(tmp_path / "a.svs", picture(100, 100))
    shutil.copy(path, tmp_path / "b.svs")
    with open_slide(tmp_path / "b.svs", SlideConfig.model_validate({"reader": reader})) as slide:
        assert slide.identity == identify_slide(path)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(SlideOpenError, match=r"no\.svs: no such file"):
        identify_slide(tmp_path / "no.svs")


def test_identities_of_older_stores_are_known(tmp_path: Path) -> None:
    path = write(tmp_path / "a.svs", 10**6)
    content = path.read_bytes()
    former = hashlib.sha256(b"1000000:" + content[:65536] + content[-65536:]).hexdigest()
    assert was_identified_as(path, former)
    assert not was_identified_as(path, identify_slide(path))
