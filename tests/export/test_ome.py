"""The file as tifffile and OpenSlide see it."""

from xml.etree import ElementTree

import numpy as np
import openslide
import pytest
import tifffile

from tests.export.stores import MPP, make_store
from wsiseg.annotations import BACKGROUND, PALETTES, Palette
from wsiseg.errors import StoreError
from wsiseg.export import export_ome_tiff, pyramid
from wsiseg.grid import TileGrid
from wsiseg.store import SlideStore

OME = {"o": "http://www.openmicroscopy.org/Schemas/OME/2016-06"}


@pytest.fixture(scope="module")
def path(store, tmp_path_factory):
    return export_ome_tiff(store, tmp_path_factory.mktemp("ome") / "one.ome.tiff")


def test_tifffile_reads_every_level_of_both_images(store, path):
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome
        assert [series.name for series in tiff.series] == ["classes", "confidence"]
        for series, read in zip(
            tiff.series, (store.read_labels, store.read_confidence), strict=True
        ):
            assert len(series.levels) == len(store.pyramid_factors) == 2
            for level, image in enumerate(series.levels):
                assert image.axes == "YX"
                np.testing.assert_array_equal(image.asarray(), read(store.level_box(level), level))


def test_the_pixel_size_is_the_rasters(path):
    with tifffile.TiffFile(path) as tiff:
        root = ElementTree.fromstring(tiff.ome_metadata)
        for pixels in root.findall("o:Image/o:Pixels", OME):
            assert float(pixels.get("PhysicalSizeX")) == float(pixels.get("PhysicalSizeY")) == MPP
            assert pixels.get("PhysicalSizeXUnit") == "µm"
        for series in tiff.series:
            for level, image in enumerate(series.levels):
                page = image.keyframe
                assert page.resolutionunit == tifffile.RESUNIT.CENTIMETER
                assert page.resolution == pytest.approx((1e4 / MPP / 2**level,) * 2)


def test_openslide_shows_the_classes_colours(store, path):
    with openslide.OpenSlide(path) as slide:
        assert slide.level_count == 1  # it knows no SubIFDs
        assert slide.dimensions == (store.grid.width, store.grid.height)
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(MPP)
        seen = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
    table = np.full((256, 3), 255, np.uint8)
    table[:4] = PALETTES["bcss"].colors
    np.testing.assert_array_equal(seen, table[store.read_labels(store.grid.box)])


def test_names_and_colours_of_classes_are_in_the_xml(path):
    with tifffile.TiffFile(path) as tiff:
        root = ElementTree.fromstring(tiff.ome_metadata)
        values = root.findall("o:StructuredAnnotations/o:MapAnnotation/o:Value/o:M", OME)
    notes = {value.get("K"): value.text for value in values}
    assert notes["class 2"] == "Immune cells"
    assert notes["color 2"] == "#a05aa0"
    assert notes["class 255"] == "background"
    assert notes["slide"] == "one å.svs"


def test_names_that_xml_cannot_hold(tmp_path):
    palette = Palette(('<&"\x00\ud800>', "Stroma ä"), ((1, 2, 3), (4, 5, 6)))
    store = make_store(tmp_path / "s.zarr", np.zeros((64, 64), np.uint8), 64, palette)
    with tifffile.TiffFile(export_ome_tiff(store, tmp_path / "s.ome.tiff")) as tiff:
        root = ElementTree.fromstring(tiff.ome_metadata)
    values = [value.text for value in root.iterfind(".//o:M", OME)]
    assert {'<&"��>', "Stroma ä"} <= set(values)


@pytest.mark.parametrize("compression", ["deflate", "zstd"])
def test_workers_change_no_byte(store, tmp_path, compression):
    files = [
        export_ome_tiff(store, tmp_path / f"{n}.tif", compression=compression, workers=n)
        for n in (1, 3)
    ]
    assert files[0].read_bytes() == files[1].read_bytes()
    with tifffile.TiffFile(files[0]) as tiff:
        np.testing.assert_array_equal(tiff.asarray(), store.read_labels(store.grid.box))


@pytest.mark.parametrize(("block", "size"), [(64, (70, 1)), (192, (1000, 700)), (448, (900, 449))])
def test_blocks_that_fit_no_tile(tmp_path, block, size):
    """Tiles of 64 px are too small to be good, so windows and blocks do not meet."""
    rng = np.random.default_rng(0)
    labels = rng.choice(np.array([0, 1, 2, 3, BACKGROUND], np.uint8), size)
    store = make_store(tmp_path / "s.zarr", labels, block)
    with tifffile.TiffFile(export_ome_tiff(store, tmp_path / "s.ome.tiff")) as tiff:
        for level, image in enumerate(tiff.series[0].levels):
            want = store.read_labels(store.level_box(level), level)
            np.testing.assert_array_equal(image.asarray(), want)


def test_a_bigtiff_where_four_gigabytes_might_not_do(store, tmp_path, monkeypatch):
    monkeypatch.setattr(pyramid, "_CLASSIC", 100_000)
    with tifffile.TiffFile(export_ome_tiff(store, tmp_path / "b.ome.tiff")) as tiff:
        assert tiff.is_bigtiff
        np.testing.assert_array_equal(tiff.asarray(), store.read_labels(store.grid.box))


def test_without_confidence(store, tmp_path):
    path = export_ome_tiff(store, tmp_path / "c.ome.tiff", confidence=False)
    with tifffile.TiffFile(path) as tiff:
        assert [series.name for series in tiff.series] == ["classes"]


def test_channels_of_one_image(tmp_path):
    """As probabilities are: a plane a class, in the class's colour."""
    planes = np.random.default_rng(0).integers(0, 255, (3, 40, 30)).astype(np.uint8)

    def read(channel):
        def window(level, box):
            padded = np.pad(planes[channel], ((0, 512), (0, 512)))
            return padded[box.slices()]

        return window

    picture = pyramid.Picture(
        "probabilities",
        tuple(pyramid.Plane(f"class {i}", read(i), (i, 255, 0)) for i in range(3)),
        (pyramid.Size(30, 40),),
        mpp=2.0,
    )
    pyramid.write_pyramids(tmp_path / "p.ome.tiff", [picture])
    with tifffile.TiffFile(tmp_path / "p.ome.tiff") as tiff:
        (series,) = tiff.series
        assert series.axes == "CYX"
        np.testing.assert_array_equal(series.asarray(), planes)
        channels = ElementTree.fromstring(tiff.ome_metadata).iterfind(".//o:Channel", OME)
        colors = [int(channel.get("Color")) & 0xFFFFFFFF for channel in channels]
    assert colors == [0x00FF00FF, 0x01FF00FF, 0x02FF00FF]


def test_what_fails_leaves_nothing(store, tmp_path, monkeypatch):
    path = tmp_path / "x.ome.tiff"
    path.write_bytes(b"before")

    def fail(tile, compression):
        raise RuntimeError("no room")

    monkeypatch.setattr(pyramid, "_compress", fail)
    with pytest.raises(RuntimeError, match="no room"):
        export_ome_tiff(store, path)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"before"]


def test_labels_must_be_finished(tmp_path):
    SlideStore.create(tmp_path / "s.zarr", TileGrid(64, 64, 64, 64, 64), 0.5, {"name": "a"})
    with pytest.raises(StoreError, match=r"`wsiseg stitch` did not finish here"):
        export_ome_tiff(SlideStore(tmp_path / "s.zarr"), tmp_path / "s.ome.tiff")
