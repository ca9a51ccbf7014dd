import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.export.stores import MPP
from wsiseg.annotations import PALETTES, Annotations, Palette
from wsiseg.errors import DataError
from wsiseg.export import export_masks, export_png, masks
from wsiseg.export.masks import name_files
from wsiseg.geometry import Size


@pytest.fixture
def size(labels):
    return Size(labels.shape[1], labels.shape[0])


def test_the_picture_holds_labels_colours_and_resolution(annotations, size, labels, tmp_path):
    path = export_png(annotations, size, tmp_path / "a" / "one.png")
    with Image.open(path) as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), labels)
        assert picture.getpalette()[:12] == [c for rgb in PALETTES["bcss"].colors for c in rgb]
        assert picture.info["dpi"] == pytest.approx((25400 / MPP,) * 2, rel=1e-4)


def test_masks_are_the_classes(annotations, size, labels, tmp_path):
    paths = export_masks(annotations, size, tmp_path)
    assert [path.name for path in paths] == [
        "classes_0.4mpp.png", "Tumor_0.4mpp.png", "Stroma_0.4mpp.png", "Immune_cells_0.4mpp.png",
        "Necrosis_0.4mpp.png",
    ]  # fmt: skip
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    with Image.open(paths[0]) as picture:
        np.testing.assert_array_equal(np.asarray(picture), labels)
    for label, path in enumerate(paths[1:]):
        with Image.open(path) as mask:
            np.testing.assert_array_equal(np.asarray(mask), labels == label)
            np.testing.assert_array_equal(np.asarray(mask.convert("L")), 255 * (labels == label))


def test_coarser_masks(annotations, size, labels, tmp_path):
    paths = export_masks(annotations, size, tmp_path, mpp=4 * MPP)
    assert paths[1].name == "Tumor_1.6mpp.png"
    with Image.open(paths[1]) as mask:
        np.testing.assert_array_equal(np.asarray(mask), labels[2::4, 2::4] == 0)


def test_pyramids_where_a_png_does_not_fit(annotations, size, labels, tmp_path, monkeypatch):
    monkeypatch.setattr(masks, "LARGEST_PNG", 100_000)
    paths = export_masks(annotations, size, tmp_path)
    assert [path.name for path in paths][:2] == ["classes_0.4mpp.ome.tiff", "Tumor_0.4mpp.ome.tiff"]
    for label, path in enumerate(paths, start=-1):
        with tifffile.TiffFile(path) as tiff:
            (series,) = tiff.series
            assert len(series.levels) == 2
            for level, image in enumerate(series.levels):
                step, first = 2**level, 2**level // 2
                part = np.pad(labels, ((0, 4), (0, 4)), constant_values=255)[
                    first::step, first::step
                ]
                got = image.asarray()
                part = part[: got.shape[0], : got.shape[1]]
                np.testing.assert_array_equal(got, part if label < 0 else 255 * (part == label))
            assert f'PhysicalSizeX="{MPP}"' in tiff.ome_metadata
    with pytest.raises(DataError, match=r"one\.png: 900 x 700 px are too many .* of 1\.01"):
        export_png(annotations, size, tmp_path / "one.png", mpp=MPP)
    export_png(annotations, size, tmp_path / "one.png", mpp=1.01)
    with Image.open(export_png(annotations, size, tmp_path / "one.png")) as picture:
        np.testing.assert_array_equal(np.asarray(picture), labels[2::4, 2::4])


def test_names_are_sane_and_unique():
    names = name_files(["classes", "Tumor", "tumor", "a/b\\c: d", "...", "", "Classes", "µ-Å"])
    assert names == ["classes", "Tumor", "tumor_2", "a_b_c_d", "class", "class_2", "Classes_2",
                     "µ-Å"]  # fmt: skip
    long = name_files(["µ" * 300, "µ" * 299 + "x"])
    assert len(set(long)) == 2
    assert max(len(name.encode()) for name in long) < 160
    tricky = name_files(["a", "a", "a_2", "A_2"])
    assert len({name.casefold() for name in tricky}) == 4


def test_a_slide_without_regions(tmp_path):
    empty = Annotations("a.svs", Palette(("x",), ((1, 2, 3),)), (), (1.0, 1.0), 0.5)
    paths = export_masks(empty, Size(3, 2), tmp_path)
    for path in paths:
        with Image.open(path) as picture:
            assert picture.size == (3, 2)
            assert np.asarray(picture).all() == (path is paths[0])
