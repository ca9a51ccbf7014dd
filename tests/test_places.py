"""The table of suggested places, written and read."""

from dataclasses import replace

import pytest

from wsiseg.errors import DataError
from wsiseg.places import PLACES, Place, read_places, write_places

HEAD = "rank,slide,row,col,x,y,width,height,uncertainty,predicted\n"


def place(rank=1, slide="one"):
    numbers = (2, 3, 100.5, -20.25, 448.0, 358.4, 0.75)
    return Place(rank, slide, *numbers, "Tumor, invasive", "0123456789abcdef")


def test_places_are_read_as_they_were_written_in_the_order_of_ranks(tmp_path):
    names = ["a b/c, d", "Gewebe-Ä 切片", "=1+1", "-9 'x'", 'say "x"', "x;y"]
    places = [place(rank, name) for rank, name in enumerate(names, 1)]
    write_places(places[::-1], tmp_path / PLACES)
    assert read_places(tmp_path) == places


def test_a_table_that_a_spreadsheet_saved_again_is_read(tmp_path):
    row = "1;one;2;3;100,5;-20,25;448;358,4;0,75;Tumor, invasive\r\n"
    (tmp_path / PLACES).write_text("\ufeff" + HEAD.replace(",", ";") + row, encoding="utf-8")
    assert read_places(tmp_path) == [replace(place(), map="")], "a table of before maps were told"


def test_a_folder_without_a_table_names_the_file_and_the_command(tmp_path):
    with pytest.raises(DataError, match=r"has no suggestions\.csv; .*`wsiseg suggest OUT -o FOLDE"):
        read_places(tmp_path)
    (tmp_path / PLACES).write_text(HEAD)
    with pytest.raises(DataError, match=r"suggestions\.csv: lists no place; make it again"):
        read_places(tmp_path)
    (tmp_path / PLACES).write_text("rank,slide,x,y\n1,one,2,3\n")
    with pytest.raises(DataError, match=r"suggestions\.csv: has the columns .*needs .*'width'"):
        read_places(tmp_path)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("1.5,one,0,0,1,1,9,9,0.5,A", "line 3: rank is '1.5', which is no whole number from 1"),
        ("0,one,0,0,1,1,9,9,0.5,A", "line 3: rank is '0', which is no whole number from 1"),
        ("2,one,-1,0,1,1,9,9,0.5,A", "line 3: row is '-1', which is no whole number from 0"),
        ("2,one,0,0,x,1,9,9,0.5,A", "line 3: x is 'x', which is no number"),
        ("2,one,0,0,1,1,0,9,0.5,A", "line 3: width is '0', which is no number above 0"),
        ("2,one,0,0,1,1,9,nan,0.5,A", "line 3: height is 'nan', which is no number above 0"),
        ("2,,0,0,1,1,9,9,0.5,A", "line 3: names no slide"),
        ("1,two,0,0,1,1,9,9,0.5,A", "line 3: rank 1 is that of line 2, too"),
        ("2,a,b,0,0,1,1,9,9,0.5,A", "line 3: has 11 cells for 10 columns"),
    ],
)
def test_a_damaged_row_is_named_with_its_line(tmp_path, row, problem):
    (tmp_path / PLACES).write_text(f"{HEAD}1,one,0,0,1,1,9,9,0.5,A\n{row}\n")
    with pytest.raises(DataError) as error:
        read_places(tmp_path)
    assert f"{PLACES}: 1 problem(s) with the places\n  {problem}" in str(error.value)
