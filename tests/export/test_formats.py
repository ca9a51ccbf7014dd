import pytest
from typer.testing import CliRunner

from wsiseg.cli import app
from wsiseg.config import Config
from wsiseg.errors import ConfigError
from wsiseg.export import export_formats, infer_format


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


def test_every_format_has_its_folder(store, annotations, tmp_path):
    formats = ("geojson", "ome-tiff", "parquet", "png", "masks", "coco")
    config = Config.model_validate({"export": {"formats": formats, "coco_tile": 512}})
    paths = export_formats(store, annotations, tmp_path, "a/one", config.export)
    assert [str(path.relative_to(tmp_path)) for path in paths] == [
        "ome-tiff/a/one.ome.tiff", "parquet/a/one.parquet", "png/a/one.png", "masks/a/one",
        "coco/a/one",
    ]  # fmt: skip
    assert all(path.exists() for path in paths)
    assert export_formats(store, annotations, tmp_path / "b", "one", Config().export) == []
    assert not (tmp_path / "b").exists()


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
