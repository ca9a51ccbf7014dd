import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.export.stores import make_labels
from tests.export.stores import make_store as make_large_store
from wsiseg.annotations import BACKGROUND
from wsiseg.report import write_pictures, write_tables
from wsiseg.report.pictures import BINS

from .stores import PALETTE, annotate, make_store

MADE = {"version": "9", "settings": {"a": 1}, "model": {"licence": "CC-BY-4.0"}}
ROW = {"slide": "one", "status": "done", "tissue_mm2": 1.0}


def read_facts(folder):
    return json.loads((folder / "facts.json").read_bytes())


def stripes(tissue=True, side=256):
    """Labels 0..3 from left to right, confidence 200/255 (as `make_store` writes it)."""
    return np.repeat(np.arange(4, dtype=np.uint8), side // 4)[None].repeat(side, 0)


def save(tmp_path, labels, **how):
    image = np.full((*labels.shape, 3), 90, np.uint8)
    store = make_store(tmp_path / "s.zarr", image, labels, **how)
    write_pictures(store, tmp_path / "p", annotate(labels), MADE)
    return store, tmp_path / "p"


def test_both_maps_show_the_labels_in_their_colours(tmp_path):
    labels = stripes()
    labels[:64] = BACKGROUND
    _, folder = save(tmp_path, labels)
    for name, key in (("map", "color"), ("safe", "safe")):
        picture = np.asarray(Image.open(folder / f"{name}.png").convert("RGBA"))
        assert (picture[:64, :, 3] == 0).all(), "background is seen through"
        for number, known in enumerate(read_facts(folder)["classes"]):
            red, green, blue = bytes.fromhex(known[key][1:])
            inside = picture[64:, number * 64 : number * 64 + 64]
            assert (inside == (red, green, blue, 255)).all()


def test_the_histogram_is_the_area_by_confidence(tmp_path):
    labels = stripes()
    labels[:128] = BACKGROUND
    store, folder = save(tmp_path, labels)
    counts = np.array(read_facts(folder)["histogram"])
    assert counts.shape == (4, BINS)
    assert counts[:, 200 * BINS // 255] == pytest.approx(64 * 128 * store.mpp**2 / 1e6, abs=1e-6)
    assert counts.sum() == pytest.approx(counts[:, 200 * BINS // 255].sum())


def test_the_outline_runs_inside_the_tissue(tmp_path):
    labels = np.full((256, 256), BACKGROUND, np.uint8)
    labels[64:192, 32:224] = 1
    _, folder = save(tmp_path, labels)
    drawn = np.asarray(Image.open(folder / "tissue.png").convert("RGBA"))[..., 3] > 0
    rows, cols = np.nonzero(drawn)
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (64, 191, 32, 223)
    assert not drawn[70:180, 40:210].any()


def test_cams_are_laid_side_by_side_in_the_middle_of_their_tiles(tmp_path):
    labels = stripes()
    image = np.full((*labels.shape, 3), 90, np.uint8)
    store = make_store(tmp_path / "s.zarr", image, labels)
    store.create_cams(PALETTE, 2, 2)
    for block in range(store.grid.n_blocks):
        shape = store.grid.tiles_per_block, store.grid.tiles_per_block
        cams = np.zeros((*shape, 4, 2, 2), np.float16)
        cams[:, :, 1, 0, 1] = 20  # each tile's cell at the right top is of class 1
        store.write_cams(block, cams, np.zeros((*shape, 4), np.float32))
        store.mark_done("predict", block, "aa" * 32)
    write_pictures(store, tmp_path / "p", annotate(labels), MADE)
    assert read_facts(tmp_path / "p")["scores"] == "CAM"
    score = np.asarray(Image.open(tmp_path / "p" / "score_1.png"))
    assert score.shape == (16, 16)
    assert (score[::2, 1::2] == 255).all()
    assert (score[1::2] == 64).all()


def test_no_tissue_no_cams_one_pixel(tmp_path):
    _, folder = save(tmp_path, np.full((1, 1), BACKGROUND, np.uint8), tissue=False)
    facts = read_facts(folder)
    assert (facts["tissue"], facts["scores"], facts["places"]) == (False, "", [])
    write_tables(tmp_path, [ROW], [])


def test_the_same_map_gives_the_same_bytes(tmp_path):
    store = make_large_store(tmp_path / "s.zarr", make_labels())
    for name in "ab":
        write_pictures(store, tmp_path / name, annotate(make_labels()), MADE)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "b").iterdir())
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_places_are_those_of_the_least_sure_regions(tmp_path):
    labels = stripes()
    store, _ = save(tmp_path, labels)
    made = annotate(labels)
    ring = np.array([[100, 60], [180, 60], [180, 100], [100, 100], [100, 60]], np.int32)
    sure = replace(made.regions[0], area_px=10**6, confidence=0.9)
    unsure = replace(made.regions[1], exterior=ring, area_px=10**6, confidence=0.2)
    speck = replace(made.regions[2], area_px=3, confidence=0.1)
    write_pictures(store, tmp_path / "p", replace(made, regions=(sure, unsure, speck)), MADE)
    first, second = read_facts(tmp_path / "p")["places"]
    assert (first["class"], second["class"]) == ("Stroma", "Tumor")
    assert (first["x"], first["y"], first["um"]) == (70.0, 40.0, 0.06)


def test_the_page_shows_what_was_drawn(tmp_path):
    labels = stripes()
    image = np.full((*labels.shape, 3), 90, np.uint8)
    store = make_store(tmp_path / "s.zarr", image, labels)
    write_pictures(store, tmp_path / "report" / "in" / "a b.files", annotate(labels), MADE)
    write_tables(tmp_path, [{**ROW, "slide": "in/a b", "peak_mb": 1678.2}], [])
    text = (tmp_path / "report" / "in" / "a b.html").read_text(encoding="utf-8")
    for part in ('src="a%20b.files/slide.jpg"', "#slide=in%2Fa+b&amp;x=", "CC-BY-4.0",
                 "1,678 MB", 'href="../../report.html"', "<rect"):  # fmt: skip
        assert part in text
    index = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'src="report/in/a%20b.files/map_thumbnail.png"' in index
