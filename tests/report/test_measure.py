import math
from dataclasses import replace

import numpy as np
import pytest

from tests.trace.rasters import blobs
from wsiseg.annotations import BACKGROUND, PALETTES, Annotations, Region
from wsiseg.report import measure, measure_classes
from wsiseg.trace import trace_regions

RING = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]], np.int32)


def annotate(*regions):
    made = tuple(Region(label, RING, (), area, trust) for label, area, trust in regions)
    return Annotations("case.svs", PALETTES["bcss"], made, (2.0, 2.0), 0.5)


def test_each_class_has_a_row_in_palette_order():
    rows = measure_classes(annotate((1, 4_000_000, 0.5), (1, 12_000_000, 0.9), (3, 8, 1.0)), 16.0)
    assert [row["class"] for row in rows] == ["Tumor", "Stroma", "Immune cells", "Necrosis"]
    assert rows[1] == {
        "slide": "case.svs", "class": "Stroma", "area_mm2": 4.0, "fraction_of_tissue": 0.25,
        "n_regions": 2, "perimeter_um": 4.0, "crofton_um": pytest.approx(math.pi),
        "mean_confidence": 0.8, "color": "#96c896",
    }  # fmt: skip
    assert rows[0]["area_mm2"] == 0
    assert rows[0]["mean_confidence"] == ""
    assert rows[3]["area_mm2"] == pytest.approx(2e-6)


def test_no_tissue_divides_by_nothing():
    assert {row["fraction_of_tissue"] for row in measure_classes(annotate(), 0.0)} == {0.0}


def count_edges(labels, label):
    """Pixel edges between a class and anything else, the slow way."""
    inside = np.pad(labels == label, 1)
    return sum((inside != np.roll(inside, 1, axis)).sum() for axis in (0, 1))


@pytest.mark.parametrize("chunk", [1, 7, 4096])
def test_the_perimeter_is_the_length_of_all_pixel_edges(monkeypatch, chunk):
    monkeypatch.setattr(measure, "_CHUNK", chunk)
    labels = blobs((90, 120), 4, 2)
    regions = trace_regions(labels)
    assert any(region.holes for region in regions)
    # Regions of one class that only touch share no edge, so a class's edges are its regions'.
    rows = measure_classes(Annotations("a", PALETTES["bcss"], tuple(regions), (1, 1), 0.5), 1.0)
    for label, row in enumerate(rows):
        assert row["perimeter_um"] == pytest.approx(0.5 * count_edges(labels, label))
        assert row["crofton_um"] == pytest.approx(row["perimeter_um"] * math.pi / 4)


@pytest.mark.parametrize("mpp", [0.25, 1.0])
def test_the_corrected_perimeter_of_discs_is_theirs(mpp):
    y, x = np.indices((600, 600)) * mpp
    radius = 60.0
    distance = np.hypot(y - 300 * mpp, x - 300 * mpp)
    labels = np.where(distance < radius, 0, BACKGROUND).astype(np.uint8)
    made = Annotations("a", PALETTES["bcss"], tuple(trace_regions(labels)), (1, 1), mpp)
    row = measure_classes(made, 1.0)[0]
    assert row["crofton_um"] == pytest.approx(2 * math.pi * radius, rel=0.01)
    assert row["perimeter_um"] == pytest.approx(8 * radius, rel=0.01)


def test_borders_in_fractions_of_a_pixel():
    regions = tuple(trace_regions(blobs((50, 60), 4, 2)))
    fine = tuple(
        replace(
            one,
            exterior=one.exterior * 4,
            holes=tuple(hole * 4 for hole in one.holes),
            area_px=one.area_px * 16,
        )
        for one in regions
    )
    made = Annotations("a", PALETTES["bcss"], regions, (1, 1), 0.5)
    same = replace(made, regions=fine, scale=(0.25, 0.25), mpp=0.125)
    assert measure_classes(same, 1.0) == measure_classes(made, 1.0)
