import gzip
import json
import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.qupath.regions import HOLE, SQUARE, annotate, make_region
from wsiseg.qupath import lint_geojson, write_geojson
from wsiseg.qupath.write.parts import count_vertices, is_part, split_regions, write_parts

BOXES = st.lists(
    st.tuples(*[st.integers(0, 1000)] * 2, *[st.integers(1, 300)] * 2, st.integers(1, 50)),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(BOXES, st.integers(1, 200))
def test_every_region_is_in_one_light_group(rows, limit):
    table = np.array(rows, np.int64).reshape(-1, 5)
    boxes = np.concatenate([table[:, :2], table[:, :2] + table[:, 2:4]], axis=1).astype(float)
    groups = split_regions(boxes, table[:, 4], limit)
    assert sorted(i for group in groups for i in group) == list(range(len(rows)))
    for group in groups:
        assert list(group) == sorted(group)
        assert len(group) == 1 or table[group, 4].sum() <= limit


def test_neighbours_stay_together_and_long_regions_apart():
    x, y = np.meshgrid(np.arange(16) * 10.0, np.arange(16) * 10.0)
    boxes = np.stack([x, y, x + 5, y + 5], axis=2).reshape(-1, 4)
    boxes = np.concatenate([boxes, [[0, 0, 160, 3]]])
    long, *groups = split_regions(boxes, np.ones(257, int), 16)
    assert list(long) == [256]
    assert len(groups) == 16
    for group in groups:  # 4 x 4 neighbours
        assert np.ptp(boxes[group], axis=0).max() == 30


def test_parts_hold_the_features_of_the_whole(tmp_path):
    regions = [
        make_region(np.add(SQUARE, (40 * i, 30 * (i % 3))), label=i % 2,
                    holes=[np.add(HOLE, (40 * i, 30 * (i % 3)))] if i % 5 == 0 else [])
        for i in range(30)
    ]  # fmt: skip
    annotations = annotate(regions, origin=(7, -5), provenance={"model": "tiny"})
    whole = write_geojson(annotations, tmp_path / "case.geojson", "detection")
    paths = write_parts(annotations, tmp_path / "case.parts", "case", "detection", 40)
    lines = [line for path in paths for line in _lines(path)]
    assert sorted(lines) == sorted(_lines(whole))
    for number, path in enumerate(paths, 1):
        assert is_part(path)
        assert lint_geojson(path) == []
        facts = json.loads(_text(path))["wsiseg"]
        assert (facts["part"], facts["model"]) == (f"{number} of {len(paths)}", "tiny")
        x, y, w, h = map(int, re.search(r"x=(-?\d+),y=(-?\d+),w=(\d+),h=(\d+)", path.name).groups())
        points = np.concatenate([
            feature["geometry"]["coordinates"][0] for feature in json.loads(_text(path))["features"]
        ])  # fmt: skip
        assert points.min(axis=0).tolist() == [x, y]
        assert points.max(axis=0).tolist() == [x + w, y + h]


def _text(path):
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


def _lines(path):
    return [line.rstrip(b",") for line in _text(path).split(b"\n")[1:-2]]


def test_no_region_no_part(tmp_path):
    assert write_parts(annotate([]), tmp_path, "case", "annotation", 10) == []
    assert split_regions(np.empty((0, 4)), np.empty(0, int), 10) == []


def test_vertices_are_counted_with_those_of_holes():
    assert count_vertices(annotate([make_region(holes=[HOLE, HOLE]), make_region()])).tolist() == [
        15, 5,
    ]  # fmt: skip
