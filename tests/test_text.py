import csv
import json
import sys

import numpy as np
import orjson
import pytest
from typer.testing import CliRunner

from wsiseg.annotations import Palette
from wsiseg.cli import app
from wsiseg.table import read_table
from wsiseg.text import dump_json, escape, write_text

from .evaluate.test_slides import draw, make_map
from .labels.slides import COLS, ROWS
from .labels.test_forms import feature, polygon, square
from .test_suggest import predict

NAME = b"caf\xe9.tif".decode("utf-8", "surrogateescape")


def test_only_lone_surrogates_are_escaped(tmp_path):
    assert escape(NAME) == "caf\\udce9.tif"
    for text in ("", "café 日本 \U0001f52c \\udce9\n"):
        assert escape(text) == text
    path = write_text(f"µ {NAME}\n", tmp_path / "a" / "b.txt")
    assert path.read_bytes() == "µ caf\\udce9.tif\n".encode()


def test_json_of_any_name_is_json(tmp_path):
    tree = {NAME: [NAME, 1, None, (0.5, {"a": NAME})], "b": True}
    plain = {escape(NAME): [escape(NAME), 1, None, [0.5, {"a": escape(NAME)}]], "b": True}
    assert json.loads(dump_json(tree)) == plain
    assert dump_json(plain, orjson.OPT_SORT_KEYS) == orjson.dumps(plain, None, orjson.OPT_SORT_KEYS)
    with pytest.raises(TypeError, match="64-bit"):
        dump_json({"a": 2**70, NAME: 1})


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
def test_every_command_takes_a_slide_whose_name_is_not_utf8(tmp_path):
    runs, labels = [tmp_path / "a", tmp_path / "b"], tmp_path / "labels"
    for run in runs:
        predict(make_map(run / "slides", NAME, np.zeros((ROWS, COLS))), np.zeros((ROWS, COLS)))
    draw(labels, NAME, feature("Pink", polygon(square(0, 0, 2, 2))))
    for call, table in (
        (["compare", *runs], "changes.csv"),
        (["suggest", runs[0], "-n", "2"], "suggestions.csv"),
        (["label", labels, runs[0]], "labels.csv"),
        (["evaluate", "--slides", runs[0], "--labels", labels], "slides.csv"),
        (["export", runs[0] / "slides" / f"{NAME}.zarr", "--format", "coco"], "annotations.json"),
    ):
        out = tmp_path / "out" / str(call[0])
        result = CliRunner().invoke(app, [*map(str, call), "-o", str(out)])
        assert result.exit_code == 0, result.output
        assert "caf\\udce9.tif" in (out / table).read_bytes().decode().replace("\\\\", "\\")


def test_no_table_lets_a_spreadsheet_read_a_name_as_a_formula(tmp_path):
    """Only the tables of a run and of patches did; read back, names are as they were."""
    name, pink = "=HYPERLINK(0)", "@Pink"
    palette = Palette((pink, "-Blue"), ((255, 0, 255), (0, 0, 255)))
    runs, labels = [tmp_path / "a", tmp_path / "b"], tmp_path / "labels"
    for run in runs:
        make_map(run / "slides", name, np.zeros((ROWS, COLS)), palette=palette)
    draw(labels, name, feature(pink, polygon(square(0, 0, 2, 2))))
    for call, tables in (
        (["compare", *runs], ["changes.csv"]),
        (["label", labels, runs[0]], ["labels.csv"]),
        (["evaluate", "--slides", runs[0], "--labels", labels], ["slides.csv", "confusion.csv"]),
    ):
        out = tmp_path / "out" / str(call[0])
        result = CliRunner().invoke(app, [*map(str, call), "-o", str(out)])
        assert result.exit_code == 0, result.output
        for table in tables:
            with (out / table).open(newline="", encoding="utf-8") as file:
                cells = [cell for row in csv.reader(file) for cell in row]
            assert not [cell for cell in cells if cell.startswith(("=", "@", "-"))]
            read = read_table(out / table, ["slide", pink, "-Blue"], warn=False)
            assert table == "confusion.csv" or read.rows[0]["slide"] == name
            assert table != "confusion.csv" or {pink, "-Blue"} <= {*read.columns}
