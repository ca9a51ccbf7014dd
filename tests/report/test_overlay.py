from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from wsiseg.annotations import BACKGROUND
from wsiseg.geometry import Box
from wsiseg.pyramid import halve_labels
from wsiseg.report import write_overlay
from wsiseg.report.legend import choose_bar
from wsiseg.report.overlay import blend_labels, shrink_image, shrink_labels
from wsiseg.report.rows import describe_tissue

from .stores import PALETTE, annotate, make_store


def shrink_slowly(image: np.ndarray, factor: int) -> np.ndarray:
    rows, cols = -(-image.shape[0] // factor), -(-image.shape[1] // factor)
    out = np.empty((rows, cols, 3))
    for y in range(rows):
        for x in range(cols):
            part = image[y * factor : (y + 1) * factor, x * factor : (x + 1) * factor]
            out[y, x] = part.reshape(-1, 3).mean(axis=0)
    return out


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 150), st.integers(1, 150), st.integers(0, 6), st.integers(0, 9))
def test_the_picture_is_the_mean_of_its_pixels(tmp_path_factory, height, width, power, seed):
    factor = 2**power
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    labels = np.zeros((height, width), np.uint8)
    store = make_store(tmp_path_factory.mktemp("any") / "s.zarr", image, labels)
    shrunk = shrink_image(store, factor)
    assert shrunk.dtype == np.uint8
    slow = shrink_slowly(image, factor)
    assert shrunk.shape == slow.shape
    # Each level of the pyramid that it comes through rounds off half a grey level, and takes what
    # is cut at the raster's edge for a whole pixel.
    whole = np.s_[: height // factor, : width // factor]
    assert np.abs(shrunk - slow)[whole].max(initial=0) <= (0.5 if factor < 16 else 1)
    assert image.min() <= shrunk.min()
    assert shrunk.max() <= image.max()


def test_blocks_without_tissue_are_not_read(tmp_path, monkeypatch):
    labels = np.full((256, 256), BACKGROUND, np.uint8)
    labels[200:240, 200:240] = 1
    image = np.where(labels[..., None] == 1, 90, 255).repeat(3, 2).astype(np.uint8)
    store = make_store(tmp_path / "s.zarr", image, labels)
    read = []
    whole = store.read_image
    monkeypatch.setattr(store, "read_image", lambda *a: read.append(a) or whole(*a))
    assert np.abs(shrink_image(store, 4) - shrink_slowly(image, 4)).max() <= 0.5
    assert 1 <= len(read) <= 4 < store.grid.n_blocks


def test_labels_are_taken_at_pixel_centres(tmp_path):
    labels = np.zeros((1100, 700), np.uint8)
    labels[550:, :] = 1
    labels[:, 350:] += 2
    image = np.full((*labels.shape, 3), 255, np.uint8)
    store = make_store(tmp_path / "s.zarr", image, labels, block=512)
    assert len(store.pyramid_factors) > 1
    for factor in (1, 2, 3, 5):
        shrunk = shrink_labels(store, factor)
        assert set(np.unique(shrunk)) == {0, 1, 2, 3}
        assert shrunk.shape == (-(-1100 // factor), -(-700 // factor))
        for y, x, label in ((0.2, 0.2, 0), (0.2, 0.8, 2), (0.8, 0.2, 1), (0.8, 0.8, 3)):
            assert shrunk[int(y * shrunk.shape[0]), int(x * shrunk.shape[1])] == label
        assert abs(int((shrunk[:, 0] == 0).sum()) - 550 / factor) <= 1


def test_blending_tints_classes_and_leaves_background():
    labels = np.full((9, 9), BACKGROUND, np.uint8)
    labels[2:7, 2:7] = 0
    image = np.full((9, 9, 3), 200, np.uint8)
    out = blend_labels(image, labels, PALETTE)
    assert (out[labels == BACKGROUND] == 200).all()
    assert out[4, 4].tolist() == [200, 120, 120]
    assert out[2, 2].tolist() == [120, 0, 0], "the border is the class's colour, darker"
    assert (out[3:6, 3:6] == out[4, 4]).all()


@pytest.mark.parametrize("tissue", [True, False])
def test_a_jpeg_is_written_whole(tmp_path, tissue):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.repeat(rng.integers(0, 4, (6, 9)), 50, 0), 50, 1).astype(np.uint8)
    image = rng.integers(0, 255, (*labels.shape, 3)).astype(np.uint8)
    store = make_store(tmp_path / "s.zarr", image, labels, tissue)
    path = tmp_path / "overlays" / "a" / "case.jpg"
    write_overlay(store, path, annotate(labels))
    with Image.open(path) as picture:
        assert picture.format == "JPEG"
        assert picture.width == 900
        assert picture.height > 300
        top = np.asarray(picture)[:300, 225:675].astype(int)
    expected = blend_labels(image, labels, PALETTE)
    assert np.abs(top - expected).mean() < 12
    assert [file.name for file in path.parent.iterdir()] == ["case.jpg"]
    first = path.read_bytes()
    write_overlay(store, path, annotate(labels))
    assert path.read_bytes() == first


def test_damaged_tiles_are_crossed_out(tmp_path):
    labels = np.full((400, 500), BACKGROUND, np.uint8)
    store = make_store(tmp_path / "s.zarr", np.full((400, 500, 3), 255, np.uint8), labels)
    store.meta["slide"]["mpp"] = [0.25, 0.25]  # half of the store's
    path = tmp_path / "case.jpg"
    write_overlay(store, path, annotate(labels), [Box(200, 100, 128, 128)])
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)[:400, 200:700]
    red = (picture[..., 0] > 150) & (picture[..., 1] < 120)
    rows, cols = np.nonzero(red)
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (50, 113, 100, 163)
    assert red[82, 132] or red[81, 131], "crossed in the middle"


@pytest.mark.parametrize("size", [(1, 1), (40, 3), (300, 200)])
def test_an_empty_slide_has_a_picture_too(tmp_path, size):
    labels = np.full(size, BACKGROUND, np.uint8)
    image = np.full((*size, 3), 255, np.uint8)
    store = make_store(tmp_path / "s.zarr", image, labels)
    write_overlay(store, tmp_path / "case.jpg", annotate(labels))
    with Image.open(tmp_path / "case.jpg") as picture:
        assert (np.asarray(picture)[: size[0]] > 250).all()


def test_a_block_that_two_does_not_divide(tmp_path):
    labels = np.random.default_rng(0).integers(0, 4, (600, 75)).astype(np.uint8)
    image = np.random.default_rng(0).integers(0, 255, (600, 75, 3)).astype(np.uint8)
    store = make_store(tmp_path / "s.zarr", image, labels, tile=25, block=75)
    assert store.pyramid_factors == (1, 2)
    assert (shrink_labels(store, 2) == halve_labels(labels)).all()
    assert np.abs(shrink_image(store, 4) - shrink_slowly(image, 4)).max() <= 0.5


def test_a_name_of_two_lines(tmp_path):
    labels = np.zeros((64, 64), np.uint8)
    store = make_store(tmp_path / "s.zarr", np.zeros((64, 64, 3), np.uint8), labels)
    write_overlay(store, tmp_path / "a.jpg", replace(annotate(labels), slide="two\r\nlines.svs"))
    assert (tmp_path / "a.jpg").stat().st_size > 1000


def test_a_name_that_is_not_utf8(tmp_path):
    labels = np.zeros((64, 64), np.uint8)
    store = make_store(tmp_path / "s.zarr", np.zeros((64, 64, 3), np.uint8), labels)
    named = replace(annotate(labels), slide=b"caf\xe9.svs".decode("utf-8", "surrogateescape"))
    write_overlay(store, tmp_path / "a.jpg", named)
    assert (tmp_path / "a.jpg").stat().st_size > 1000


@given(st.floats(0.01, 2000), st.integers(100, 4000))
@example(99.99999999999999 / 200, 1000)
def test_the_scale_bar_is_round_and_fits(mpp, width):
    length, pixels = choose_bar(mpp, width)
    assert f"{length:e}"[0] in "125"
    assert pixels == pytest.approx(length * 1000 / mpp, abs=0.5)
    assert width / 5 / 2.5 - 1 <= pixels <= width / 5 + 1


def test_tissue_without_a_class_is_told_unless_it_is_rounding():
    assert describe_tissue(2.0, 1.5) == "2.00 mm², 25.0 % of it without a class"
    assert describe_tissue(2.0, 1.999) == "2.00 mm²"
    assert describe_tissue(2.0, float("inf")) == "2.00 mm²"
    assert describe_tissue(0.0, 0.0) == ""
