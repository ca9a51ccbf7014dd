from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from tests.store.slides import DIGEST, GRID, OVERLAPPING, SLIDE, fill, noise
from wsiseg.errors import StoreError
from wsiseg.geometry import Box
from wsiseg.grid import TileGrid
from wsiseg.store import FORMAT, SlideStore
from wsiseg.store.nodes import Node


def test_facts_are_kept(store: SlideStore) -> None:
    for opened in (store, SlideStore(store.path), SlideStore(str(store.path))):
        assert (opened.grid, opened.mpp, opened.slide) == (GRID, 0.5, SLIDE)


def test_the_path_is_enough_for_a_worker(store: SlideStore) -> None:
    store.write_image(0, noise((128, 128, 3)))
    for known in (SlideStore(pickle.loads(pickle.dumps(store.path))),
                  pickle.loads(pickle.dumps(store))):  # fmt: skip
        np.testing.assert_array_equal(known.read_image(GRID.box), store.read_image(GRID.box))


def test_created_again_it_is_as_it_was(store: SlideStore) -> None:
    fill(store)
    again = SlideStore.create(store.path, GRID, 0.5, {**SLIDE, "path": "/elsewhere/a.svs"})
    assert again.is_done("tile", 0, DIGEST)
    assert again.slide["path"] == "/elsewhere/a.svs" == SlideStore(store.path).slide["path"]
    np.testing.assert_array_equal(again.read_image(Box(0, 0, 128, 128)), noise((128, 128, 3)))


@pytest.mark.parametrize(
    ("grid", "mpp", "slide"),
    [
        (OVERLAPPING, 0.5, SLIDE),
        (GRID, 0.25, SLIDE),
        (GRID, 0.5, {**SLIDE, "identity": "b" * 64}),
        (GRID, 0.5, {**SLIDE, "mpp": [0.25, 0.25]}),
    ],
    ids=["grid", "mpp", "slide", "slide's mpp"],
)
def test_another_raster_is_laid_out_anew(
    store: SlideStore, grid: TileGrid, mpp: float, slide: dict[str, Any]
) -> None:
    fill(store)
    (store.path / "notes.txt").write_text("the user's")
    again = SlideStore.create(store.path, grid, mpp, slide)
    assert (again.grid, again.mpp, again.slide) == (grid, mpp, slide)
    assert (again.read_image(grid.box) == 255).all()
    assert len(again.pending("tile", DIGEST)) == grid.n_blocks
    for look in (again.read_tissue, lambda: again.cam_palette, lambda: again.palette):
        with pytest.raises(StoreError, match="holds no"):
            look()
    assert (store.path / "notes.txt").read_text() == "the user's"


@pytest.mark.parametrize("stage", ["replace_array", "add_array"])
def test_killed_while_being_laid_out_it_is_laid_out_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "a.zarr"
    fill(SlideStore.create(path, OVERLAPPING, 0.5, SLIDE))
    for target in (path, tmp_path / "new.zarr"):
        with monkeypatch.context() as patch:
            patch.setattr(Node, stage, die)
            with pytest.raises(KeyboardInterrupt):
                SlideStore.create(target, GRID, 0.5, SLIDE)
        with pytest.raises(StoreError, match="is not a wsiseg store"):
            SlideStore(target)
        store = SlideStore.create(target, GRID, 0.5, SLIDE)
        assert len(store.pending("tile", DIGEST)) == GRID.n_blocks
        assert (store.read_image(GRID.box) == 255).all()


def test_what_is_not_ours_is_refused_and_left_alone(tmp_path: Path) -> None:
    folder, file, foreign = tmp_path / "folder", tmp_path / "file.txt", tmp_path / "foreign.zarr"
    folder.mkdir()
    (folder / "a.txt").write_text("mine")
    file.write_text("mine")
    zarr.open_group(str(foreign), mode="w", zarr_format=3).create_group("image")
    before = sorted(tmp_path.rglob("*"))
    for path in (folder, file, foreign):
        with pytest.raises(
            StoreError, match=f"{path.name}: is not a wsiseg store; run `wsiseg tile`"
        ):
            SlideStore(path)
        with pytest.raises(StoreError, match=f"{path.name}: holds something that wsiseg did not"):
            SlideStore.create(path, GRID, 0.5, SLIDE)
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(StoreError, match=r"none\.zarr: is not a wsiseg store"):
        SlideStore(tmp_path / "none.zarr")
    assert not (tmp_path / "none.zarr").exists()


def test_an_empty_folder_will_do(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    assert SlideStore.create(tmp_path / "a.zarr", GRID, 0.5, SLIDE).grid == GRID


def test_another_format_is_named(store: SlideStore) -> None:
    path = store.path / "zarr.json"
    data = json.loads(path.read_text())
    data["attributes"]["wsiseg"]["format"] = FORMAT + 1
    path.write_text(json.dumps(data))
    with pytest.raises(
        StoreError, match=rf"has format {FORMAT + 1}, this wsiseg reads 2 to {FORMAT};"
    ):
        SlideStore(store.path)
