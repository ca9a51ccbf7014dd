"""One rule for all readers: the same pixels, or the same refusal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.slide.pictures import IMAGE, MPP, READ, READERS, REFUSED, write
from wsiseg.config import SlideConfig
from wsiseg.errors import SlideOpenError
from wsiseg.geometry import Box
from wsiseg.slide import open_slide
from wsiseg.slide.samples import Samples

WHOLE = Box(0, 0, IMAGE.shape[1], IMAGE.shape[0])
FORMS = {"tiled": True, "stripped": False}


def config(reader: str) -> SlideConfig:
    given = {"reader": reader, "mpp_override": MPP, "scaled_decode": False}
    return SlideConfig.model_validate(given)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layout", READ)
def test_every_reader_gives_the_same_pixels(tmp_path: Path, layout: str, form: str) -> None:
    content, want, error = READ[layout]
    path = write(tmp_path / "a.tif", content(), FORMS[form])
    first = None
    for reader in READERS:
        with open_slide(path, config(reader)) as slide:
            got = slide.read(WHOLE, MPP)
            assert np.abs(got - want.astype(float)).max() <= error + 1e-9, reader
            first = got if first is None else first
            np.testing.assert_array_equal(got, first, err_msg=reader)
            np.testing.assert_array_equal(
                slide.read(Box(41, 30, 70, 50), MPP), got[30:80, 41:111], err_msg=reader
            )
            half = slide.read(Box(0, 0, 75, 50), 2 * MPP)
            means = first.reshape(50, 2, 75, 2, 3).mean((1, 3))
            assert np.abs(half - means).max() <= 0.5, reader


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layout", REFUSED)
def test_every_reader_refuses_the_same(tmp_path: Path, layout: str, form: str) -> None:
    content, match = REFUSED[layout]
    path = write(tmp_path / "a.tif", content(), FORMS[form])
    said = set()
    for reader in READERS:
        with pytest.raises(SlideOpenError, match=rf"a\.tif: not read: .*{match}") as refusal:
            open_slide(path, config(reader))
        said.add(str(refusal.value))
    assert len(said) == 1
    assert "8-bit RGB" in said.pop(), "what to do"


def test_scaling_is_exact_and_clips() -> None:
    table = np.clip(np.rint((np.arange(2**16) - 100) / 765 * 255), 0, 255).astype(np.uint8)
    samples = np.array([[[0, 100, 103], [865, 866, 65535]]], np.uint16)
    got = Samples(table=table).to_rgb(samples)
    assert got.tolist() == [[[0, 0, 1], [255, 255, 255]]]
