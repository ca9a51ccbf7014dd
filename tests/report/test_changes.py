import csv
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from wsiseg.annotations import Palette
from wsiseg.cli import app
from wsiseg.errors import DataError
from wsiseg.report import changes, compare_runs, format_changes, write_changes
from wsiseg.store import SlideStore

from ..evaluate.test_slides import make_map
from ..labels.slides import COLORS, COLS, ROWS, TILE

BEFORE = np.zeros((ROWS, COLS))
AFTER = np.zeros((ROWS, COLS))
AFTER[0], BEFORE[3, 0], BEFORE[3, 4], AFTER[3, 4] = 1, 255, 255, 255


@pytest.fixture
def runs(tmp_path):
    other = Palette(("Pink", "Violet"), ((255, 0, 255), (90, 0, 90)))
    make_map(tmp_path / "a" / "slides", "one", BEFORE)
    make_map(tmp_path / "b" / "slides", "one", AFTER, palette=other)
    make_map(tmp_path / "b" / "slides", "two", AFTER)
    return tmp_path / "a", tmp_path / "b"


def test_what_changed_is_counted_by_class_names(runs):
    (one,) = compare_runs(*runs)
    assert one.names == ("Pink", "Blue", "Violet", "nothing")
    tiles = one.pixels // TILE**2
    assert tiles.tolist() == [[13, 0, 5, 0], [0] * 4, [0] * 4, [1, 0, 0, 0]]
    assert one.share == pytest.approx(6 / 19)
    text = format_changes([one])
    assert "one: 31.6 % of the tissue changed" in text
    assert f"Pink to Violet: {5 * (TILE * 0.5e-3) ** 2:.3g} mm²" in text


def test_runs_that_cannot_be_compared(runs):
    before, after = runs
    with pytest.raises(DataError, match="have no slide name in common"):
        compare_runs(before, after / "slides" / "two.zarr")
    shutil.rmtree(before / "slides" / "one.zarr")
    shutil.copytree(after / "slides" / "two.zarr", before / "slides" / "one.zarr")
    with pytest.raises(DataError, match="has another raster or slide than"):
        compare_runs(before, after)


def test_a_slide_that_was_tiled_differently_is_left_out_with_a_warning(runs, caplog):
    before, after = runs
    for root, source in ((before, "one"), (after, "two")):
        shutil.copytree(after / "slides" / f"{source}.zarr", root / "slides" / "other.zarr")
    assert [one.name for one in compare_runs(before, after)] == ["one"]
    assert "left out: " in caplog.text


def test_a_slide_that_is_not_finished_is_left_out_with_a_warning(runs, caplog):
    """It ended the comparison of a hundred others."""
    before, after = runs
    make_map(before / "slides", "two", BEFORE, finished=False)
    assert [one.name for one in compare_runs(before, after)] == ["one"]
    (said,) = caplog.messages
    assert said.startswith("left out: ")
    assert "two.zarr: `wsiseg stitch` did not finish here" in said
    SlideStore(before / "slides" / "one.zarr").clear_marks("stitch")
    with pytest.raises(
        DataError, match=r"one\.zarr: `wsiseg stitch` .*; .*two\.zarr: `wsiseg stit"
    ):
        compare_runs(before, after)


def test_maps_of_two_models_in_one_run_are_told(runs, caplog):
    before, after = runs
    make_map(before / "slides", "two", BEFORE)
    for name, model in (("one", "ab"), ("two", "cd")):
        store = SlideStore(before / "slides" / f"{name}.zarr")
        store.create_cams(store.palette, 1, 1, source=model)
    assert len(compare_runs(before, after)) == 2
    assert caplog.messages == [
        f"in {before}, two was predicted by another model than the other one: what changed may "
        f"be due to that"
    ]


def test_a_slide_without_tissue_has_no_share(tmp_path, monkeypatch):
    for run in ("a", "b"):
        make_map(tmp_path / run / "slides", "one", np.full((ROWS, COLS), 255))
    subtitles = []
    draw = changes.draw_legend
    monkeypatch.setattr(
        changes, "draw_legend", lambda *given: subtitles.append(given[4]) or draw(*given)
    )
    found = compare_runs(tmp_path / "a", tmp_path / "b")
    assert format_changes(found) == "one: no tissue"
    write_changes(found, tmp_path / "out")
    assert subtitles == ["no tissue"]


def test_a_class_called_nothing_is_no_glass(tmp_path):
    palette = Palette(("Pink", "nothing"), ((255, 0, 255), (90, 0, 90)))
    for run, labels in (("a", BEFORE), ("b", AFTER)):
        make_map(tmp_path / run / "slides", "one", labels, palette=palette)
    (one,) = compare_runs(tmp_path / "a", tmp_path / "b")
    assert one.names == ("Pink", "nothing", "(nothing)")
    assert (one.pixels // TILE**2).tolist() == [[13, 5, 0], [0, 0, 0], [1, 0, 0]]


def test_slides_that_only_one_run_has_are_named(runs, caplog):
    before, after = runs
    assert [one.name for one in compare_runs(before, after)] == ["one"]
    assert caplog.messages == [f"left out: {before} has no two"]


def test_slides_of_one_name_in_two_sub_folders_are_both_compared(tmp_path):
    for run, other in (("a", BEFORE), ("b", AFTER)):
        make_map(tmp_path / run / "slides" / "x", "one", BEFORE)
        make_map(tmp_path / run / "slides" / "y", "one", other)
    same, changed = compare_runs(tmp_path / "a", tmp_path / "b")
    assert (same.name, same.share, changed.name) == ("x/one", 0, "y/one")
    assert changed.share > 0
    written = write_changes([same, changed], tmp_path / "out")
    assert [path.name for path in written] == ["changes.csv", "one.jpg", "one.jpg"]
    assert written[1] != written[2]
    with pytest.raises(DataError, match=r"one\.zarr: has the same name as .*a/slides/x/one\.zarr"):
        compare_runs(tmp_path, tmp_path / "b")


def test_the_command_draws_only_what_changed(runs, tmp_path):
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["compare", *map(str, runs), "-o", str(out)])
    assert f"Choose what to label next: wsiseg suggest {runs[1]} -n 20" in result.output
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader((out / "changes.csv").open()))
    assert sum(float(row["share_of_tissue"]) for row in rows) == pytest.approx(1, abs=1e-5)
    page = np.asarray(Image.open(out / "one.jpg")).astype(int)
    left = (page.shape[1] - COLS * TILE) // 2  # a narrow picture is in the middle of its legend
    middle = TILE // 2
    assert np.abs(page[2 * TILE, left + middle] - COLORS[0]).max() < 8, "as it was"
    assert np.abs(page[middle, left + middle] - COLORS[0]).max() > 30, "now violet"
    assert page.shape[0] > ROWS * TILE
