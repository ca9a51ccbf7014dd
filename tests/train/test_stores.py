import csv
import json
import shutil

import numpy as np
import pytest
import shapely
from typer.testing import CliRunner

from wsiseg.annotations import Annotations, Palette
from wsiseg.cli import app
from wsiseg.config import LabelConfig, TrainConfig
from wsiseg.errors import DataError
from wsiseg.geometry import Box
from wsiseg.model.checkpoint import read_info
from wsiseg.qupath import lint_geojson, write_geojson
from wsiseg.qupath.form.java_area import cut_rows
from wsiseg.trace import trace_regions
from wsiseg.train import load_tiles, train_model

from ..labels.slides import CLASSES, COLORS, COLS, PALETTE, ROWS, TILE, labels_of, make_store


def table(folder, text):
    path = folder / "tiles.csv"
    path.write_text(text)
    return path


def places(tiles):
    """Corners of the windows in tiles."""
    return [tuple(place) for place in (tiles.windows[:, 1:] / TILE).tolist()]


def test_tiles_by_row_and_column_of_two_stores(tmp_path):
    stores = [make_store(tmp_path, "one"), make_store(tmp_path, "two", mpp=0.51)]
    labels = table(
        tmp_path, "slide,row,col,Blue,Pink\none,0,0,0,1\ntwo.svs,3,4,1,0\none.svs,1,2,1,1\n"
    )
    tiles = load_tiles([tmp_path], labels, CLASSES)
    assert len(tiles) == 3
    assert tiles.labels.tolist() == [[1, 0], [1, 1], [0, 1]], "slide by slide"
    assert tiles.weights.tolist() == [1, 1, 1]
    assert (tiles.side, tiles.mpp) == (TILE, 0.505)
    assert tiles.name(2) == "two around (476, 408)", "2 x (4.5, 3.5) tiles, less the bounds' corner"
    assert tiles.cases == ["one", "one", "two"]
    wanted = [store.read_image(store.grid.tile_box(*t)) for store, t in (
        (stores[1], (3, 4)), (stores[0], (0, 0)))]  # fmt: skip
    assert np.array_equal(tiles.read([2, 0]), wanted)
    assert (tiles.read([2])[0] == COLORS[1]).all()


def test_tiles_by_a_point_as_qupath_shows_it(tmp_path):
    store = make_store(tmp_path, stride=TILE // 2)
    labels = table(tmp_path, "store,x,y,labels\none.zarr,0,0,Pink\none,400,290,Blue\n")
    tiles = load_tiles([store.path], labels, CLASSES)
    # Raster ((0, 0) + bounds) / 2 = (50, 20) and (250, 165), in steps of 32.
    assert places(tiles) == [(0, 0.5), (2.5, 3.5)]
    tiles = load_tiles([store.path], labels, CLASSES, LabelConfig(origin="level0"))
    assert places(tiles) == [(0, 0), (2, 3)]


def test_one_error_lists_every_problem_of_a_table(tmp_path):
    tissue = np.ones((ROWS, COLS), bool)
    tissue[3, 3] = False
    make_store(tmp_path, tissue=tissue)
    make_store(tmp_path, "open", finished=False)
    make_store(tmp_path, "wide", tile=32)
    rows = [
        "one,0,0,Pink", "one,0,0,Blue", "none,0,0,Pink", "one,4,0,Pink", "one,0,-1,Pink",
        "one,1.5,0,Pink", "one,a,0,Pink", "one,3,3,Pink", "one,1,1,Green",
    ]  # fmt: skip
    with pytest.raises(DataError) as caught:
        load_tiles([tmp_path], table(tmp_path, "slide,row,col,labels\n" + "\n".join(rows)), CLASSES)
    message = str(caught.value)
    assert "10 problem(s) with the labels or stores" in message
    for part in (
        "open.zarr: `wsiseg tile` did not finish here",
        "wide.zarr: has tiles of 32 px at 0.5 µm/px",
        "line 3: tile (0, 0) of one was given in line 2",
        "line 4: no store of slide 'none'; there are one, wide",
        "line 5: row = 4, col = 0 is outside one, which has 4 rows and 5 columns of tiles",
        "line 6: row = 0, col = -1 is outside one",
        "line 7: row = '1.5', col = '0' are not whole numbers",
        "line 8: row = 'a', col = '0' are not whole numbers",
        "line 9: tile (3, 3) of one holds no tissue",
        "line 10: unknown class ['Green']",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slide,row,col,labels\none,0,0,Pink\n", "no tile shows 'Blue', so it cannot be learned"),
        ("slide,x,y,labels\none,nan,0,Pink\n", "x = 'nan', y = '0' are not numbers"),
        ("slide,x,y,labels\none,600,0,Pink\n", "x = 600, y = 0 is outside one"),
        ("slide,tile,labels\none,0,Pink\n", r"needs slide,row,col or slide,x,y or store,row,col"),
    ],
)
def test_bad_tables(tmp_path, text, message):
    make_store(tmp_path)
    with pytest.raises(DataError, match=message):
        load_tiles([tmp_path], table(tmp_path, text), CLASSES)


def test_no_stores_and_no_labels(tmp_path):
    with pytest.raises(DataError, match=r"is neither a \.zarr store nor a folder of them"):
        load_tiles([tmp_path], table(tmp_path, ""), CLASSES)
    make_store(tmp_path)
    with pytest.raises(DataError, match=r"none\.csv: does not exist; give label files"):
        load_tiles([tmp_path], tmp_path / "none.csv", CLASSES)


def test_one_name_for_two_stores(tmp_path):
    for folder in ("a", "b", "b/a"):
        (tmp_path / folder).mkdir()
        make_store(tmp_path / folder)
    labels = table(tmp_path, "slide,row,col,labels\none,0,0,Pink;Blue\n")
    with pytest.raises(DataError, match=r"line 2: 'one' is the name of .*one.zarr and .*one.zarr"):
        load_tiles([tmp_path / "a", tmp_path / "b" / "one.zarr"], labels, CLASSES)
    with pytest.raises(DataError, match=r"one.zarr: has the same name as .*one.zarr: 'one'"):
        load_tiles([tmp_path / "a", tmp_path / "b"], labels, CLASSES)
    labels = table(tmp_path, "slide,row,col,labels\nb/one,0,0,Pink;Blue\n")
    found = load_tiles([tmp_path / "a", tmp_path / "b" / "one.zarr"], labels, CLASSES)
    assert [store.path.parent.name for store in found.stores] == ["b"]


# -- annotations ---------------------------------------------------------------------------------


def annotate(store, path, labels=None, palette=PALETTE, labels_digest=""):
    labels = labels_of(store.grid) if labels is None else labels
    regions = tuple(trace_regions(labels))
    x, y, *_ = store.slide["bounds"]
    found = Annotations(
        store.slide["name"], palette, regions, (2.0, 2.0), 0.5, origin=(x, y),
        provenance={"labels": labels_digest} if labels_digest else {},
    )  # fmt: skip
    path.parent.mkdir(exist_ok=True)
    return write_geojson(found, path)


def test_polygons_give_each_tile_its_classes(tmp_path):
    store = make_store(tmp_path)
    tiles = load_tiles([store.path], annotate(store, tmp_path / "one.geojson"), CLASSES)
    assert set(places(tiles)) == set(np.ndindex(ROWS, COLS)), "tiles at the slide's border too"
    for (_, col), label, cells in zip(places(tiles), tiles.labels, tiles.cells, strict=True):
        pink = np.broadcast_to(np.arange(28) + 28 * col < 28 * COLS / 2, (28, 28))
        assert np.array_equal(cells, pink if label[0] else ~pink), "half of the middle column each"
        assert label.sum() == 1
    assert len(tiles) == ROWS * (COLS + 1)
    assert tiles.weights.sum() == ROWS * COLS


def test_windows_lie_on_what_was_drawn_and_a_class_needs_its_share(tmp_path):
    store = make_store(tmp_path)
    labels = np.full((ROWS * TILE, COLS * TILE), 255, np.uint8)
    labels[70:100, 70 : 70 + 30] = 0
    labels[70:100, 98:100] = 1  # 2 / 30 of it
    labels[TILE : 4 * TILE, 3 * TILE : 4 * TILE] = 1
    path = annotate(store, tmp_path / "one.geojson", labels)
    found = load_tiles([store.path], path, CLASSES)
    assert found.windows[:2].tolist() == [[0, 53, 53]] * 2, "about its middle (85), off the grid"
    assert places(found)[2:] == [(1, 3), (2, 3), (3, 3)], "a large area has several"
    assert found.labels.tolist() == [[0, 1], [1, 0], [0, 1], [0, 1], [0, 1]], "each in its part"
    assert found.weights[:2].sum() == pytest.approx((30 / TILE) ** 2)
    assert found.weights[2:].tolist() == [1, 1, 1]
    assert not (found.cells[0] & found.cells[1]).any()
    middles = (np.arange(28) + 0.5) * TILE / 28 + 53
    for cells, (left, right) in zip(found.cells, ((98, 100), (70, 98)), strict=False):
        rows, cols = (middles[cells.any(axis)] for axis in (1, 0))
        assert rows.min() > 70
        assert rows.max() < 100
        assert cols.min() > left
        assert cols.max() < right
    assert found.cells[2:].all()
    assert np.array_equal(found.read([0])[0], store.read_image(Box(53, 53, TILE, TILE)))
    config = LabelConfig(class_fraction=0.1)
    few = load_tiles([store.path], path, CLASSES, config)
    assert few.labels.tolist() == [[1, 0], [0, 1], [0, 1], [0, 1]], "too little to be believed"
    assert np.array_equal(few.cells[0], found.cells[1])


def test_what_is_ignored_is_cut_out_and_what_has_no_class_says_nothing(tmp_path):
    store = make_store(tmp_path)
    names = Palette(("Pink", "Blue", "Ignore*"), ((1, 1, 1), (2, 2, 2), (3, 3, 3)))
    labels = labels_of(store.grid)
    labels[:TILE] = 2
    path = annotate(store, tmp_path / "one.geojson", labels, names)
    text = path.read_text()
    assert {row for row, _ in places(load_tiles([store.path], path, CLASSES))} == {1, 2, 3}
    path.write_text(text.replace('"classification"', '"class"'))
    with pytest.raises(DataError, match="no tissue of one is annotated"):
        load_tiles([store.path], path, CLASSES)


def edit(path, change):
    """Let `change` work on the features of a file."""
    document = json.loads(path.read_text())
    change(document["features"])
    path.write_text(json.dumps(document))


def as_class(feature, name):
    copy = json.loads(json.dumps(feature))
    copy["properties"]["classification"] = {"name": name, "color": [0, 0, 180]}
    return copy


@pytest.mark.parametrize("name", ["Region*", "Region*: Scanned", "Seen*"])
def test_a_region_of_interest_is_not_cut_out(tmp_path, caplog, name):
    store = make_store(tmp_path)
    path = annotate(store, tmp_path / "one.geojson")
    edit(path, lambda features: features.append(as_class(features[0], name)))
    tiles = load_tiles([store.path], path, CLASSES)
    assert len(set(places(tiles))) == ROWS * COLS
    assert tiles.labels[:, 0].sum() > 0
    told = f"one.geojson: ['{name}'] are skipped, as their names end in '*'"
    assert (told in caplog.text) is (name != "Region*")


def test_a_class_of_ones_own_may_end_in_a_star(tmp_path):
    store = make_store(tmp_path)
    path = annotate(store, tmp_path / "one.geojson", palette=Palette(("Pink", "Blue*"),
                                                                     PALETTE.colors))  # fmt: skip
    assert load_tiles([store.path], path, ("Pink", "Blue*")).labels[:, 1].sum() > 0


def test_a_broken_feature_is_told_and_costs_no_other(tmp_path, caplog):
    store = make_store(tmp_path)
    path = annotate(store, tmp_path / "one.geojson")
    bad = {"type": "Feature", "geometry": None, "properties": {"classification": "Pink"}}
    root = {"type": "Feature", "geometry": {}, "properties": {"objectType": "root"}}
    edit(path, lambda features: features.extend([bad, root]))
    assert len(set(places(load_tiles([store.path], path, CLASSES)))) == ROWS * COLS
    assert "one.geojson: 1 feature(s) left out (feature 2:" in caplog.text
    assert "`wsiseg lint --fix`" in caplog.text


def test_detections_are_no_labels_and_that_is_told(tmp_path, caplog):
    store = make_store(tmp_path)
    path = annotate(store, tmp_path / "one.geojson")
    edit(path, lambda features: features[1]["properties"].update(objectType="detection"))
    assert len(load_tiles([store.path], path, ("Pink",))) > 0
    assert "one.geojson: 1 detection(s) skipped, as nobody drew them" in caplog.text
    edit(path, lambda features: features[0]["properties"].update(objectType="detection"))
    with pytest.raises(DataError, match=r"no tissue of one.*2 detection\(s\) skipped"):
        load_tiles([store.path], path, CLASSES)


def test_what_somebody_edited_goes_before_what_a_run_wrote(tmp_path):
    store = make_store(tmp_path)
    folder = tmp_path / "geojson"
    annotate(store, folder / "one.geojson")
    labels = np.full((ROWS * TILE, COLS * TILE), 255, np.uint8)
    for number, name in enumerate(["one.edited", "one.edited2", "one.edited10", "onetwo.edited3"]):
        labels[number * TILE : (number + 1) * TILE] = 0
        annotate(store, folder / f"{name}.geojson", labels)
    with pytest.raises(DataError, match=r"onetwo\.edited3\.geojson: no store of slide 'onetwo'"):
        load_tiles([store.path], folder, CLASSES[:1])
    (folder / "onetwo.edited3.geojson").unlink()
    assert len(load_tiles([store.path], folder, CLASSES[:1])) == 3 * COLS


def test_outlines_that_qupath_lost_part_of_are_taken_from_our_own_file(tmp_path, caplog):
    (tmp_path / "out" / "slides").mkdir(parents=True)
    store = make_store(tmp_path / "out" / "slides")
    rows = np.arange(ROWS * TILE)
    labels = np.zeros((ROWS * TILE, COLS * TILE), np.uint8)
    for start in range(0, COLS * TILE, 40):  # stripes whose edges step at every row
        labels[:-1, start : start + 4] = 255
        labels[rows[:-1:2], start + 4] = 255
    own = annotate(store, tmp_path / "out" / "geojson" / "one.geojson", labels)
    assert "area-loss" in [finding.rule for finding in lint_geojson(own)]
    drawn = tmp_path / "one.geojson"

    def lose(features):  # as QuPath does: some of the pieces between the rows of a cut
        ring = np.array(features[0]["geometry"]["coordinates"][0], float)
        whole, (row, *_) = shapely.Polygon(ring), cut_rows(ring)
        upper = shapely.box(ring[:, 0].min(), ring[:, 1].min(), ring[:, 0].max(), row)
        left = shapely.intersection(whole, upper)
        assert left.area < whole.area
        features[0]["geometry"] = json.loads(shapely.to_geojson(left))

    shutil.copy(own, drawn)
    edit(drawn, lose)
    wanted = load_tiles([store.path], own, CLASSES[:1])
    found = load_tiles([store.path], drawn, CLASSES[:1])
    assert places(found) == places(wanted)
    assert f"1 outline(s) that QuPath exported in part are taken from {own}" in caplog.text
    shutil.rmtree(own.parent)
    assert load_tiles([store.path], drawn, CLASSES[:1]).weights.sum() < wanted.weights.sum()


def test_problems_of_annotations_are_listed_together(tmp_path):
    stores = [make_store(tmp_path, name) for name in ("one", "two", "three")]
    drawn = tmp_path / "drawn"
    annotate(stores[0], drawn / "one.geojson", palette=Palette(("Pink", "Red"), PALETTE.colors))
    annotate(stores[0], drawn / "four.geojson")
    (drawn / "two.geojson").write_text("{")
    with pytest.raises(DataError) as caught:
        load_tiles([tmp_path], drawn, CLASSES)
    message = str(caught.value)
    assert "one.geojson: unknown class ['Red']; known are Pink, Blue" in message
    assert "two.geojson" in message
    assert "four.geojson: no store of slide 'four'; there are one, three, two" in message


def test_one_file_for_one_slide_needs_no_name(tmp_path):
    store = make_store(tmp_path)
    drawn = annotate(store, tmp_path / "by_hand.geojson")
    assert len(set(places(load_tiles([store.path], drawn, CLASSES)))) == ROWS * COLS
    with pytest.raises(DataError, match="no store of slide 'by_hand'; there are one, two"):
        load_tiles([store.path, make_store(tmp_path, "two").path], drawn, CLASSES)


# -- training ------------------------------------------------------------------------------------


def test_stores_train_a_model_that_remembers_their_resolution(tmp_path):
    store = make_store(tmp_path, mpp=0.25)
    tiles = load_tiles([store.path], annotate(store, tmp_path / "one.geojson"), CLASSES)
    config = TrainConfig(classes=CLASSES, epochs=6, learning_rate=0.01, device="cpu")
    out = train_model(tiles, config, tmp_path / "m.safetensors")
    rows = list(csv.DictReader(out.with_name("m.safetensors.csv").open()))
    assert float(rows[-1]["classes"]) < 0.5 * float(rows[0]["classes"])
    assert (read_info(out).mpp, read_info(out).tile) == (0.25, TILE)


def test_the_command_takes_stores(tmp_path):
    store = make_store(tmp_path)
    drawn = annotate(store, tmp_path / "one.geojson")
    call = ["train", str(store.path), "--labels", str(drawn), "-o", str(tmp_path / "m.safetensors")]
    call += ["--dry-run", "--set", "classes=[Pink, Blue]"]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.output
    assert f"{ROWS * (COLS + 1)}" in result.output
    result = CliRunner().invoke(app, [*call, "--set", "labels.annotated_fraction=0"])
    assert result.exit_code == 1
    assert "labels.annotated_fraction = 0" in result.output
    result = CliRunner().invoke(app, ["train", "a.zarr", "b.zarr", "-o", "m.safetensors"])
    assert result.exit_code == 2
    assert "need --labels" in result.output
