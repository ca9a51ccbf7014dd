"""The classes' probabilities as a raster of their own."""

import numpy as np
import pytest
import tifffile
import zarr

from tests.stitch.test_stitch import PLAIN, REFINED, make_store
from wsiseg.compute import SerialExecutor, open_executor
from wsiseg.config import Config
from wsiseg.errors import StoreError
from wsiseg.export import export_ome_tiff
from wsiseg.pyramid import halve_confidence
from wsiseg.stitch import class_probabilities, stitch_labels
from wsiseg.store import SlideStore

KEPT = Config.model_validate({"stitch": {"refine": False, "probabilities": True}})


def read(store, level=0):
    return store.read_probabilities(store.level_box(level), level)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = make_store(tmp_path_factory.mktemp("p") / "s.zarr", size=(1400, 1200))
    stitch_labels(store.path, KEPT, SerialExecutor())
    return SlideStore(store.path)


def test_they_are_the_probabilities_of_the_whole(store):
    exact = class_probabilities(store, KEPT.stitch, store.grid.box)
    np.testing.assert_array_equal(read(store), np.rint(exact[:4] * 255))


def test_levels_are_means_of_squares(store):
    assert store.pyramid_factors == (1, 2, 4)
    for level in (1, 2):
        finer = read(store, level - 1)
        expected = np.stack([halve_confidence(np.ascontiguousarray(one)) for one in finer])
        np.testing.assert_array_equal(read(store, level), expected)


def test_others_read_an_image_with_a_channel_a_class(store):
    group = zarr.open_group(str(store.path / "probabilities"), mode="r")
    ome = group.attrs["ome"]
    (scales,) = ome["multiscales"]
    assert [axis["name"] for axis in scales["axes"]] == ["c", "y", "x"]
    assert [channel["label"] for channel in ome["omero"]["channels"]] == list(store.palette.names)
    for level, dataset in enumerate(scales["datasets"]):
        np.testing.assert_array_equal(group[dataset["path"]][:], read(store, level))
        transform = dataset["coordinateTransformations"][0]
        assert transform["scale"] == [1.0, 0.5 * 2**level, 0.5 * 2**level]


def test_ngff_is_valid(store):
    models = pytest.importorskip("ome_zarr_models", reason="pip install ome-zarr-models")
    found = models.open_ome_zarr(str(store.path / "probabilities"))
    assert (type(found).__name__, found.ome_zarr_version) == ("Image", "0.5")


def test_the_tiff_has_a_picture_of_them(store, tmp_path):
    path = export_ome_tiff(store, tmp_path / "a.ome.tiff")
    with tifffile.TiffFile(path) as tiff:
        assert [s.name for s in tiff.series] == ["classes", "confidence", "probabilities"]
        for level, image in enumerate(tiff.series[2].levels):
            assert image.axes == "CYX"
            np.testing.assert_array_equal(image.asarray(), read(store, level))


def test_labels_are_the_same_with_and_without(store, tmp_path):
    plain = make_store(tmp_path / "s.zarr", size=(1400, 1200))
    stitch_labels(plain.path, PLAIN, SerialExecutor())
    np.testing.assert_array_equal(
        store.read_labels(store.grid.box), plain.read_labels(plain.grid.box)
    )
    assert not plain.has_probabilities
    with pytest.raises(StoreError, match=r"holds no probabilities of level 0.*probabilities=true"):
        read(plain)


def test_they_go_where_no_tissue_is_left_and_when_no_longer_asked_for(tmp_path):
    store = make_store(tmp_path / "s.zarr")
    stitch_labels(store.path, KEPT, SerialExecutor())
    assert read(SlideStore(store.path)).any()
    store.write_tissue(np.zeros((62, 75), bool), 8.0, "0" * 64)
    store.clear_marks("stitch")
    stitch_labels(store.path, KEPT, SerialExecutor())
    assert not read(SlideStore(store.path)).any()
    stitch_labels(store.path, PLAIN, SerialExecutor())
    assert not SlideStore(store.path).has_probabilities
    assert not (store.path / "probabilities").exists()


def test_no_longer_asking_for_them_runs_no_crf_again(tmp_path, monkeypatch):
    store, other = (make_store(tmp_path / f"{name}.zarr") for name in ("one", "other"))
    digest = stitch_labels(store.path, KEPT, SerialExecutor())
    with monkeypatch.context() as patch:
        patch.setattr(SlideStore, "begin", None)
        assert stitch_labels(store.path, PLAIN, SerialExecutor()) == digest
    stitch_labels(other.path, PLAIN, SerialExecutor())
    files = [
        {
            path.relative_to(one.path): path.read_bytes()
            for path in one.path.rglob("c/**/*")
            if path.is_file()
        }
        for one in (store, other)
    ]
    assert files[0] == files[1]


def test_asking_for_them_redoes_what_was_stitched_without(tmp_path):
    refined = REFINED.stitch.model_copy(update={"probabilities": True})
    config = REFINED.model_copy(update={"stitch": refined})
    one, other = (make_store(tmp_path / f"{name}.zarr") for name in ("one", "other"))
    stitch_labels(one.path, REFINED, SerialExecutor())
    stitch_labels(one.path, config, SerialExecutor())
    with open_executor("threads", 2) as pool:
        stitch_labels(other.path, config, pool)
    found = read(SlideStore(one.path))
    assert found.any()
    np.testing.assert_array_equal(found, read(SlideStore(other.path)))
