import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from wsiseg.cli import app
from wsiseg.errors import ConfigError, DataError, StoreError
from wsiseg.places import read_places
from wsiseg.qupath import lint_geojson
from wsiseg.store import SlideStore
from wsiseg.suggest import suggest_places, write_suggestions

from .labels.slides import BOUNDS, COLS, PALETTE, ROWS, make_store
from .labels.test_forms import collection, feature, polygon, square


def predict(store, logits):
    """CAMs of one cell: `logits` ``(rows, cols)`` for the first class, 0 for the second."""
    store.create_cams(PALETTE, 1, 1)
    cams = np.stack([logits, np.zeros_like(logits)], 2)[..., None, None]
    for block in range(store.grid.n_blocks):
        tiles = np.array(list(store.grid.block_tiles(block)))
        (top, left), (bottom, right) = tiles.min(0), tiles.max(0) + 1
        part = cams[top:bottom, left:right]
        store.write_cams(block, part.astype(np.float16), part[..., 0, 0].astype(np.float32))
        store.mark_done("predict", block, "0" * 64)


@pytest.fixture
def folder(tmp_path):
    """Two slides: the first is unsure along its top row, the second sure but for one tile."""
    sure = np.tile(np.where(np.arange(COLS) < 2, 6.0, -6.0), (ROWS, 1))
    first, second = sure.copy(), sure.copy()
    first[0] = np.linspace(-0.4, 0.4, COLS)
    second[3, 4] = 0.1
    second[2, 2] = np.nan  # no tissue
    for name, logits in (("one", first), ("two", second)):
        predict(make_store(tmp_path / "slides", name), logits)
    return tmp_path


def places(found):
    return [(one.store.path.stem, one.row, one.col) for one in found]


def test_unsure_places_come_first_and_no_slide_has_all(folder):
    found = suggest_places([folder], 6)
    assert {place for place in places(found) if place[:2] == ("one", 0)}
    assert ("two", 3, 4) in places(found)
    assert found[0].uncertainty > 0.8
    assert len(set(places(found))) == 6
    few = suggest_places([folder], 6, per_slide=1)
    assert sorted(place[0] for place in places(few)) == ["one", "two"]
    everything = suggest_places([folder], 999, per_slide=999)
    assert len(everything) == 2 * ROWS * COLS - 1
    assert ("two", 2, 2) not in places(everything), "no tissue"


def test_places_are_suggested_on_finished_maps_of_one_model_only(folder):
    one, two = (SlideStore(folder / "slides" / f"{name}.zarr") for name in ("one", "two"))
    for store, model in ((one, "ab"), (two, "cd")):
        store._group["cams"].attrs["source"] = model
    with pytest.raises(DataError, match="by another model than the other one; suggest places on"):
        suggest_places([folder], 2)
    two.begin("predict", 0)
    with pytest.raises(StoreError, match=r"two\.zarr: `wsiseg predict` did not finish here"):
        suggest_places([folder], 2)


def test_equally_unsure_places_are_taken_unlike_each_other(tmp_path):
    logits = np.where(np.arange(ROWS * COLS).reshape(ROWS, COLS) < 18, 0.5, -0.5)
    predict(make_store(tmp_path), logits)
    found = suggest_places([tmp_path], 2)
    assert {one.predicted for one in found} == {"Pink", "Blue"}, "though 18 of 20 are alike"


def test_a_slide_may_have_one_place_or_more(folder):
    assert len({place[0] for place in places(suggest_places([folder], 2, per_slide=1))}) == 2
    with pytest.raises(ConfigError, match="per_slide is 0; it must be at least 1"):
        suggest_places([folder], 2, per_slide=0)


def test_slides_of_one_name_in_two_sub_folders_get_frames_each(tmp_path):
    for folder in ("x", "y"):
        predict(make_store(tmp_path / "slides" / folder), np.zeros((ROWS, COLS)))
    places = suggest_places([tmp_path], 4, per_slide=2)
    table, *files = write_suggestions(places, tmp_path / "out")
    assert {row["slide"] for row in csv.DictReader(table.open())} == {"x/one", "y/one"}
    assert set(files) >= {tmp_path / "out" / "geojson" / name / "one.geojson" for name in "xy"}
    assert not list((tmp_path / "out").rglob("*.old*"))


def test_places_are_mostly_tissue(tmp_path):
    tissue = np.ones((ROWS, COLS), bool)
    tissue[0, 0] = False
    predict(make_store(tmp_path, tissue=tissue), np.zeros((ROWS, COLS)))
    assert ("one", 0, 0) not in places(suggest_places([tmp_path], 99))


def test_a_tile_in_which_somebody_drew_a_little_is_not_suggested_again(folder):
    labels = folder / "labels"
    labels.mkdir()
    drawn = collection(feature("Pink", polygon(square(1.1, 2.6, 0.2, 0.3))))
    (labels / "one.geojson").write_text(json.dumps(drawn))
    found = suggest_places([folder], 99, [labels], per_slide=99)
    assert ("one", 1, 2) not in places(found)
    assert len(found) == 2 * ROWS * COLS - 2


def test_what_is_labelled_is_not_suggested(folder):
    labels = folder / "labels"
    labels.mkdir()
    drawn = collection(feature("Pink", polygon(square(0, 0, 1, COLS))))
    (labels / "one.geojson").write_text(json.dumps(drawn))
    found = suggest_places([folder], 40, [labels], per_slide=40)
    assert len(found) == 2 * ROWS * COLS - 1 - COLS
    assert not {place for place in places(found) if place[:2] == ("one", 0)}
    whole = collection(feature("Pink", polygon(square(0, 0, ROWS, COLS))))
    for name in ("one", "two"):
        (labels / f"{name}.geojson").write_text(json.dumps(whole))
    with pytest.raises(DataError, match="no tile is left to suggest"):
        suggest_places([folder], 4, [labels])


def test_labels_that_cannot_be_read_or_belong_to_no_slide_are_told(folder, caplog):
    labels = folder / "labels"
    labels.mkdir()
    drawn = collection(feature("Pink", polygon(square(0, 0, 1, COLS))))
    (labels / "other.geojson").write_text(json.dumps(drawn))
    assert len(suggest_places([folder], 4, [labels])) == 4
    assert "other.geojson: no store of slide 'other'" in caplog.text
    (labels / "one.geojson").write_text('{"type": "FeatureCollection", "features": [')
    with pytest.raises(DataError, match=r"suggest: 1 problem(?s:.*)one\.geojson"):
        suggest_places([folder], 4, [labels])


def test_the_command_writes_frames_that_qupath_takes_and_keeps_older_ones(folder):
    out = folder / "suggest"
    call = ["suggest", str(folder), "-n", "3", "-o", str(out)]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.output
    shown = "".join(result.output.split())  # it may be wrapped
    assert "".join(f"wsiseg view {folder} --suggest {out}".split()) in shown
    rows = list(csv.DictReader((out / "suggestions.csv").open()))
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    features = []
    for path in sorted((out / "geojson").iterdir()):
        assert lint_geojson(path) == []
        features += json.loads(path.read_text())["features"]
    assert {f["properties"]["classification"]["name"] for f in features} == {"Region*"}
    corners = {tuple(min(f["geometry"]["coordinates"][0])) for f in features}
    wanted = {tuple(map(float, square(int(r["row"]), int(r["col"]))[0])) for r in rows}
    assert corners == wanted == {(float(r["x"]), float(r["y"])) for r in rows}, BOUNDS
    spans = {tuple(np.ptp(f["geometry"]["coordinates"][0], axis=0)) for f in features}
    assert spans == {(one.width, one.height) for one in read_places(out)}
    assert {one.map for one in read_places(out)} == {"0" * 16}, "of the CAMs"
    assert "geojson" in (out / "qupath" / "import.groovy").read_text()
    assert not (out / "qupath" / "export.groovy").exists()
    again = CliRunner().invoke(app, call)
    assert again.exit_code == 0
    assert (out / "suggestions.csv.old").exists()
    assert "suggestions.csv: the earlier one is kept as suggestions.csv.old" in again.output
