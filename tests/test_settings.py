import pytest
import yaml
from typer.testing import CliRunner

from wsiseg.cli import app
from wsiseg.config import Config, load_config
from wsiseg.errors import ConfigError
from wsiseg.settings import read_settings


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_goes_over_what_it_extends(tmp_path):
    write(tmp_path / "base.yaml", "tile: {mpp: 1.0, codec: zstd}\npredict: {tta: 6}\n")
    child = write(tmp_path / "sub" / "c.yaml", "extends: ../base.yaml\ntile: {mpp: 2.0}\n")
    config = load_config(child, Config)
    assert (config.tile.mpp, config.tile.codec, config.predict.tta) == (2.0, "zstd", 6)
    origins = read_settings(child).origins
    assert origins["tile.mpp"] == str(child)
    assert origins["tile.codec"].endswith("base.yaml")


def test_of_several_the_last_counts(tmp_path):
    one = write(tmp_path / "1.yaml", "tile: {mpp: 1.0}\nexport: {formats: [geojson, parquet]}\n")
    two = write(tmp_path / "2.yaml", "tile: {codec: none}\nexport: {formats: [ome-tiff]}\n")
    config = load_config([one, two], Config)
    assert (config.tile.mpp, config.tile.codec) == (1.0, "none")
    assert config.export.formats == ("ome-tiff",), "a list takes a list's place"
    first = write(tmp_path / "3.yaml", f"extends: [{one.name}, {two.name}]\n")
    assert load_config(first, Config) == config


def test_a_mapping_that_was_a_value_leaves_no_old_origin(tmp_path):
    one = write(tmp_path / "1.yaml", "predict: {encoder_options: {}}\n")
    two = write(tmp_path / "2.yaml", "predict: {encoder_options: {weights: a}}\n")
    assert read_settings([one, two]).origins == {"predict.encoder_options.weights": str(two)}


def test_nothing_is_the_default():
    assert load_config(None, Config) == load_config([], Config) == Config()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: c.yaml\n", "c.yaml: extends itself"),
        ("extends: none.yaml\n", "none.yaml: cannot be read"),
        ("extends: {a: 1}\n", "c.yaml: extends = {'a': 1}; give a file, or a list of files"),
        ("tile: [\n", "c.yaml: is not valid YAML"),
        ("- 1\n", "c.yaml: holds a list"),
        (
            "stitch: {refine: false}\ntile: {}\nstitch: {smooth_um: 1}\n",
            "c.yaml: is not valid YAML .line 3: the key 'stitch' was given in line 1; keep one",
        ),
        ("tile: {mpp: 2024-13-45}\n", "c.yaml: is not valid YAML .a date or number in it does not"),
        ("tile: {mpp: 1, 'mpp': 1}\n", "line 1: the key 'mpp' was given in line 1"),
    ],
)
def test_what_is_wrong_is_told(tmp_path, text, message):
    with pytest.raises(ConfigError, match=r"(?s).*" + message.replace("{", r"\{")):
        load_config(write(tmp_path / "c.yaml", text), Config)


def test_a_merged_mapping_may_be_overridden(tmp_path):
    text = "export: {<<: {formats: [png]}, formats: [coco]}\n"
    assert load_config(write(tmp_path / "c.yaml", text), Config).export.formats == ("coco",)


def test_a_circle_is_told(tmp_path):
    write(tmp_path / "a.yaml", "extends: b.yaml\n")
    with pytest.raises(ConfigError, match=r"b\.yaml -> .*a\.yaml -> .*b\.yaml"):
        load_config(write(tmp_path / "b.yaml", "extends: a.yaml\n"), Config)


def test_an_error_names_the_file_that_holds_it(tmp_path):
    bad = write(tmp_path / "bad.yaml", "tile: {strid: 3}\nstitch: {crf: {iterations: x}}\n")
    good = write(tmp_path / "good.yaml", "extends: bad.yaml\nstitch: {crf: {iterations: -1}}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(good, Config)
    lines = dict(line.split(": ", 1) for line in str(caught.value).splitlines())
    assert lines[str(bad)].startswith("tile.strid is not a setting; did you mean 'stride'")
    assert lines[str(good)].startswith("stitch.crf.iterations = -1")


def test_what_results_says_where_it_comes_from(tmp_path):
    base = write(tmp_path / "base.yaml", "tile: {mpp: 1.0}\n")
    child = write(tmp_path / "c.yaml", "extends: base.yaml\npredict: {tta: 6}\n")
    arguments = ["config", "-c", str(child), "--set", "stitch.refine=false"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert yaml.safe_load(done.output) == load_config(
        [child, write(tmp_path / "set.yaml", "stitch: {refine: false}")], Config
    ).model_dump(mode="json")
    lines = done.output.splitlines()
    assert f"  mpp: 1.0  # {base}" in lines
    assert f"  tta: 6  # {child}" in lines
    assert "  refine: false  # --set" in lines
    assert "  codec: lz4" in lines
