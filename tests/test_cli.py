import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from tests.test_outline import make_store
from tests.trace.rasters import blobs
from wsiseg.cli import app
from wsiseg.config import Config

run = CliRunner()


def test_config_prints_what_is_set():
    done = run.invoke(app, ["config", "--set", "stitch.crf.iterations=3", "--set", "tile.mpp=1"])
    assert done.exit_code == 0
    settled = Config.model_validate(yaml.safe_load(done.stdout))
    assert (settled.stitch.crf.iterations, settled.tile.mpp) == (3, 1.0)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("tile.codec.x=1", "tile.codec is a single setting without others in it, and is 'lz4'"),
        ("tile.mpp.x=1", "tile.mpp is a single setting without others in it, and is None"),
        ("export.formats=[a,b", "'[a,b' is not valid YAML"),
        ("tile={mpp: 1, mpp: 2}", "the key 'mpp' was given in line 1; keep one"),
        ("tile.mpp", "needs the form name=value"),
        ("=5", "--set '=5' needs the form name=value"),
        ("tile. =5", "--set 'tile. =5' needs the form name=value"),
    ],
)
def test_settings_that_cannot_be_read_are_explained(setting, message):
    done = run.invoke(app, ["config", "--set", setting], env={"COLUMNS": "400"})
    assert done.exit_code == 2
    assert isinstance(done.exception, SystemExit), "no traceback"
    assert message in done.output


@pytest.mark.parametrize("empty", [["-o", ""], ["--out", ""], ["--out="]])
@pytest.mark.parametrize("command", ["annotate", "tile", "label"])
def test_an_empty_output_is_not_the_current_folder(command, empty):
    done = run.invoke(app, [command, "nowhere.svs", *empty], env={"COLUMNS": "400"})
    assert done.exit_code == 2
    assert "Invalid value for --out: is empty" in done.output


@pytest.mark.parametrize(
    "arguments",
    [
        *(
            [*command.split(), "--workers", number]
            for command in ("annotate a", "evaluate a b", "export a", "masks a b", "tile a")
            for number in ("0", "-1")
        ),
        ["view", "a", "--port", "-1"],
        ["view", "a", "--port", "99999999"],
    ],
)
def test_numbers_outside_an_options_range_are_wrong_usage(arguments):
    done = run.invoke(app, arguments)
    assert done.exit_code == 2
    assert f"Invalid value for '{arguments[-2]}'" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["config", "--set", "tile.strid=1"], "did you mean 'stride'"),
        (["annotate", "nowhere.svs", "-o", "out"], "nowhere.svs"),
        (["info", "nowhere.svs"], "nowhere.svs"),
        (
            ["config", "--set", "export.formats=geojson,png"],
            "export.formats = 'geojson,png': give a list: [geojson,png]",
        ),
        (["info", "a.svs", "--mpp-override", "inf"], "the command line: mpp_override = inf"),
        (["predict", "nowhere.zarr"], "nowhere.zarr"),
    ],
)
def test_errors_are_one_line_and_exit_1(arguments, message):
    done = run.invoke(app, arguments)
    assert done.exit_code == 1
    assert message in done.output.replace("\n", "")
    assert "Traceback" not in done.output


def test_doctor_names_the_readers():
    done = run.invoke(app, ["doctor"])
    assert done.exit_code == 0
    assert "openslide" in done.stdout


def test_brackets_are_shown_not_taken_for_markup(monkeypatch):
    rows = [("pydensecrf2", "missing", "pip install 'wsiseg[pydensecrf]'")]
    monkeypatch.setattr("wsiseg.doctor.check_installation", lambda: rows)
    assert "wsiseg[pydensecrf]" in run.invoke(app, ["doctor"]).stdout


def test_every_command_is_documented():
    for command in app.registered_commands:
        assert command.callback is not None
        assert command.callback.__doc__, command.callback.__name__


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["-q", "tile", "--help"], "Usage: wsiseg tile"),
        (["model", "list", "--help"], "Usage: wsiseg model list"),
        (["--help"], "suggest"),
        (["suggst"], "Did you mean 'suggest'?"),
        (["--help", "tile"], "suggest"),
    ],
)
def test_one_command_built_alone_behaves_as_among_all(words, shown, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["wsiseg", *words])
    with pytest.raises(SystemExit):
        app(prog_name="wsiseg")
    found = capsys.readouterr()
    assert shown in found.out + found.err
    assert len(app.registered_commands) > 1


def test_export_takes_the_shape_of_borders_as_options(tmp_path):
    labels = np.pad(blobs((60, 70), 3, 5, coarse=4), 4, constant_values=255)
    make_store(tmp_path / "s.zarr", labels)
    sizes = {}
    for name, options in (("exact", []), ("coarse", ["--simplify", "1.5", "--min-area", "4"])):
        out = tmp_path / f"{name}.geojson"
        done = run.invoke(
            app, ["export", str(tmp_path / "s.zarr"), "--out", str(out), "--executor", "serial",
                  "--origin", "level0", *options]
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        assert (b"area_error" in out.read_bytes()) == (name == "coarse")
        sizes[name] = out.stat().st_size
        assert b'"origin":[0,0]' in out.read_bytes()
    assert sizes["coarse"] < 0.6 * sizes["exact"]
    refused = run.invoke(app, ["export", str(tmp_path / "s.zarr"), "-o", str(out), "--smooth", "9"])
    assert refused.exit_code == 1
    assert "outline.smooth" in refused.output


def test_every_command_stands_in_a_panel_and_has_an_example():
    help_ = run.invoke(app, ["--help"]).output
    assert "Commands" not in help_, "the panel of what has none"
    for command in app.registered_commands:
        name = command.name or command.callback.__name__
        assert command.epilog.startswith(f"Example: wsiseg {name}"), name
