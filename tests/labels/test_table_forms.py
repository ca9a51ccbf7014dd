"""Tables of regions and of tiles, as people and spreadsheets write them."""

import numpy as np
import pytest

from .test_forms import UNKNOWN, read, square, tiles_of


def test_tables_of_points_and_rectangles(tmp_path):
    left, top = square(0, 0)[0]
    x, y = np.mean(square(2, 3)[:4], 0)
    rows = [
        "slide;x;y;width;height;class", f"one.svs;{left};{top};128,0;128;Pink",
        f"one;{x};{y};;;Blue", "two;1;1;;;Blue",
    ]  # fmt: skip
    found = read(tmp_path, "\n".join(rows), "regions.csv")
    labels = tiles_of(found)
    assert labels[0, 0] == (1, 0)
    assert np.array_equal(labels[2, 3], (UNKNOWN, 1), equal_nan=True)
    (unmatched,) = found.unmatched
    assert "no store of slide 'two'; there are one" in unmatched


@pytest.mark.parametrize("start", ["\ufeff", "sep=,\r\n", "\r\n", "\ufeffsep=,\r\n"])
def test_a_table_as_excel_saves_it_holds_regions(tmp_path, start):
    x, y = np.mean(square(2, 3)[:4], 0)
    found = read(tmp_path, f"{start}Class,slide,x,y\r\nBlue,one,{x},{y}\r\n", "t.csv", classes=None)
    assert found.classes == ("Blue",)
    assert tiles_of(found) == {(2, 3): (1,)}


@pytest.mark.parametrize(
    ("content", "message"), [("", "is empty"), ("PK\x03\x04", "is a workbook")]
)
def test_a_file_that_is_no_table_is_said_once(tmp_path, content, message):
    (problem,) = read(tmp_path, content, "t.csv").problems
    assert f"t.csv: {message}" in problem


def test_a_broken_table_names_the_line(tmp_path):
    rows = ["slide,x,y,width,height,class", "one,1,b,,,Pink", "one,1,1,5,,Pink", "one,1,1,5,0,Pink"]
    (problem,) = read(tmp_path, "\n".join(rows), "regions.csv").problems
    assert "regions.csv: 3 problem(s)" in problem
    assert "line 2: y = 'b' is not a number" in problem
    assert "line 3: width and height" in problem
    assert "line 4: width and height" in problem


def test_columns_of_0_and_1_are_classes_and_others_are_not(tmp_path, caplog):
    rows = ["slide,row,col,Pink,Blue,mpp,fold", "one,0,0,1,0,0.5,0", "one,1,0,1,0,0.5,1"]
    rows += ["one,2,4,0,1,0.5,2", "one,3,4,0,1,0.5,3"]
    found = read(tmp_path, "\n".join(rows), "tiles.csv", classes=None)
    assert found.problems == ()
    assert found.classes == ("Blue", "Pink")
    assert "ignoring unknown column(s) 'mpp', 'fold'" in caplog.text


@pytest.mark.parametrize("cell", ["2", "?", ""])
def test_one_bad_cell_does_not_drop_its_class(tmp_path, cell):
    rows = ["slide,row,col,Pink,Blue", "one,0,0,1,0", "one,1,0,1,0", f"one,2,0,{cell},0"]
    rows += ["one,3,4,0,1"]
    found = read(tmp_path, "\n".join(rows), "tiles.csv", classes=None)
    assert found.classes == ("Blue", "Pink")
    (problem,) = found.problems
    assert f"tiles.csv line 4: Pink = {cell!r}; a class is 0 or 1" in problem
    assert "correct it, or remove the column if it is no class" in problem


def test_a_table_without_any_class_says_what_it_needs(tmp_path):
    rows = ["slide,row,col,tumour share", "one,0,0,0.5", "one,1,0,0.25"]
    (problem,) = read(tmp_path, "\n".join(rows), "tiles.csv", classes=None).problems
    assert "needs slide,row,col or slide,x,y or" in problem
    assert problem.endswith("and either labels or a column of 0 and 1 for each class")
