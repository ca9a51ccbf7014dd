from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from tests.trace.rasters import Labels, cut, rasters, squares
from wsiseg.annotations import BACKGROUND
from wsiseg.geometry import Box
from wsiseg.trace import absorb_small, find_contacts, margin_box, paint_block

o = BACKGROUND


def limits_for(region: float, hole: float) -> NDArray[np.float64]:
    limits = np.full(256, float(region))
    limits[BACKGROUND] = hole
    return limits


def absorb(labels: Labels, region: float, hole: float, block: int) -> Labels:
    """The raster that the blocks paint."""
    raster, limits = Box(0, 0, labels.shape[1], labels.shape[0]), limits_for(region, hole)
    seen = {
        i: cut(labels, margin_box(square, raster)) for i, square in squares(labels, block).items()
    }
    contacts = {i: find_contacts(view, limits) for i, view in seen.items()}
    new = absorb_small(contacts, -(-raster.width // block), limits, BACKGROUND)
    out = np.empty_like(labels)
    for i, square in squares(labels, block).items():
        painted = paint_block(seen[i], new[i])[1 : square.height + 1, 1 : square.width + 1]
        out[square.slices()] = painted
    return out


def components(labels: Labels) -> NDArray[np.int64]:
    """A number for each 4-connected component, background's too."""
    numbers, count = np.zeros(labels.shape, int), 0
    for label in np.unique(labels):
        found, n = ndimage.label(labels == label)
        numbers[found > 0] = found[found > 0] + count
        count += n
    return numbers


def find_islands(small: set[int], touching: Counter[tuple[int, int]]) -> list[set[int]]:
    """The small components by those that they touch, through other small ones too."""
    islands = []
    while small:
        island, grown = set[int](), {min(small)}
        while island != grown:
            island = grown
            grown = island | {b for (a, b) in touching if a in island and b in small}
        islands.append(island)
        small = small - island
    return islands


def absorb_slowly(labels: Labels, region: float, hole: float) -> Labels:
    """The rule as it is said, on the whole raster with the outside around it."""
    padded = np.pad(labels, 1, constant_values=BACKGROUND)
    of, limits = components(padded), limits_for(region, hole)
    label_of = {int(c): int(padded[of == c][0]) for c in np.unique(of)}
    touching: Counter[tuple[int, int]] = Counter()
    for one, two in ((of[1:], of[:-1]), (of[:, 1:], of[:, :-1])):
        for a, b in zip(one.ravel().tolist(), two.ravel().tolist(), strict=True):
            if a != b:
                touching.update([(a, b), (b, a)])
    large = {c for c, label in label_of.items() if (of == c).sum() >= limits[label]} | {of[0, 0]}
    for island in find_islands(label_of.keys() - large, touching):
        pieces = {c: int((of == c).sum()) for c in island if label_of[c] != BACKGROUND}
        beside = {b for (a, b) in touching if a in island} & large
        if sum(pieces.values()) >= region and all(label_of[b] == BACKGROUND for b in beside):
            large |= {min(pieces, key=lambda c: (-pieces[c], label_of[c]))} if pieces else set()
    settled = {c for c in large if label_of[c] != BACKGROUND}
    while True:
        chosen = {}
        for c in label_of.keys() - settled - large:
            shared: Counter[int] = Counter()
            for (a, b), length in touching.items():
                if a == c and b in settled:
                    shared[label_of[b]] += length
            if shared:
                chosen[c] = min(shared, key=lambda label: (-shared[label], label))
        if not chosen:
            break
        label_of.update(chosen)
        settled |= chosen.keys()
    label_of.update(dict.fromkeys(label_of.keys() - settled - large, BACKGROUND))
    return np.vectorize(label_of.get)(of)[1:-1, 1:-1].astype(np.uint8)


@settings(max_examples=80, deadline=None)
@given(
    labels=rasters(st.tuples(st.integers(1, 12), st.integers(1, 12))),
    region=st.sampled_from([0, 2, 5, 20]),
    hole=st.sampled_from([0, 2, 5, 20]),
    block=st.integers(1, 20),
)
def test_equals_the_slow_way_for_every_block_size(
    labels: Labels, region: float, hole: float, block: int
) -> None:
    got = absorb(labels, region, hole, block)
    np.testing.assert_array_equal(got, absorb_slowly(labels, region, hole))


@settings(max_examples=80, deadline=None)
@given(labels=rasters(), region=st.integers(0, 30), hole=st.integers(0, 30))
def test_nothing_small_is_left_and_no_gap_is_made(labels: Labels, region: int, hole: int) -> None:
    got = absorb(labels, region, hole, 9)
    padded = np.pad(got, 1, constant_values=BACKGROUND)
    of, limits = components(padded), limits_for(region, hole)
    for c in np.unique(of[of != of[0, 0]]):
        assert (of == c).sum() >= limits[padded[of == c][0]]
    # Tissue becomes background only where a whole island of it is below the limit.
    islands, _ = ndimage.label(labels != BACKGROUND)
    lost = islands[(labels != BACKGROUND) & (got == BACKGROUND)]
    for island in np.unique(lost):
        assert (got[islands == island] == BACKGROUND).all()
        assert (islands == island).sum() < region


def test_no_limit_changes_nothing() -> None:
    labels = np.random.default_rng(3).integers(0, 4, (40, 50)).astype(np.uint8)
    np.testing.assert_array_equal(absorb(labels, 0, 0, 16), labels)


@pytest.mark.parametrize("block", [3, 64])
def test_by_hand(block: int) -> None:
    labels = np.array(
        [
            [o, o, o, o, o, o, o, o],
            [o, 0, 0, 0, 1, 1, 1, o],
            [o, 0, o, 0, 1, 1, 2, o],
            [o, 0, 0, 2, 1, 1, 1, o],
            [o, 0, 0, 0, 1, 1, 1, o],
            [o, o, o, o, o, o, o, o],
            [o, 2, 2, o, o, o, o, 1],
        ],
        np.uint8,
    )
    want = labels.copy()
    want[2, 2] = 0  # the hole
    want[3, 3] = 0  # three edges with 0, one with 1
    want[2, 6] = 1  # a class before background
    want[6, 1:3] = want[6, 7] = o  # islands
    np.testing.assert_array_equal(absorb(labels, 3, 3, block), want)
    want[2, 2] = o
    np.testing.assert_array_equal(absorb(labels, 3, 0, block), want)
    np.testing.assert_array_equal(absorb(labels, 99, 99, block), np.full_like(labels, o))


@pytest.mark.parametrize("block", [3, 64])
def test_an_island_of_small_regions_that_is_large_is_kept(block: int) -> None:
    labels = np.full((10, 14), o, np.uint8)
    labels[1:5, 1:9] = np.kron([[3, 2], [0, 1]], np.ones((2, 4), int))  # four of 8 pixels each
    labels[1, 1] = o
    labels[6:8, 1:9] = [[1, 1, 1, 1, 3, 3, 3, 3]] * 2  # 16 pixels: an island too small
    labels[8, 9:13] = 2  # touches it at a corner only
    want = labels.copy()
    want[1:5, 1:9] = 0  # of the three largest, the lowest label
    want[1, 1] = want[6:9] = o
    np.testing.assert_array_equal(absorb(labels, 20, 0, block), want)
    want[6:8, 1:9] = 1
    np.testing.assert_array_equal(absorb(labels, 16, 0, block), want)
