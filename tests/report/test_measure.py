import numpy as np
import pytest

from wsiseg.annotations import PALETTES, Annotations, Region
from wsiseg.report import measure_classes

RING = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]], np.int32)


def annotate(*regions):
    made = tuple(Region(label, RING, (), area, trust) for label, area, trust in regions)
    return Annotations("case.svs", PALETTES["bcss"], made, (2.0, 2.0), 0.5)


def test_each_class_has_a_row_in_palette_order():
    rows = measure_classes(annotate((1, 4_000_000, 0.5), (1, 12_000_000, 0.9), (3, 8, 1.0)), 16.0)
    assert [row["class"] for row in rows] == ["Tumor", "Stroma", "Immune cells", "Necrosis"]
    assert rows[1] == {
        "slide": "case.svs", "class": "Stroma", "area_mm2": 4.0, "fraction_of_tissue": 0.25,
        "n_regions": 2, "mean_confidence": 0.8,
    }  # fmt: skip
    assert rows[0]["area_mm2"] == 0
    assert rows[0]["mean_confidence"] == ""
    assert rows[3]["area_mm2"] == pytest.approx(2e-6)


def test_no_tissue_divides_by_nothing():
    assert {row["fraction_of_tissue"] for row in measure_classes(annotate(), 0.0)} == {0.0}
