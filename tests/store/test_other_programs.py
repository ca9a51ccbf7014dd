from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from tests.store.slides import BCSS, DIGEST, GRID, OVERLAPPING, SLIDE, fill
from wsiseg.errors import StoreError
from wsiseg.grid import TileGrid
from wsiseg.store import FORMAT, SlideStore


def ome(path: Path) -> dict[str, Any]:
    attributes = json.loads((path / "zarr.json").read_text())["attributes"]
    return dict(attributes["ome"])


def test_image_and_labels_are_ngff_0_5(tmp_path: Path) -> None:
    grid = TileGrid(1500, 2300, 64, 64, 512)
    store = SlideStore.create(tmp_path / "a.zarr", grid, 0.25, SLIDE)
    store.create_labels(BCSS)
    for name, leading, factors in (
        ("", 1, (1, 4)),
        ("labels/classes", 0, (1, 4)),
        ("labels/confidence", 0, (1, 4)),
    ):
        meta = ome(store.path / name)
        assert meta["version"] == "0.5"
        (scales,) = meta["multiscales"]
        axes = scales["axes"]
        assert [axis["name"] for axis in axes] == ["c", "y", "x"][1 - leading :]
        assert all(axis["unit"] == "micrometer" for axis in axes[leading:])
        for factor, dataset in zip(factors, scales["datasets"], strict=True):
            array = zarr.open_array(str(store.path / name / dataset["path"]), mode="r")
            assert array.ndim == len(axes)
            assert array.metadata.dimension_names == tuple(axis["name"] for axis in axes)
            scale, *rest = dataset["coordinateTransformations"]
            pixel = 0.25 * factor
            assert scale == {"type": "scale", "scale": [1.0] * leading + [pixel] * 2}
            # The first pixel's centre, from the corner of the raster: half a pixel of any level.
            shift = rest[0]["translation"][-1] if rest else 0.0
            assert shift + 0.125 == pytest.approx(pixel / 2)
    label = ome(store.path / "labels/classes")["image-label"]
    assert [color["rgba"] for color in label["colors"]] == [[*c, 255] for c in BCSS.colors]
    assert [item["class"] for item in label["properties"]] == list(BCSS.names)
    source = (store.path / "labels/classes" / label["source"]["image"]).resolve()
    assert source == store.path.resolve()
    assert ome(store.path / "labels")["labels"] == ["classes", "confidence"]


def test_plain_zarr_reads_the_pixels(filled: tuple[SlideStore, NDArray[np.uint8]]) -> None:
    store, image = filled
    array = zarr.open_array(str(store.path / "image" / "0"), mode="r")
    assert array.shape == (3, 300, 420)
    assert array.chunks == (3, 32, 32)
    assert array.shards == (3, 128, 128)
    np.testing.assert_array_equal(np.moveaxis(np.asarray(array[:]), 0, 2), image)


@pytest.mark.parametrize("group", ["labels", "image", "tissue", "cams"])
def test_what_others_keep_in_our_groups_stays(store: SlideStore, group: str) -> None:
    """A person's own labels, as NGFF has them beside ours, or in zarr's older format."""
    fill(store)
    root = zarr.open_group(str(store.path), mode="r+", zarr_format=3)
    root[group].create_group("cells").attrs["mine"] = "kept"  # type: ignore[union-attr]
    old = store.path / group / "nuclei" / ".zgroup"
    old.parent.mkdir()
    old.write_text('{"zarr_format": 2}')
    again = SlideStore.create(store.path, OVERLAPPING, 0.5, SLIDE)
    assert (again.read_image(OVERLAPPING.box) == 255).all()
    for look in (again.read_tissue, lambda: again.cam_palette, lambda: again.palette):
        with pytest.raises(StoreError, match="holds no"):
            look()
    fill(again)
    assert again.palette == BCSS
    root = zarr.open_group(str(store.path), mode="r", zarr_format=3)
    assert root[f"{group}/cells"].attrs["mine"] == "kept"
    assert old.read_text() == '{"zarr_format": 2}'
    if group == "labels":
        assert root["labels"].attrs["ome"]["labels"] == ["cells", "classes", "confidence"]  # type: ignore[index,call-overload]


@pytest.mark.parametrize("key", ["image", "image/0", "labels", "labels/classes", "done"])
def test_a_damaged_description_does_not_keep_a_store_from_being_laid_out(
    store: SlideStore, key: str
) -> None:
    fill(store)
    store.mark_done("predict", 0, DIGEST)
    for damage in (b"", b"[]"):
        (store.path / key / "zarr.json").write_bytes(damage)
        again = SlideStore.create(store.path, OVERLAPPING, 0.5, SLIDE)
        fill(again)
        assert again.palette == BCSS
        store = SlideStore.create(store.path, GRID, 0.5, SLIDE)
        fill(store)
        store.mark_done("predict", 0, DIGEST)


def test_a_store_of_a_newer_format_is_never_laid_out_anew(store: SlideStore) -> None:
    fill(store)
    path = store.path / "zarr.json"
    data = json.loads(path.read_text())
    data["attributes"]["wsiseg"] = {"format": FORMAT + 1, "grids": "of a kind we do not know"}
    path.write_text(json.dumps(data))
    before = {file: file.read_bytes() for file in store.path.rglob("*") if file.is_file()}
    for grid in (GRID, OVERLAPPING):
        with pytest.raises(StoreError, match=rf"has format {FORMAT + 1}.*choose another output"):
            SlideStore.create(store.path, grid, 0.5, SLIDE)
    assert before == {file: file.read_bytes() for file in store.path.rglob("*") if file.is_file()}
    data["attributes"]["wsiseg"]["format"] = 1
    path.write_text(json.dumps(data))
    with pytest.raises(StoreError, match="tile the slide again"):
        SlideStore(store.path)
    assert SlideStore.create(store.path, GRID, 0.5, SLIDE).grid == GRID


def test_consolidated_metadata_of_a_user_change_nothing(store: SlideStore) -> None:
    """They are as old as the day, and named no tissue, CAMs or labels that came later."""
    with pytest.warns(UserWarning, match="Consolidated metadata"):
        zarr.consolidate_metadata(str(store.path))
    again = SlideStore.create(store.path, GRID, 0.5, SLIDE)
    fill(again)
    again.mark_done("predict", 0, DIGEST)
    for opened in (SlideStore(store.path), pickle.loads(pickle.dumps(again))):
        assert opened.read_tissue()[0].all()
        assert opened.palette == opened.cam_palette == BCSS
        opened.create_cams(BCSS, 7, 7)
        assert opened.is_done("predict", 0, DIGEST)
        opened.clear_marks("tile")
        assert not opened.is_done("tile", 0, DIGEST)
    with pytest.warns(UserWarning, match="Consolidated metadata"):
        zarr.consolidate_metadata(str(store.path))
    assert SlideStore.create(store.path, GRID, 0.25, SLIDE).mpp == 0.25
    assert SlideStore(store.path).mpp == 0.25
