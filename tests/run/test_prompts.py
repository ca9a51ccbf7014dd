"""Slides annotated by prompts alone, with open_clip towers of random weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from wsiseg.cli import app
from wsiseg.demo.synthesis import synthesize_slide
from wsiseg.qupath import lint_geojson
from wsiseg.store import SlideStore

pytest.importorskip("open_clip", reason="pip install 'wsiseg[encoders]'")

from tests.model.encoders.test_open_clip import TOWERS, make_model
from wsiseg.model.encoders.open_clip import OpenClipEncoder
from wsiseg.model.prompt_file import read_prompts
from wsiseg.model.prompts import embed_prompts

PROMPTS = {
    "classes": [
        {"name": "Tumor", "color": [200, 0, 0], "prompts": ["carcinoma"]},
        {"name": "Stroma", "color": [0, 200, 0], "prompts": ["collagen fibers"]},
    ],
    "templates": ["an H&E image of {}."],
    "temperature": 0.01,
}


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slide") / "one.svs"
    synthesize_slide(path, width=1024, height=1024, seed=3)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("clip") / "own", TOWERS["own"])


def write(path: Path, **changes: object) -> Path:
    path.write_text(yaml.safe_dump({**PROMPTS, **changes}))
    return path


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(one) for one in arguments])
    return done.exit_code, done.output


def settings(model: Path, **changes: object) -> list[str]:
    all_of_them = {
        "predict.encoder": "open_clip", "predict.encoder_options.model": model,
        "predict.device": "cpu", "tile.tile": 64, "tile.stride": 64, "stitch.refine": "false",
        **changes,
    }  # fmt: skip
    return [part for name, one in all_of_them.items() for part in ("--set", f"{name}={one}")]


def test_annotate_writes_polygons_of_the_named_classes(
    slide: Path, model: Path, tmp_path: Path
) -> None:
    prompts, out = write(tmp_path / "p.yaml"), tmp_path / "out"
    command = ["annotate", slide, "-o", out, "--prompts", prompts, "--executor", "serial"]
    code, output = run(*command, *settings(model))
    assert code == 0, output
    path = out / "geojson" / "one.geojson"
    assert not [f for f in lint_geojson(path) if f.severity == "error"]
    features = json.loads(path.read_bytes())["features"]
    names = {feature["properties"]["classification"]["name"] for feature in features}
    assert names
    assert names <= {"Tumor", "Stroma"}
    store = SlideStore(out / "slides" / "one.zarr")
    assert store.cam_palette.colors == ((200, 0, 0), (0, 200, 0))
    # Each tile is a window: the cosine of its embedding with the classes', over the temperature.
    cams, _ = store.read_cams(slice(0, store.grid.rows), slice(0, store.grid.cols))
    row, col = (int(n) for n in np.argwhere(np.isfinite(cams[..., 0, 0, 0]))[0])
    encoder = OpenClipEncoder(model)
    pixels = torch.from_numpy(store.read_image(store.grid.tile_box(row, col)))
    image = encoder.embed_image(pixels.permute(2, 0, 1)[None].float() / 255)[0]
    wanted = embed_prompts(encoder, read_prompts(prompts)) @ image / 0.01
    np.testing.assert_allclose(cams[row, col, :, 0, 0], wanted, atol=0.1)
    before = path.read_bytes()
    assert run(*command, *settings(model))[0] == 0
    assert path.read_bytes() == before


def test_predict_keeps_kinds_of_background_after_the_classes(
    slide: Path, model: Path, tmp_path: Path
) -> None:
    prompts, place = write(tmp_path / "p.yaml", background=["glass", "pen"]), tmp_path / "one.zarr"
    assert run("tile", slide, "-o", place, *settings(model))[0] == 0
    changes = settings(model, **{"predict.prompt_features": "patch"})
    code, output = run("predict", place, "--prompts", prompts, *changes, "--executor", "serial")
    assert code == 0, output
    store = SlideStore(place)
    assert (store.cam_channels, len(store.cam_palette), store.cam_size) == (4, 2, (4, 4))
    cams, logits = store.read_cams(slice(0, store.grid.rows), slice(0, store.grid.cols))
    assert cams.shape[2] == logits.shape[2] == 4
    assert (np.isfinite(cams).all((2, 3, 4)) == np.isfinite(logits).all(2)).all()
    assert np.isfinite(logits).any()


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("none.yaml", {}, "none.yaml: cannot be read"),
        ("bad.yaml", {}, "backgrund is not a setting; did you mean 'background'"),
        ("p.yaml", {"predict.encoder": "tiny", "predict.encoder_options": "{}"}, "no text tower"),
        ("p.yaml", {"tile.tile": 112, "tile.stride": 112}, "takes multiples of 64 px; the nearest"),
    ],
)
def test_what_is_wrong_is_told_before_any_work(
    slide: Path, model: Path, tmp_path: Path, name: str, changes: dict[str, object], message: str
) -> None:
    write(tmp_path / "p.yaml")
    write(tmp_path / "bad.yaml", backgrund=[])
    command = ["annotate", slide, "-o", tmp_path / "out", "--prompts", tmp_path / name]
    code, output = run(*command, *settings(model, **changes))
    assert code == 1
    assert message in output.replace("\n", "")
    assert not (tmp_path / "out").exists()


def test_a_dry_run_reads_the_prompt_file(slide: Path, model: Path, tmp_path: Path) -> None:
    command = ["annotate", slide, "-o", tmp_path / "out", "--dry-run", "--prompts"]
    assert run(*command, write(tmp_path / "1.yaml"), *settings(model))[0] == 0
    code, output = run(*command, tmp_path / "2.yaml", *settings(model))
    assert code == 1
    assert "2.yaml: cannot be read" in output.replace("\n", "")
