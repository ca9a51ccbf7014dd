"""The whole way from slide to polygons, once in a folder and once in a bucket."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from typer.testing import CliRunner

from wsiseg.cli import app
from wsiseg.demo.synthesis import synthesize_slide
from wsiseg.store import SlideStore


def run(*args: object) -> None:
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == 0, result.output


def annotate(slide: Path, store: str, out: Path) -> SlideStore:
    run("tile", slide, "-o", store, "--set", "tile.block=448", "--workers", 2)
    run("predict", store, "--workers", 2)
    run("stitch", store, "--set", "stitch.refine=false", "--workers", 2)
    run("export", store, "-o", out)
    return SlideStore(store)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slide") / "one.svs"
    synthesize_slide(path, width=2048, height=1536, seed=3)
    return path


@pytest.fixture(scope="module")
def near(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> SlideStore:
    path = tmp_path_factory.mktemp("near")
    return annotate(slide, str(path / "a.zarr"), path / "near.geojson")


def test_at_most_one_file_a_block_and_array(near: SlideStore) -> None:
    arrays = [
        path.parent
        for path in near.path.rglob("zarr.json")
        if json.loads(path.read_bytes())["node_type"] == "array"
    ]
    assert len(arrays) > 8
    for array in arrays:
        found = [path for path in array.rglob("*") if path.is_file()]
        assert 1 <= len(found) <= near.grid.n_blocks + 1, array
    everything = [path for path in near.path.rglob("*") if path.is_file()]
    assert len(everything) <= len(arrays) * (near.grid.n_blocks + 1) + 8


def test_a_bucket_holds_what_a_folder_holds(
    slide: Path, near: SlideStore, tmp_path: Path, bucket: str
) -> None:
    far = annotate(slide, f"{bucket}/{uuid4().hex}/a.zarr", tmp_path / "far.geojson")
    assert (far.path.name, far.meta) == ("a.zarr", near.meta)
    whole = near.grid.box
    np.testing.assert_array_equal(far.read_image(whole), near.read_image(whole))
    np.testing.assert_array_equal(far.read_labels(whole), near.read_labels(whole))
    np.testing.assert_array_equal(far.read_confidence(whole), near.read_confidence(whole))
    tiles = [slice(0, near.grid.rows), slice(0, near.grid.cols)]
    for mine, other in zip(far.read_cams(*tiles), near.read_cams(*tiles), strict=True):
        np.testing.assert_array_equal(mine, other)
    for step in ("tile", "predict", "stitch"):
        assert far.finished(step) == near.finished(step)
    features = [
        json.loads(path.read_bytes())["features"]
        for path in (near.path.with_name("near.geojson"), tmp_path / "far.geojson")
    ]
    assert features[0] == features[1]
    assert len(features[0]) > 0


def test_work_in_a_bucket_is_resumed(slide: Path, tmp_path: Path, bucket: str) -> None:
    store = f"{bucket}/{uuid4().hex}.zarr"
    run("tile", slide, "-o", store, "--set", "tile.block=448")
    before = SlideStore(store)
    digest, blocks = before.digests("tile")
    before.begin("tile", 1)
    before.erase_image(1)
    assert SlideStore(store).pending("tile", blocks) == [1]
    pixels = before.read_image(before.grid.box)
    run("tile", slide, "-o", store, "--set", "tile.block=448")
    assert SlideStore(store).finished("tile") == digest
    run("tile", slide, "-o", tmp_path / "a.zarr", "--set", "tile.block=448")
    wanted = SlideStore(tmp_path / "a.zarr").read_image(before.grid.box)
    np.testing.assert_array_equal(before.read_image(before.grid.box), wanted)
    assert (wanted != pixels).any()
    other = CliRunner().invoke(app, ["predict", f"{bucket}/none.zarr"])
    assert other.exit_code == 1
    assert "s3://slides/none.zarr: is not a wsiseg store; run `wsiseg tile`" in " ".join(
        other.output.split()
    )
