import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from wsiseg.cli import app
from wsiseg.errors import DataError, StoreError
from wsiseg.evaluate import evaluate_slides, format_slides
from wsiseg.run import OutputTree, SlideResult
from wsiseg.run.records import write_summary
from wsiseg.store import SlideStore

from ..labels.slides import COLS, PALETTE, ROWS, TILE, make_store
from ..labels.test_forms import collection, feature, polygon, square

AREA = TILE * TILE


def make_map(folder, name, labels, finished=True, palette=PALETTE):
    """A store with a finished map of `labels` ``(rows, cols)``, a value a tile."""
    store = make_store(folder, name)
    store.create_labels(palette)
    raster = np.repeat(np.repeat(np.asarray(labels, np.uint8), TILE, 0), TILE, 1)
    for block in range(store.grid.n_blocks):
        box = store.grid.block_box(block)
        part = raster[box.slices()]
        store.write_labels(block, 0, part, np.full_like(part, 200))
        if finished:
            store.mark_done("stitch", block, "0" * 64)
    return store


def draw(folder, name, *features):
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.geojson").write_text(json.dumps(collection(*features)))


@pytest.fixture
def folder(tmp_path):
    """Two maps: one is pink all over, two is right but for a column that it calls nothing."""
    make_map(tmp_path / "slides", "one", np.zeros((ROWS, COLS)))
    right = np.zeros((ROWS, COLS))
    right[:, 3:], right[:, 0] = 1, 255
    make_map(tmp_path / "slides", "two", right)
    for name in ("one", "two"):
        pink, blue = (
            feature(n, polygon(square(0, c, 2, 2))) for n, c in (("Pink", 0), ("Blue", 3))
        )
        draw(tmp_path / "labels", name, pink, blue)
    return tmp_path


def test_only_labelled_pixels_count_and_every_slide_has_its_score(folder):
    found = evaluate_slides([folder], folder / "labels")
    one, two = (slide.confusion // AREA for slide in found.slides)
    assert one.tolist() == [[4, 0, 0], [4, 0, 0], [0, 0, 0]]
    assert two.tolist() == [[2, 0, 2], [0, 4, 0], [0, 0, 0]]
    assert found.scores.iou == pytest.approx((6 / 12, 4 / 8))
    assert found.scores.area_error == pytest.approx((2 / 8, 4 / 8))
    assert (found.guessed, found.guess.iou) == ("Pink", pytest.approx((0.5, 0)))
    assert found.slides[0].labelled_mm2 == pytest.approx(8 * AREA * 0.5**2 * 1e-6)
    assert found.intervals.miou[0] == pytest.approx(0.25), "both draws may be slide one"
    text = format_slides(found)
    assert "mean IoU 50.0 %" in text
    assert "Pink all over: mean IoU 25.0 %" in text
    assert "fewer than five slides" in text


def test_overlaps_are_left_out_and_checked_areas_hold_background(folder):
    draw(
        folder / "labels", "two", feature("Pink", polygon(square(0, 1))),
        feature("Blue", polygon(square(0, 1, 1, 3))),
        feature("Checked*", polygon(square(1, 0, 1, 2))),
    )  # fmt: skip
    (folder / "labels" / "one.geojson").unlink()
    (two,) = evaluate_slides([folder], folder / "labels").slides
    assert (two.confusion // AREA).tolist() == [[0, 0, 0], [1, 1, 0], [1, 0, 1]]


def test_a_kind_of_background_of_the_model_is_background(folder):
    for name in ("one", "two"):
        store = SlideStore(folder / "slides" / f"{name}.zarr")
        store.create_cams(PALETTE, 1, 1, channels=3, background=["Glass"])
    draw(
        folder / "labels", "two", feature("Pink", polygon(square(0, 1, 1, 2))),
        feature("Glass", polygon(square(0, 0))), feature("Glass", polygon(square(0, 3))),
    )  # fmt: skip
    found = evaluate_slides([folder], folder / "labels")
    assert (found.slides[1].confusion // AREA).tolist() == [[2, 0, 0], [0, 0, 0], [0, 1, 1]]
    draw(folder / "labels", "two", feature("Fog", polygon(square(0, 0))))
    with pytest.raises(DataError, match=r"unknown class \['Fog'\]; known are Pink, Blue"):
        evaluate_slides([folder], folder / "labels")


def test_a_class_that_nobody_labelled_has_no_score_and_counts_as_none(folder):
    draw(folder / "labels", "two", feature("Pink", polygon(square(0, 1, 1, 3))))
    (folder / "labels" / "one.geojson").unlink()
    found = evaluate_slides([folder], folder / "labels")
    assert (found.confusion // AREA).tolist() == [[2, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert found.scores.iou == pytest.approx((2 / 3, np.nan), nan_ok=True)
    assert found.scores.miou == found.slides[0].scores.miou == pytest.approx(2 / 3)
    assert "not scored, as nobody labelled them: Blue" in format_slides(found)


def test_what_cannot_be_scored_is_said(folder):
    draw(folder / "labels", "one", feature("Green", polygon(square(0, 0))))
    with pytest.raises(DataError, match=r"unknown class \['Green'\]; known are Pink, Blue.*--map"):
        evaluate_slides([folder], folder / "labels")
    draw(folder / "labels", "one", feature("Pink", {"type": "Point", "coordinates": [9, 9]}))
    (folder / "labels" / "two.geojson").unlink()
    with pytest.raises(DataError, match="points are not areas"):
        evaluate_slides([folder], folder / "labels")
    make_map(folder / "slides", "three", np.zeros((ROWS, COLS)), finished=False)
    draw(folder / "labels", "three", feature("Pink", polygon(square(0, 0))))
    with pytest.raises(StoreError, match="`wsiseg stitch` did not finish"):
        evaluate_slides([folder], folder / "labels")


def test_maps_of_two_models_with_the_same_classes_are_not_scored_as_one(folder):
    """A run with a new model that failed on a slide leaves the earlier map of that slide."""
    for name, model in (("one", "ab"), ("two", "cd")):
        store = SlideStore(folder / "slides" / f"{name}.zarr")
        store.create_cams(PALETTE, 1, 1, source=model)
    with pytest.raises(DataError, match=r"two\.zarr was predicted by another model than the other"):
        evaluate_slides([folder], folder / "labels")
    (folder / "labels" / "two.geojson").unlink()
    assert len(evaluate_slides([folder], folder / "labels").slides) == 1, "only what is labelled"


def test_the_command_writes_tables(folder):
    out = folder / "evaluation"
    call = ["evaluate", "--slides", str(folder), "--labels", str(folder / "labels"), "-o", str(out)]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader((out / "slides.csv").open()))
    assert [row["slide"] for row in rows[::2]] == ["one", "two", "all", "all as Pink"]
    assert json.loads((out / "slides.json").read_text())["miou"] == 0.5
    result = CliRunner().invoke(app, call[:3])
    assert result.exit_code == 2


def test_a_file_of_settings_counts_and_what_is_not_for_maps_is_refused(folder):
    (folder / "map.yaml").write_text("map: {Pink: Blue}\n")
    call = ["evaluate", "--slides", str(folder), "--labels", str(folder / "labels")]
    result = CliRunner().invoke(
        app, [*call, "-o", str(folder / "e"), "-c", str(folder / "map.yaml")]
    )
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader((folder / "e" / "slides.csv").open()))
    assert {row["class"]: row["iou"] for row in rows if row["slide"] == "one"}["Pink"] == ""
    for option in ("--predictions", "--compare", "--numbers", "--protocol"):
        result = CliRunner().invoke(app, [*call, option, "x"], env={"COLUMNS": "200"})
        assert result.exit_code == 2
        assert f"{option} does not go with --slides" in result.output


def test_the_report_of_the_run_shows_the_table_until_a_map_is_made_anew(folder):
    tree = OutputTree(folder)
    done = [SlideResult(slide=name, path=f"{name}.svs", status="done") for name in ("one", "two")]
    (folder / "runs").mkdir()
    write_summary(tree, done)
    assert "Agreement with labels" not in (folder / "report.html").read_text()
    call = ["evaluate", "--slides", str(folder), "--labels", str(folder / "labels")]
    result = CliRunner().invoke(app, [*call, "-o", str(folder / "evaluation")])
    assert result.exit_code == 0, result.output
    assert "report.html" in result.output
    page = (folder / "report.html").read_text()
    assert f"Labels: {folder / 'labels'}. Mean IoU 50.0% (25.0% to " in page
    assert "labelling everything Pink would give 25.0%" in page
    assert '<th scope="row">Pink</th><td>50.0%</td>' in page
    assert "mapped again" not in page
    (folder / "report" / "one.files").mkdir()
    (folder / "report" / "one.files" / "facts.json").write_text('{"steps": {"stitch": "other"}}')
    write_summary(tree, [])
    assert "the earlier maps: one." in (folder / "report.html").read_text()
