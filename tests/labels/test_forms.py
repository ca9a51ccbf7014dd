"""Every form that labels come in, as the other program writes it."""

import gzip
import json

import numpy as np
import pytest

from wsiseg.config import LabelConfig
from wsiseg.errors import ConfigError
from wsiseg.labels import label_slides

from .slides import BOUNDS, CLASSES, COLS, ROWS, TILE, make_store

UNKNOWN = float("nan")


def square(row, col, rows=1, cols=1):
    """Corners of tiles as QuPath shows them: a raster px is two, the bounds' corner is 0, 0."""
    left, top = (2 * TILE * at - b for at, b in zip((col, row), BOUNDS, strict=True))
    right, bottom = left + 2 * TILE * cols, top + 2 * TILE * rows
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def feature(name, geometry, **properties):
    """As QuPath 0.5 to 0.7 export an annotation."""
    if name is not None:
        properties["classification"] = {"name": name, "color": [200, 0, 0]}
    return {
        "type": "Feature", "id": "16ccf0b5-ba3f-43ac-b8f2-5cc7c958e545", "geometry": geometry,
        "properties": {"objectType": "annotation", **properties},
    }  # fmt: skip


def polygon(*rings):
    return {"type": "Polygon", "coordinates": list(rings)}


def collection(*features):
    return {"type": "FeatureCollection", "features": list(features)}


def read(tmp_path, content, name="one.geojson", classes=CLASSES, **settings):
    store = make_store(tmp_path)
    path = tmp_path / "labels" / name
    path.parent.mkdir(exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return label_slides(path.parent, [store.path], classes, LabelConfig(**settings))


def tiles_of(found):
    """Labels by tile, or by part of one."""
    (slide,) = found.slides
    places = (slide.found.corners / TILE).tolist()
    return {
        tuple(tile): tuple(label)
        for tile, label in zip(places, slide.found.labels.tolist(), strict=True)
    }


PINK = feature("Pink", polygon(square(1, 0)))
BLUE = feature("Blue", polygon(square(1, 4)))


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (collection(PINK, BLUE), "one.geojson"),
        ([PINK, BLUE], "one.json"),
        (collection(PINK, BLUE), "one.svs.geojson"),
        (collection(PINK, BLUE), "one.geojson.gz"),
        (collection(PINK, BLUE), "one.svs - Series 0.geojson"),
        (collection(PINK, BLUE), "ONE.geojson"),
    ],
)
def test_collections_and_lists_plain_and_packed(tmp_path, content, name):
    found = read(tmp_path, content, name)
    assert found.problems == ()
    assert tiles_of(found) == {(1, 0): (1, 0), (1, 4): (0, 1)}
    assert found.slides[0].regions == (1, 1)
    assert found.slides[0].area_mm2 == pytest.approx(((TILE * 0.5e-3) ** 2,) * 2)


def test_a_slide_may_have_a_dash_in_its_name(tmp_path):
    dated = "12.03.2024 - HE"
    stores = [make_store(tmp_path / "slides", name).path for name in ("12.03.2024", dated)]
    for name in (dated, f"{dated}.svs - Series 0"):
        path = tmp_path / name / f"{name}.geojson"
        path.parent.mkdir()
        path.write_text(json.dumps(collection(PINK)))
        (slide,) = label_slides(path.parent, stores).slides
        assert slide.store.path.stem == dated
    found = label_slides(tmp_path / dated, stores[:1])
    assert f"no store of slide '{dated}'" in found.unmatched[0]


def test_one_feature_and_a_class_as_plain_text(tmp_path):
    one = feature(None, polygon(square(0, 0)), classification="Pink")
    assert tiles_of(read(tmp_path, one)) == {(0, 0): (1, 0)}


def test_of_an_ellipse_as_qupath_exports_it_the_corners_are_unknown(tmp_path):
    angle = np.linspace(0, 2 * np.pi, 90)
    middle = np.mean(square(1, 1)[:4], 0)
    ring = np.round(middle + TILE * np.column_stack([np.cos(angle), np.sin(angle)]), 2).tolist()
    ring[-1] = ring[0]
    found = read(tmp_path, feature("Pink", polygon(ring), isEllipse=True))
    assert tiles_of(found) == {(1, 1): (1, 0)}
    (slide,) = found.slides
    known = slide.found.known[0]
    assert not known[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    assert known.mean() == pytest.approx(np.pi / 4, abs=0.01)
    assert slide.found.weights == pytest.approx([np.pi / 4], abs=0.01)


def test_holes_and_parts(tmp_path):
    hole = feature("Pink", polygon(square(0, 0, 3, 3), square(1, 1)))
    parts = {"type": "MultiPolygon", "coordinates": [[square(3, 0)], [square(3, 4)]]}
    found = read(tmp_path, collection(hole, feature("Blue", parts)))
    around = {(r, c): (1, 0) for r in range(3) for c in range(3) if (r, c) != (1, 1)}
    assert tiles_of(found) == {**around, (3, 0): (0, 1), (3, 4): (0, 1)}


def test_points_say_what_is_there_and_nothing_of_the_rest(tmp_path):
    x, y = np.mean(square(2, 3)[:4], 0)
    found = read(tmp_path, feature("Blue", {"type": "MultiPoint", "coordinates": [[x, y]]}))
    ((tile, label),) = tiles_of(found).items()
    assert tile == (2, 3)
    assert np.array_equal(label, (UNKNOWN, 1), equal_nan=True)


def test_derived_classes_and_typing_errors(tmp_path):
    drawn = collection(
        feature("Tumor", polygon(square(0, 0))),
        feature("Tumor", polygon(square(0, 1))),
        feature("tumor", polygon(square(0, 2))),
        feature("Tumour ", polygon(square(1, 0))),
        feature("Tumor: invasive", polygon(square(1, 1))),
        feature("Muscle", polygon(square(2, 0))),
        feature("Mucin", polygon(square(2, 1))),
        feature("Grade 3", polygon(square(3, 0))),
        feature("Grade 4", polygon(square(3, 1))),
    )
    found = read(tmp_path, drawn, classes=None)
    assert found.lookalikes == (("Tumor", "tumor", "Tumour "),)
    (advice,) = found.advise()
    assert 'make them one with --map \'{"tumor": "Tumor", "Tumour ": "Tumor"}\', or' in advice
    merged = {"Tumour ": "Tumor", "tumor": "Tumor", "Tumor: invasive": "Tumor", "Mucin": ""}
    found = read(tmp_path, drawn, classes=None, map=merged)
    assert found.classes == ("Grade 3", "Grade 4", "Muscle", "Tumor")
    assert found.lookalikes == ()
    assert found.slides[0].regions == (1, 1, 1, 5)
    apart = {"tumor": "tumor", "Tumor": "Tumor", "Tumour ": "Tumour "}
    assert read(tmp_path, drawn, classes=None, map=apart).lookalikes == ()


def test_ignored_areas_leave_their_tiles_out_and_frames_say_nothing(tmp_path):
    drawn = collection(
        feature("Pink", polygon(square(0, 0, 2, 2))),
        feature("Ignore*", polygon(square(0, 0))),
        feature("Region*", polygon(square(0, 0, 4, 5))),
    )
    assert set(tiles_of(read(tmp_path, drawn))) == {(0, 1), (1, 0), (1, 1)}


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("Ignore*", ""), ("Ignore", ""), ("ignore folds*", ""), ("Ignore*: fold", ""),
        ("Ignore folds", "['Ignore folds'] are left out, as their names begin with Ignore; rename "
         'what is a class with --map "Ignore folds=..."'),
    ],
)  # fmt: skip
def test_what_begins_with_ignore_is_left_out_and_is_no_class(tmp_path, name, note):
    drawn = collection(
        feature("Pink", polygon(square(0, 0, 2, 2))), feature(name, polygon(square(0, 0)))
    )
    found = read(tmp_path, drawn, classes=None)
    assert found.classes == ("Pink",)
    assert set(tiles_of(found)) == {(0, 1), (1, 0), (1, 1)}
    assert [text.partition(": ")[2] for text in found.notes] == [note] * bool(note)
    wanted = label_slides(tmp_path / "labels", [tmp_path], ("Pink", name))
    assert tiles_of(wanted)[0, 0] == (1, 1), "it is a class if somebody says so"


@pytest.mark.parametrize("name", ["Checked", "checked area"])
def test_a_checked_area_without_its_star_is_told(tmp_path, name):
    found = read(tmp_path, collection(PINK, feature(name, polygon(square(0, 0)))), classes=None)
    assert set(found.classes) == {"Pink", name}
    (note,) = found.notes
    assert f"['{name}'] are taken for classes; if these areas were checked, use --map" in note


def point(name, row, col, **properties):
    """A point in the middle of a tile."""
    x, y = np.mean(square(row, col)[:4], 0).tolist()
    return feature(name, {"type": "Point", "coordinates": [x, y]}, **properties)


def test_points_in_ignored_areas_say_nothing(tmp_path):
    drawn = [point("Pink", 0, 0), point("Pink", 2, 2), feature("Ignore*", polygon(square(0, 0)))]
    assert set(tiles_of(read(tmp_path, collection(*drawn)))) == {(2, 2)}


def test_points_are_replaced_by_corrections_as_areas_are(tmp_path):
    first, again = point("Pink", 0, 0), point("Pink", 1, 0, metadata={"wsiseg": "drawn"})
    later = feature("Blue", polygon(square(0, 0, 2)), metadata={"wsiseg": "drawn"})
    assert set(tiles_of(read(tmp_path, collection(first)))) == {(0, 0)}
    (slide,) = read(tmp_path, collection(first, later, again)).slides
    assert slide.found.corners.tolist() == [[0, 0], [TILE, 0], [TILE, 0]], "of one round, both"
    assert slide.found.labels[0].tolist() == [0, 1]


def test_in_a_checked_area_what_is_not_marked_is_absent(tmp_path):
    pink = feature("Pink", polygon(square(0, 0)))
    drawn = collection(pink, feature("Checked*", polygon(square(0, 0, 1, 2))))
    assert tiles_of(read(tmp_path, drawn)) == {(0, 0): (1, 0), (0, 1): (0, 0)}


def test_what_says_nothing_is_counted(tmp_path):
    drawn = collection(
        PINK,
        feature(None, polygon(square(0, 0))),
        {**BLUE, "properties": {**BLUE["properties"], "objectType": "detection"}},
        feature("Blue", {"type": "LineString", "coordinates": [[0, 0], [9, 9]]}),
    )
    found = read(tmp_path, drawn)
    assert tiles_of(found) == {(1, 0): (1, 0)}
    for part in ("1 detection(s) skipped", "1 line(s) skipped", "1 without a class"):
        assert any(part in note for note in found.notes), part


def test_what_lies_outside_the_slide_is_told_and_all_of_it_refused(tmp_path):
    far = feature("Pink", polygon(square(90, 90)))
    found = read(tmp_path, collection(PINK, far))
    assert tiles_of(found) == {(1, 0): (1, 0)}
    (told,) = found.notes
    assert told == (
        f"{tmp_path / 'labels' / 'one.geojson'}: feature 1 lies outside the slide and was skipped"
    )
    first, *_ = read(tmp_path, collection(far)).problems
    assert "one.geojson: all 1 labels lie outside the slide: they belong to another slide" in first


def test_of_what_reaches_beyond_the_slide_the_part_on_it_counts(tmp_path):
    """The corner tile and three times as much outside; and a point of two outside."""
    across = polygon(square(ROWS - 1, COLS - 1, 2, 2))
    points = {"type": "MultiPoint", "coordinates": [square(1, 0)[0], square(-9, 0)[0]]}
    found = read(tmp_path, collection(feature("Blue", across), feature("Pink", points)))
    assert tiles_of(found).keys() == {(ROWS - 1, COLS - 1), (1, 0)}
    assert found.slides[0].area_mm2 == pytest.approx((0, (TILE * 0.5e-3) ** 2))
    (told,) = found.notes
    assert told.endswith("feature 0 reaches beyond the slide and was cut there, as were 1 more")


def test_an_area_over_the_whole_slide_may_be_a_pixel_larger(tmp_path):
    (right, bottom), edge = square(ROWS, COLS)[0], BOUNDS[0]
    whole = [[-edge, -40], [right + 1, -40], [right + 1, bottom + 1], [-edge, bottom + 1]]
    found = read(tmp_path, feature("Pink", polygon([*whole, whole[0]])))
    assert len(tiles_of(found)) == ROWS * COLS
    assert found.notes == ()


def test_an_area_that_only_touches_the_slide_lies_outside(tmp_path):
    found = read(tmp_path, collection(PINK, feature("Blue", polygon(square(0, COLS)))))
    (told,) = found.notes
    assert "feature 1 lies outside the slide and was skipped" in told


@pytest.mark.parametrize(
    ("size", "told"),
    [
        ([128, 128], "was drawn on an image of 128 x 128 px, the slide has 256 x 256: it has"),
        ([256, 256], ""), ([257, 255], ""), ([640, 256], ""), ("large", ""), ([0, 0], ""),
    ],
)  # fmt: skip
def test_an_export_of_another_magnification_is_refused_and_a_cropped_one_is_not(
    tmp_path, size, told
):
    """As `qupath/export.groovy` notes it; coordinates alone would be taken as they are."""
    found = read(tmp_path, {**collection(PINK, BLUE), "wsiseg": {"size": size}})
    assert bool(found.problems) is bool(told)
    assert told in "".join(found.problems)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps(collection(PINK))[:-9], "is not JSON, or was cut off"),
        ("", "is not JSON, or was cut off"),
        ('{"type": "FeatureCollection"}', 'has a null for "features"'),
        ("{}", "feature 0: has the type None"),
        (
            json.dumps(feature("Pink", polygon([[0, 0], ["a", 1]]))),
            "(feature 0 (16ccf0b5-ba3f-43ac-b8f2-5cc7c958e545): a ring is not a list of [x, y]",
        ),
    ],
)
def test_broken_geojson_names_file_and_feature(tmp_path, text, message):
    problem, *_ = read(tmp_path, text).problems
    assert "one.geojson" in problem
    assert message in problem


@pytest.mark.parametrize(
    ("classes", "message"), [(["A", "A"], "'A' occurs 2 times"), ([""], "'' is not a class name")]
)
def test_each_class_is_given_once(tmp_path, classes, message):
    with pytest.raises(ConfigError, match=f"{message}; give each class once, by its name"):
        read(tmp_path, collection(PINK), classes=classes)
