import numpy as np
import pytest
import shapely

from tests.qupath.form.test_java_area import staircase
from wsiseg.qupath import Feature, restore_outlines
from wsiseg.qupath.form.java_area import cut_rows


def feature(shape, identity="a", name="Tumor"):
    return Feature(None, shape, {"classification": name}, identity)


WHOLE = shapely.Polygon(staircase(1537))  # Java cuts it at 512, 1024 and 1536
ROWS = [0, *cut_rows(staircase(1537)).tolist(), 1537]


def without(*pieces):
    """What QuPath's `Polygonizer` leaves of it: some of the strips."""
    strips = [
        shapely.intersection(WHOLE, shapely.box(-9, ROWS[i], 99, ROWS[i + 1]))
        for i in range(4)
        if i not in pieces
    ]
    parts = [part for part in shapely.get_parts(strips) if part.geom_type == "Polygon"]
    return shapely.MultiPolygon(parts) if len(parts) > 1 else parts[0]


@pytest.mark.parametrize("lost", [(1, 3), (0, 2), (1, 2, 3), (0, 1, 3)])
def test_what_lost_whole_pieces_is_whole_again(lost):
    exported = feature(without(*lost), name="Stroma")
    (restored,), count = restore_outlines([exported], [feature(WHOLE)])
    assert count == 1
    assert restored.geometry.equals(WHOLE)
    assert restored.class_name == "Stroma", "the person's class stays"


def test_rounding_does_not_hide_it():
    moved = shapely.transform(without(1, 3), lambda points: points + 0.004)
    assert restore_outlines([feature(moved)], [feature(WHOLE)])[1] == 1


@pytest.mark.parametrize(
    "shape",
    [
        WHOLE,
        shapely.box(0, 0, 9, 300),
        shapely.intersection(WHOLE, shapely.box(0, 0, 9, 1000)),  # cut elsewhere, by hand
        shapely.difference(without(1, 3), shapely.box(4, 100, 6, 110)),  # edited after it was lost
        shapely.union(without(1, 3), shapely.box(20, 0, 30, 10)),
        shapely.Point(1, 1),
    ],
    ids=["whole", "other", "cut", "hole", "more", "point"],
)
def test_what_somebody_drew_stays(shape):
    (kept,), count = restore_outlines([feature(shape)], [feature(WHOLE)])
    assert count == 0
    assert kept.geometry.equals(shape)


def test_only_the_same_id_and_an_outline_that_java_cuts():
    lost = feature(without(1, 3))
    for own in (feature(WHOLE, "b"), feature(WHOLE, None), feature(shapely.box(0, 0, 9, 1537))):
        assert restore_outlines([lost, feature(WHOLE, None)], [own])[1] == 0
    holed = shapely.Polygon(staircase(1537), [np.array([(3, 3), (3, 5), (5, 5), (3, 3)])])
    assert restore_outlines([lost], [feature(holed)])[1] == 0
