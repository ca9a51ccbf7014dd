import csv
import io
import logging
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsiseg.errors import DataError
from wsiseg.table import (
    free_columns,
    guard,
    list_problems,
    read_header,
    read_table,
    to_number,
    unguard,
)

KNOWN = ("slide", "mpp", "Immune cells")


def write(folder, data, encoding="utf-8"):
    path = folder / "t.csv"
    path.write_bytes(data if isinstance(data, bytes) else data.encode(encoding))
    return path


def cells(table):
    return [dict(row.cells) for row in table.rows]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_separators_and_line_ends(tmp_path, separator, end):
    lines = [["slide", "mpp"], ["a b.svs", "0.25"], ["", ""], ["c.svs", ""]]
    text = end.join(separator.join(line) for line in lines)
    table = read_table(write(tmp_path, text), KNOWN, ["slide"])
    assert cells(table) == [{"slide": "a b.svs", "mpp": "0.25"}, {"slide": "c.svs", "mpp": ""}]
    assert [row.where for row in table.rows] == ["line 2", "line 4"]
    assert table.separator == separator


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_encodings(tmp_path, encoding, caplog):
    path = write(tmp_path, "slide,mpp\nMüller µ 日.svs,0.5\n", encoding)
    assert read_table(path, KNOWN).rows[0]["slide"] == "Müller µ 日.svs"
    assert not caplog.records


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_latin_1_is_read_and_said(tmp_path, caplog, encoding):
    path = write(tmp_path, "slide,mpp\na.svs,1\nMüller.svs,0.5\n", encoding)
    assert read_table(path, KNOWN).rows[1]["slide"] == "Müller.svs"
    assert "is not UTF-8 (first in line 3); read as Windows-1252 (Latin-1)" in caplog.text


def test_a_mark_written_twice_and_excels_own_first_line(tmp_path):
    path = write(tmp_path, "\ufeffsep=;\r\nslide;mpp\r\na,b.svs;0,25\r\n", "utf-8-sig")
    table = read_table(path, KNOWN)
    assert cells(table) == [{"slide": "a,b.svs", "mpp": "0,25"}]
    assert to_number(table.rows[0]["mpp"], table.separator) == 0.25
    assert table.rows[0].line == 3


def test_blanks_and_case_in_headers(tmp_path):
    text = ' Slide , "MPP" ,immune\u00a0 CELLS\n a.svs , 0.25 , 1\n'.replace('" ,', '",')
    table = read_table(write(tmp_path, text), KNOWN)
    assert table.columns == KNOWN
    assert cells(table) == [{"slide": "a.svs", "mpp": "0.25", "Immune cells": "1"}]


def test_the_header_alone_is_read_as_with_the_rows(tmp_path, caplog):
    path = write(tmp_path, 'sep=;\n;"Mü;ller"; MPP ;slide\n1;2;3\n', "latin-1")
    assert read_header(path, KNOWN) == ["", "Mü;ller", "mpp", "slide"]
    assert not caplog.records
    assert read_header(write(tmp_path, "\n"), KNOWN) == []


def test_columns_that_differ_in_case_alone_are_told_apart(tmp_path):
    table = read_table(write(tmp_path, "a,A\n1,2\n"), ("A", "a"))
    assert cells(table) == [{"a": "1", "A": "2"}]
    assert not table.unknown


def test_unknown_columns_are_said(tmp_path, caplog):
    table = read_table(write(tmp_path, "slide,site,slide id\na,b,c\n"), KNOWN, ["slide"])
    assert table.unknown == ("site", "slide id")
    assert table.rows[0]["site"] == "b"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "ignoring unknown column(s) 'site', 'slide id'; known columns are slide" in caplog.text


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("slide,mmp", "has the column 'mmp', which is unknown; is it 'mpp'?"),
        ("slide,MPP (µm)", "is it 'mpp'?"),
        ("slide,mpp_x", "is it 'mpp'?"),
        ("slide,immune_cells", "is it 'Immune cells'?"),
        ("slides,mpp", "has the column 'slides', which is unknown; is it 'slide'?"),
        ("slide,mpp, MPP", "has the column 'mpp' more than once; keep one"),
        ("file,mpp", "has the columns 'file', 'mpp'; needs 'slide' and may have 'mpp'"),
        ("a.svs,0.25", "has the columns 'a.svs', '0.25'; needs 'slide'"),
    ],
)
def test_refused_headers(tmp_path, head, message):
    with pytest.raises(DataError) as caught:
        read_table(write(tmp_path, f"{head}\na,b\n"), KNOWN, ["slide"])
    assert message in str(caught.value)
    assert "t.csv: " in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty; its first line names columns: slide, mpp"),
        (b"\xef\xbb\xbf\r\n \r\n", "is empty"),
        (
            b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
            "is not a text table: it contains the character 0x",
        ),
        (b"PK\x03\x04and so on", "is a workbook or an archive; save the sheet as CSV"),
        ("slide\n".encode("utf-16") + b"a", "cannot be read as UTF-16-LE"),
        (b'slide,mpp\na.svs,1\n"b.svs,1\nc.svs,1\n', "cannot be read as CSV from line 3 on"),
    ],
)
def test_what_is_no_table(tmp_path, data, message):
    with pytest.raises(DataError) as caught:
        read_table(write(tmp_path, data), KNOWN)
    assert message in str(caught.value)
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path, KNOWN)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_every_cell_in_quotes(tmp_path, separator):
    rows = [["slide", "mpp"], ["a,b;c\td.svs", "0.25"]]
    text = "".join(separator.join(f'"{cell}"' for cell in row) + "\n" for row in rows)
    assert cells(read_table(write(tmp_path, text), KNOWN)) == [
        {"slide": "a,b;c\td.svs", "mpp": "0.25"}
    ]


def test_row_numbers_of_a_data_frame_are_no_column(tmp_path):
    table = read_table(write(tmp_path, '"",slide,mpp\n0,a.svs,1\n7,b.svs,\n'), KNOWN)
    assert cells(table) == [{"slide": "a.svs", "mpp": "1"}, {"slide": "b.svs", "mpp": ""}]
    assert not table.problems
    table = read_table(write(tmp_path, ",slide,mpp\n0,a.svs,1\nx,b.svs,\n"), KNOWN)
    assert len(table.problems) == 2


def test_rows_with_more_cells_than_columns_are_refused_with_their_lines(tmp_path):
    text = 'slide,mpp,\n"a\nb.svs",1,,\nc, d.svs,1,7\n\ne.svs\nf.svs,1,,x\n'
    table = read_table(write(tmp_path, text), KNOWN)
    assert [row["slide"] for row in table.rows] == ["a\nb.svs", "e.svs"]
    assert [row.line for row in table.rows] == [2, 6]
    assert table.problems == (
        "line 4: has 4 cells for 3 columns ('1' is under none); "
        "put quotes around a value that holds ','",
        "line 7: has 4 cells for 3 columns ('x' is under none); "
        "put quotes around a value that holds ','",
    )


def test_ten_problems_are_shown_and_the_others_counted():
    text = list_problems([f"line {number}" for number in range(4000)])
    assert text.count("\n") == 11
    assert text.endswith("\n  line 9\n  and 3,990 more")
    assert list_problems(["one"]) == "\n  one"


@pytest.mark.parametrize(
    ("text", "separator", "number"),
    [("0.25", ",", 0.25), ("0,25", ";", 0.25), ("1e-1", "\t", 0.1), ("-3", ",", -3)],
)
def test_numbers(text, separator, number):
    assert to_number(text, separator) == number


@pytest.mark.parametrize("text", ["", "x", "0,25", "nan", "inf", "1,000.5"])
def test_no_numbers(text):
    assert math.isnan(to_number(text))


@given(st.text(alphabet="'=+-@\t\ra1.", max_size=6))
def test_guards_come_off_as_they_went_on(text):
    assert unguard(guard(text)) == text or text.startswith("'")
    assert guard(text)[:1] not in ("=", "@", "\t", "\r")


def test_guarded_cells_are_read_as_they_were(tmp_path):
    names = ["=a.svs", "-b.svs", "'c.svs", "@d", "+e"]
    out = io.StringIO()
    csv.writer(out).writerows([["slide"], *([guard(name)] for name in names)])
    table = read_table(write(tmp_path, out.getvalue()), KNOWN)
    assert [row["slide"] for row in table.rows] == names


@pytest.mark.parametrize("mark", ["|", " ", "，", "、", ":"])
def test_another_separator_is_named(tmp_path, mark):
    path = write(tmp_path, f"slide{mark}mpp\na.svs{mark}0.25\n")
    with pytest.raises(DataError, match=re.escape(f"has {mark!r} between its columns; use commas")):
        read_table(path, known=("slide", "mpp"), required=("slide",))


def test_tabs_leave_the_comma_to_numbers(tmp_path):
    table = read_table(write(tmp_path, "slide\tmpp\na.svs\t0,25\n"), known=("slide", "mpp"))
    assert to_number(table.rows[0]["mpp"], table.separator) == 0.25


def test_classes_give_way_to_the_columns_that_a_table_has():
    taken = ["image", "miou"]
    assert free_columns(["Tumor", "Image"], taken) == ["Tumor", "Image"]
    names = ["miou", "class miou", "class class miou", "image"]
    columns = free_columns(names, taken)
    assert columns[1:] == ["class miou", "class class miou", "class image"]
    assert len({*columns, *taken}) == len(names) + len(taken), "no two of one name"
