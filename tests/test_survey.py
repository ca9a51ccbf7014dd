import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner

from tests.evaluate.golden import MINI_BCSS
from wsiseg.cli import app
from wsiseg.config import Config, load_config
from wsiseg.errors import ConfigError
from wsiseg.survey import next_command, survey_folder, write_settings


def slide(path, mpp=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    scale = {} if mpp is None else {"resolution": (1e4 / mpp,) * 2, "resolutionunit": "CENTIMETER"}
    pixels = np.full((256, 300, 3), 200, np.uint8)
    tifffile.imwrite(path, pixels, tile=(128, 128), compression="jpeg", **scale)
    return path


def test_slides_with_and_without_scale(tmp_path):
    for name, mpp in (("a.tif", 0.25), ("b.tif", 0.5), ("c.tif", None)):
        slide(tmp_path / name, mpp)
    (tmp_path / "d.svs").write_bytes(b"no slide")
    survey = survey_folder(tmp_path)
    assert [one.mpp for one in survey.opened] == pytest.approx([0.25, 0.5, None])
    assert [path.name for path in survey.unscaled] == ["c.tif"]
    assert [path.name for path, _ in survey.broken] == ["d.svs"]
    text = " ".join(write_settings(survey).read_text().replace("# ", "").split())
    assert "4 slide(s): 1 .svs, 3 .tif; 0.25 to 0.5 µm/px" in text
    assert "1 slide(s) do not say their µm/px: c.tif." in text
    assert load_config(tmp_path / "wsiseg.yaml", Config) == Config(), "nothing is changed unasked"


def test_slides_in_sub_folders(tmp_path):
    slide(tmp_path / "case 1" / "a.tif", 0.5)
    survey = survey_folder(tmp_path)
    assert survey.nested
    command = next_command(survey, tmp_path / "wsiseg.yaml")
    assert command.startswith("wsiseg annotate ")
    assert command.endswith("--nested")


def test_patch_sets_are_no_slides(tmp_path):
    (tmp_path / "train").mkdir()
    Image.new("RGB", (224, 224)).save(tmp_path / "train" / "a[1000].png")
    shutil.copytree(MINI_BCSS / "test", tmp_path / "test")
    for path in (tmp_path / "test" / "img").iterdir():
        Image.open(path).save(path.with_suffix(".tif"))
    survey = survey_folder(tmp_path)
    assert survey.slides == ()
    assert survey.patches == (tmp_path / "train",)
    assert survey.masked == (tmp_path / "test",)
    assert next_command(survey, None).startswith(f"wsiseg train {tmp_path / 'train'}")
    (tmp_path / "train" / "a[1000].png").unlink()
    assert next_command(survey_folder(tmp_path), None).startswith("wsiseg evaluate tissue")


def test_a_file_that_is_there_stays(tmp_path):
    slide(tmp_path / "a.tif", 0.5)
    (tmp_path / "wsiseg.yaml").write_text("tile: {mpp: 1.0}\n")
    with pytest.raises(ConfigError, match="already exists"):
        write_settings(survey_folder(tmp_path))
    assert (tmp_path / "wsiseg.yaml").read_text() == "tile: {mpp: 1.0}\n"


def test_command_line(tmp_path):
    slide(tmp_path / "slides" / "a.tif", 0.5)
    done = CliRunner().invoke(app, ["init", str(tmp_path / "slides")])
    assert done.exit_code == 0, done.output
    assert "1 slide(s): 1 .tif; 0.5 µm/px." in done.output
    assert "wsiseg annotate" in done.output
    assert (tmp_path / "slides" / "wsiseg.yaml").exists()
    empty = tmp_path / "empty"
    empty.mkdir()
    done = CliRunner().invoke(app, ["init", str(empty)])
    assert "No slides." in done.output
    assert "wsiseg demo" in done.output
    assert list(empty.iterdir()) == []
    assert CliRunner().invoke(app, ["init", str(tmp_path / "nothing")]).exit_code == 1
