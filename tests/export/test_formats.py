import re

import pytest
from typer.testing import CliRunner

from wsiseg.cli import app
from wsiseg.config import Config
from wsiseg.errors import ConfigError
from wsiseg.export import export_slide, infer_format, place_of


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.geojson", "geojson"), ("a.GeoJSON.gz", "geojson"), ("a.json", "geojson"),
        ("a.ome.tiff", "ome-tiff"), ("a.ome.tif", "ome-tiff"), ("a.tif", "ome-tiff"),
        ("a.parquet", "parquet"), ("a.png", "png"),
    ],
)  # fmt: skip
def test_the_name_says_the_format(name, kind):
    assert infer_format(f"some.png/{name}") == kind


@pytest.mark.parametrize("name", ["masks", "a.zarr", "parquet"])
def test_names_that_say_none(name):
    with pytest.raises(
        ConfigError, match=r"does not say which format; end it in \.geojson, .*coco"
    ):
        infer_format(name)


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("ome-tiff", "ome-tiff/a/one.ome.tiff"), ("parquet", "parquet/a/one.parquet"),
        ("png", "png/a/one.png"), ("masks", "masks/a/one"), ("coco", "coco/a/one"),
    ],
)  # fmt: skip
def test_every_format_has_its_folder(store, annotations, tmp_path, kind, place):
    config = Config.model_validate({"export": {"coco_tile": 512}})
    path = tmp_path / place_of(kind, "a/one")
    assert path == tmp_path / place
    export_slide(store, lambda: annotations, path, kind, config.export)
    assert path.exists()


@pytest.mark.parametrize(
    ("arguments", "made"),
    [
        (["-o", "x.geojson"], "x.geojson"),
        (["-o", "x.tiff"], "x.tiff"),
        (["-o", "x.parquet"], "x.parquet"),
        (["-o", "x.png", "--set", "export.mask_mpp=4"], "x.png"),
        (["-o", "m", "--format", "masks"], "m/classes_0.4mpp.png"),
        (["-o", "c", "--format", "coco"], "c/annotations.json"),
    ],
)
def test_the_command(store, tmp_path, monkeypatch, arguments, made):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["export", str(store.path), *arguments])
    assert done.exit_code == 0, done.output
    assert (tmp_path / made).stat().st_size > 0


def test_the_command_needs_a_format(store, tmp_path):
    done = CliRunner().invoke(app, ["export", str(store.path), "-o", str(tmp_path / "x")])
    assert done.exit_code == 1
    assert "--format masks or coco" in done.output.replace("\n", " ")


@pytest.mark.parametrize(
    ("out", "options"), [("mine.png", []), ("mine.tiff", []), ("mine", ["--format", "masks"])]
)
def test_what_is_there_is_not_replaced_unasked(store, tmp_path, out, options):
    path = tmp_path / out
    mine = path if path.suffix else path / "mine.txt"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("of a person")
    command = ["export", str(store.path), "-o", str(path), "--set", "export.mask_mpp=4", *options]
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 1
    assert "exists, and would be replaced; give --overwrite" in refused.output.replace("\n", " ")
    assert mine.read_text() == "of a person"
    done = CliRunner().invoke(app, [*command, "--overwrite"])
    assert done.exit_code == 0, done.output
    assert path.is_dir() or mine.stat().st_size > 20


@pytest.mark.parametrize(
    ("kind", "first", "second", "left"),
    [
        ("masks", "mask_mpp=2", "mask_mpp=4", r": Immune_cells_2mpp\.png, .* and 2 more"),
        ("coco", "coco_tile=256", "coco_tile=512", r": images/one_._x\d+_y\d+\.png, .* more"),
    ],
)
def test_what_is_left_of_an_earlier_export_is_named(store, tmp_path, kind, first, second, left):
    def export(setting):
        done = CliRunner().invoke(
            app,
            ["export", str(store.path), "-o", str(out), "--format", kind, "--overwrite",
             "--executor", "serial", "--set", f"export.{setting}"],
            env={"COLUMNS": "500"},
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        return done.output

    out = tmp_path / "m"
    assert "also holds" not in export(first)
    assert "also holds" not in export(first), "all of it is written again"
    before = {path for path in out.rglob("*") if path.is_file()}
    (out / "notes.txt").write_text("mine")
    assert re.search(rf"m: it also holds files that are not of this map{left}\n", export(second))
    assert before < {path for path in out.rglob("*") if path.is_file()}
