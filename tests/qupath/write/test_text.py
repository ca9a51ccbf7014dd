import hashlib
import json
import uuid
from decimal import Decimal

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from wsiseg.qupath.write.text import format_ids, format_rings, mark_rings

NUMBERS = st.integers(-(10**11), 10**11) | st.integers(-1000, 1000)
RINGS = st.lists(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=5), max_size=4)


def spell(hundredths: int) -> str:
    """The shortest decimal."""
    text = format(Decimal(hundredths) / 100, ".2f").rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


@settings(max_examples=200, deadline=None)
@given(RINGS)
def test_rings_are_spelled_as_short_as_can_be(rings):
    lengths = [len(ring) for ring in rings]
    points = np.array([point for ring in rings for point in ring], np.int64).reshape(-1, 2)
    found = format_rings(points, np.cumsum(lengths, dtype=np.intp) - lengths)
    expected = ["[" + ",".join(f"[{spell(x)},{spell(y)}]" for x, y in ring) + "]" for ring in rings]
    assert [text.decode() for text in found] == expected
    assert all(json.loads(text) for text in found)


def test_no_room_is_too_small():
    """The longest numbers, alone in their ring."""
    points = np.array([[-(10**11) + 1, -1], [-1, -(10**11) + 1]], np.int64)
    assert format_rings(points, np.array([0, 1])) == [
        b"[[-999999999.99,-0.01]]", b"[[-0.01,-999999999.99]]",
    ]  # fmt: skip


def test_ids_are_those_of_uuid5():
    names = ["", "a", "b" * 100]
    digests = b"".join(
        hashlib.sha1(uuid.NAMESPACE_URL.bytes + name.encode()).digest() for name in names
    )
    expected = [str(uuid.uuid5(uuid.NAMESPACE_URL, name)).encode() for name in names]
    assert format_ids(digests) == expected
    assert format_ids(b"") == []


def mark(*rings):
    points = np.concatenate(rings).astype(np.int32)
    bounds = np.cumsum([0, *map(len, rings)])
    marks = np.empty((1, 3), np.int64)
    mark_rings(points, bounds, np.zeros(len(rings), np.intp), marks)
    return tuple(marks[0].tolist())


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=3, unique=True),
       st.integers(0, 20), st.booleans(), st.integers(0, 20))  # fmt: skip
def test_a_mark_knows_every_vertex_but_not_where_a_ring_starts(ring, turn, flip, which):
    turn, which = turn % len(ring), which % len(ring)
    turned = [*ring[turn:], *ring[:turn]][:: -1 if flip else 1]
    found = mark([*ring, ring[0]])
    assert found[:2] == min(ring, key=lambda point: point[::-1])
    assert mark([*turned, turned[0]]) == found
    moved = [(x + 1000 * (i == which), y) for i, (x, y) in enumerate(ring)]
    assert mark([*moved, moved[0]])[2] != found[2]


def test_holes_count_in_a_mark_but_not_for_its_corner():
    shell = [[0, 0], [9, 0], [9, 9], [0, 0]]
    hole = [[-5, -5], [-4, -5], [-4, -4], [-5, -5]]  # wherever it lies
    assert mark(shell)[:2] == mark(shell, hole)[:2] == (0, 0)
    assert mark(shell)[2] != mark(shell, hole)[2]
