from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsiseg.annotations import BACKGROUND
from wsiseg.demo import Truth, run
from wsiseg.demo.run import run_demo
from wsiseg.errors import ConfigError, DataError
from wsiseg.qupath import lint_geojson
from wsiseg.store import SlideStore

pytestmark = pytest.mark.slow  # trains a model and annotates with it


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[str]]:
    out = tmp_path_factory.mktemp("demo")
    seen: list[str] = []
    figures = run_demo(
        out, quick=True, workers=1, progress=lambda step, done, total: seen.append(step)
    )
    return out, figures, seen


def test_figures_are_kept_and_whole(demo: tuple[Path, dict[str, Any], list[str]]) -> None:
    out, figures, _ = demo
    assert json.loads((out / "demo.json").read_text()) == figures
    assert {"miou", "mdice", "area_error", "seconds"} <= set(figures)
    for name in ("iou", "dice", "area_error"):
        assert list(figures[name]) == ["Tumor", "Stroma", "Immune cells", "Necrosis"]
    assert figures["seconds"] == pytest.approx(sum(figures["stages"].values()), abs=0.2)
    assert all(Path(path).exists() for path in figures["paths"].values())


def test_score_is_that_of_the_maps(demo: tuple[Path, dict[str, Any], list[str]]) -> None:
    out, figures, _ = demo
    truth = Truth.load(out / "slides" / "test.npz").labels
    store = SlideStore(out / "annotated" / "slides" / "test.zarr")
    mapped = store.read_labels(store.grid.box)
    assert mapped.shape == truth.shape
    for label, name in enumerate(figures["iou"]):
        true, found = truth == label, mapped == label
        both = (true & found).sum()
        assert figures["iou"][name] == pytest.approx(both / (true | found).sum(), abs=1e-4)
        assert figures["dice"][name] == pytest.approx(
            2 * both / (true.sum() + found.sum()), abs=1e-4
        )
        error = abs(int(found.sum()) - int(true.sum())) / true.sum()
        assert abs(figures["area_error"][name]) == pytest.approx(error, abs=1e-4)
    assert figures["miou"] == pytest.approx(np.mean(list(figures["iou"].values())), abs=1e-4)
    assert figures["mdice"] == pytest.approx(np.mean(list(figures["dice"].values())), abs=1e-4)


def test_it_learns_even_when_quick(demo: tuple[Path, dict[str, Any], list[str]]) -> None:
    # One class everywhere would give about 0.1. So short a training moves by some 0.05 with any
    # change of its losses: 0.53 when this was written.
    assert demo[1]["miou"] > 0.45


def test_polygons_are_clean_and_progress_names_the_steps(
    demo: tuple[Path, dict[str, Any], list[str]],
) -> None:
    _, figures, seen = demo
    assert not [f for f in lint_geojson(figures["paths"]["geojson"]) if f.severity == "error"]
    assert {"slides", "tile", "predict", "stitch"} <= set(seen)


def test_second_slide_is_another_one(demo: tuple[Path, dict[str, Any], list[str]]) -> None:
    folder = demo[0] / "slides"
    one, two = (Truth.load(folder / f"{name}.npz").labels for name in ("train", "test"))
    assert one.shape == two.shape
    tissue = (one != BACKGROUND) & (two != BACKGROUND)
    assert (one[tissue] == two[tissue]).mean() < 0.6


def test_other_peoples_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty and not from an earlier demo; give --out"):
        run_demo(tmp_path)
    assert os.listdir(tmp_path) == ["mine.txt"]
    with pytest.raises(ConfigError, match=r"mine\.txt: is a file"):
        run_demo(tmp_path / "mine.txt")


def test_demo_runs_again_over_its_own_files_only(
    demo: tuple[Path, dict[str, Any], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "again"
    shutil.copytree(demo[0], out)
    (out / "slides" / "notes.txt").write_text("mine")
    # An outline that somebody edited would be read instead of detecting; this one cannot be.
    (out / "annotated" / "tissue" / "test.geojson").write_text("edited")
    (out / "model.safetensors.unfinished").write_text("of a run that was cut off")
    small = dataclasses.replace(run._QUICK, width=2048, height=2048, patches=16, epochs=1)
    monkeypatch.setattr(run, "_QUICK", small)
    figures = run.run_demo(out, quick=True, workers=1)
    assert (out / "slides" / "notes.txt").read_text() == "mine"
    assert json.loads((out / "demo.json").read_text()) == figures
    assert SlideStore(out / "annotated" / "slides" / "test.zarr").grid.box[2:] == (1024, 1024)


def test_a_slide_that_fails_ends_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = dataclasses.replace(run._QUICK, width=1024, height=1024, patches=8, epochs=1)
    monkeypatch.setattr(run, "_QUICK", small)
    (tmp_path / ".wsiseg-demo").touch()
    store = tmp_path / "annotated" / "slides" / "test.zarr"
    store.mkdir(parents=True)
    (store / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match=r"test\.svs: failed .*test\.zarr"):
        run.run_demo(tmp_path, quick=True, workers=1)
    assert os.listdir(store) == ["mine.txt"]
    assert not (tmp_path / "demo.json").exists()
