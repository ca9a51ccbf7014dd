"""Labels of ImageScope and ASAP, as these programs write them."""

import numpy as np
import pytest

from .slides import BOUNDS, TILE
from .test_forms import read, square, tiles_of


def vertices(ring):
    return "".join(f'<Vertex X="{x + BOUNDS[0]}" Y="{y + BOUNDS[1]}" Z="0"/>' for x, y in ring)


def region(ring, number=1, kind=0, negative=0, text=""):
    return (
        f'<Region Id="{number}" Type="{kind}" Zoom="0.5" Selected="0" ImageLocation="" '
        f'ImageFocus="-1" Length="1" Area="1" LengthMicrons="1" AreaMicrons="1" Text="{text}" '
        f'NegativeROA="{negative}" InputRegionId="0" Analyze="1" DisplayId="{number}">'
        f"<Attributes/><Vertices>{vertices(ring)}</Vertices></Region>"
    )


def imagescope(*layers, mpp=0.25):
    body = "".join(
        f'<Annotation Id="{at}" Name="{name}" ReadOnly="0" Type="4" LineColor="65280" Visible="1">'
        f'<Attributes><Attribute Name="Description" Id="0" Value="{described}"/></Attributes>'
        f"<Regions><RegionAttributeHeaders/>{''.join(regions)}</Regions><Plots/></Annotation>"
        for at, (name, described, regions) in enumerate(layers, 1)
    )
    head = f'<?xml version="1.0" encoding="UTF-8"?><Annotations MicronsPerPixel="{mpp}">'
    return f"{head}{body}</Annotations>"


def test_imagescope_layers_negative_regions_ellipses_and_rulers(tmp_path):
    low, high = square(3, 3)[0], square(3, 3)[2]
    text = imagescope(
        ("Pink", "", [region(square(0, 0, 2, 2)[:4]), region(square(0, 0), 2, negative=1)]),
        ("", "Blue", [region([low, high], 1, kind=2), region([low, high], 2, kind=4)]),
    )
    found = read(tmp_path, text, "one.xml")
    assert found.problems == ()
    labels = tiles_of(found)
    assert {tile for tile, label in labels.items() if label == (1, 0)} == {(0, 1), (1, 0), (1, 1)}
    assert labels[3, 3] == (0, 1)
    assert any("lines, arrows or rulers" in note for note in found.notes)


def test_imagescope_of_another_magnification(tmp_path):
    text = imagescope(("Pink", "", [region(square(0, 0))]), mpp=0.5)
    (problem,) = read(tmp_path, text, "one.xml").problems[:1]
    assert "was drawn at 0.5 µm/px, the slide has 0.25" in problem


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<Annotations><Annotation", "is not XML, or was cut off"),
        ("<Other/>", "its outermost element is <Other>"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><Annotations/>', "declares a document type"),
        (
            imagescope(("Pink", "", [region(square(0, 0))])).replace('Y="0"', 'Y="a"'),
            r"layer 1, region 1: Y is 'a'",
        ),
    ],
)
def test_broken_xml_names_file_and_place(tmp_path, text, message):
    (problem,) = read(tmp_path, text, "one.xml").problems
    assert "one.xml" in problem
    assert message in problem


# -- ASAP ----------------------------------------------------------------------------------------


def asap(name, kind, group, ring):
    points = "".join(
        f'<Coordinate Order="{at}" X="{x + BOUNDS[0]}" Y="{y + BOUNDS[1]}" />'
        for at, (x, y) in enumerate(ring)
    )
    return (
        f'<Annotation Name="{name}" Type="{kind}" PartOfGroup="{group}" Color="#F4FA58">'
        f"<Coordinates>{points}</Coordinates></Annotation>"
    )


def test_asap_groups_dots_and_the_decimal_comma(tmp_path):
    dot = np.mean(square(3, 0)[:4], 0).tolist()
    body = "".join(
        [
            asap("a", "Rectangle", "Pink", square(0, 0)[:4]),
            asap("b", "Polygon", "Blue", square(0, 4)[:4]).replace(".0", ",0"),
            asap("c", "Dot", "Pink", [dot]),
            asap("d", "Polygon", "None", square(2, 2)),
            asap("e", "Measurement", "Pink", square(2, 2)[:2]),
        ]
    )
    text = (
        f'<?xml version="1.0"?><ASAP_Annotations><Annotations>{body}</Annotations>'
        '<AnnotationGroups><Group Name="Pink" PartOfGroup="None" Color="#00ff00">'
        "<Attributes /></Group></AnnotationGroups></ASAP_Annotations>"
    )
    found = read(tmp_path, text, "one.xml")
    assert found.problems == ()
    labels = tiles_of(found)
    assert (labels.pop((0, 0)), labels.pop((0, 4))) == ((1, 0), (0, 1))
    ((tile, label),) = labels.items()
    assert (tile, label[0]) == ((3, 0), 1)
    assert {note.split(": ", 1)[1] for note in found.notes} == {
        "1 of type Measurement skipped: draw an area or a dot",
        "1 without a class (a group) skipped",
    }


def test_asap_points_are_in_their_order_however_it_is_written(tmp_path):
    first, second, third, last = square(0, 0)[:4]
    body = asap("a", "Polygon", "Pink", [first, third, second, last])
    body = body.replace('Order="2"', 'Order="1,0"').replace('Order="1"', 'Order="2.0"')
    text = f"<ASAP_Annotations>{body}</ASAP_Annotations>"
    found = read(tmp_path, text, "one.xml")
    assert found.problems == ()
    assert found.slides[0].area_mm2[0] == pytest.approx((TILE * 0.5 / 1000) ** 2)
    (problem,) = read(tmp_path, text.replace('"2.0"', '"second"'), "one.xml").problems
    assert "one.xml: annotation 0 ('a'): Order is 'second'; it needs to be a number" in problem
