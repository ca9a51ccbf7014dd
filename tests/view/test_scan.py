import numpy as np
import pytest

from wsiseg.view.scan import scan_coordinates


def scan(*texts):
    whole = "|".join(texts).encode()
    lengths = np.array([len(text) for text in texts])
    stops = np.cumsum(lengths + 1) - 1
    return scan_coordinates(whole, (stops - lengths).astype(np.int64), stops.astype(np.int64))


def test_points_rings_and_owners_are_those_of_the_text():
    points, lengths, rings = scan(
        "[[[0,0],[1.5,0],[-1.25,20],[0,0]],[[7,7],[8,7],[7,7]]]",
        "[[[[3,3],[4,3],[3,3]]],[[[5,5],[6,5],[5,5]]]]",
    )
    assert points[:4].tolist() == [[0, 0], [150, 0], [-125, 2000], [0, 0]]
    assert lengths.tolist() == [4, 3, 3, 3]
    assert rings.tolist() == [2, 2]


@pytest.mark.parametrize(
    "text",
    [
        "[[[0,0],[1e5,0],[1,1]]]",
        "[[[0, 0],[1,0],[1,1]]]",
        "[[[0,0,5],[1,0,5],[1,1,5]]]",
        "[[[0.123,0],[1,0],[1,1]]]",
        "[[[0,0],[1,0],[1]]]",
        "[[[0,0],[1,0],[1,99999999999999999999]]]",
        "[[[0,0],[1,0],null]]",
        "[[[0,0],[1.0.0,0],[1,1]]]",
    ],
)
def test_what_is_written_otherwise_is_refused_not_misread(text):
    with pytest.raises(ValueError, match="not written as wsiseg writes"):
        scan(text)
