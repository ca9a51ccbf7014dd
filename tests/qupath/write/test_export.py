import gzip
import json

import numpy as np
import pytest

from tests.qupath.regions import SQUARE, annotate, make_region
from wsiseg.config import ExportConfig
from wsiseg.errors import GeoJsonError
from wsiseg.qupath import export_geojson, lint_geojson, write_geojson
from wsiseg.qupath.write.geojson import measure_geojson

REGIONS = [make_region(np.add(SQUARE, (100 * i, 0))) for i in range(20)]  # 5 vertices each


def export(folder, name="case.geojson", regions=REGIONS, **limits):
    return export_geojson(annotate(regions), folder / name, ExportConfig(**limits))


def facts_of(path):
    data = path.read_bytes()
    return json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)["wsiseg"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_within_the_budget_nothing_is_said(tmp_path):
    written = export(tmp_path, max_objects=20, max_vertices=100)
    assert written.path == tmp_path / "case.geojson"
    assert (written.object_type, written.regions, written.vertices) == ("annotation", 20, 100)
    assert written.notes == ()
    plain = write_geojson(annotate(REGIONS), tmp_path / "plain.geojson")
    assert written.path.read_bytes() == plain.read_bytes()


def test_too_many_objects_become_detections(tmp_path):
    written = export(tmp_path, max_objects=19)
    assert written.object_type == "detection"
    (note,) = written.notes
    assert note.startswith(
        "20 regions are more than export.max_objects = 19: written as detections"
    )
    document = json.loads(written.path.read_bytes())
    assert {f["properties"]["objectType"] for f in document["features"]} == {"detection"}
    assert document["wsiseg"]["budget"] == note


def test_the_size_is_the_file_s(tmp_path):
    for name in ("a.geojson", "a.geojson.gz"):
        path = write_geojson(annotate(REGIONS), tmp_path / name)
        assert measure_geojson(annotate(REGIONS), path, "annotation") == path.stat().st_size


def test_too_many_megabytes_are_packed(tmp_path):
    size = measure_geojson(annotate(REGIONS), tmp_path / "case.geojson", "annotation") / 1e6
    assert export(tmp_path, max_mb=size).path.name == "case.geojson"
    (tmp_path / "case.geojson").unlink()
    written = export(tmp_path, max_mb=size - 1e-6)
    assert written.path.name == "case.geojson.gz"
    assert (
        f"more than export.max_mb = {size - 1e-6:g}: compressed to case.geojson.gz"
        in written.notes[0]
    )
    assert facts_of(written.path)["budget"] == written.notes[0]
    assert lint_geojson(written.path) == []


@pytest.mark.parametrize("limits", [{"max_vertices": 99}, {"max_mb": 0.0001}])
@pytest.mark.parametrize("name", ["case.geojson", "case.geojson.gz"])
def test_too_much_even_so_comes_in_parts(tmp_path, limits, name):
    written = export(tmp_path, name, **limits)
    assert written.path == tmp_path / "case.parts"
    assert names(tmp_path) == ["case.parts"]
    assert "written in parts to case.parts; qupath/import.groovy" in written.notes[0]
    parts = sorted(written.path.iterdir())
    assert sum(facts_of(part)["regions"] for part in parts) == 20
    for part in parts:
        assert facts_of(part)["budget"] == written.notes[0]
        assert lint_geojson(part) == []


def test_one_form_puts_another_of_ours_aside(tmp_path):
    export(tmp_path)
    first = (tmp_path / "case.geojson").read_bytes()
    written = export(tmp_path, max_vertices=50)
    assert written.notes[-1] == "case.geojson of an earlier run is now case.geojson.old"
    assert names(tmp_path) == ["case.geojson.old", "case.parts"]
    assert (tmp_path / "case.geojson.old").read_bytes() == first
    written = export(tmp_path)
    assert written.notes == ("case.parts of an earlier run is now case.parts.old",)
    export(tmp_path, name="case.geojson.gz")
    assert names(tmp_path) == [
        "case.geojson.gz", "case.geojson.old", "case.geojson.old2", "case.parts.old",
    ]  # fmt: skip


def test_parts_replace_parts(tmp_path):
    before = set(names(export(tmp_path, max_vertices=50).path))
    written = export(tmp_path, max_vertices=99)
    assert names(tmp_path) == ["case.parts"]
    assert set(names(written.path)) != before
    assert sum(facts_of(part)["regions"] for part in written.path.iterdir()) == 20


def test_what_is_not_ours_is_never_replaced_or_moved(tmp_path):
    foreign = tmp_path / "case.geojson.gz"
    foreign.write_bytes(gzip.compress(b'{"type":"FeatureCollection","features":[]}'))
    before = foreign.read_bytes()
    with pytest.raises(GeoJsonError, match=r"case\.geojson\.gz: exists and was not written by wsi"):
        export(tmp_path, max_mb=0.005)
    (written, *_) = [export(tmp_path)]
    assert "case.geojson.gz is in the same folder and not wsiseg's" in written.notes[0]
    assert foreign.read_bytes() == before
    (tmp_path / "case.parts").mkdir()
    (tmp_path / "case.parts" / "mine.txt").write_text("mine")
    with pytest.raises(GeoJsonError, match=r"case\.parts: exists and was not written by wsiseg"):
        export(tmp_path, max_vertices=50)
    assert (tmp_path / "case.parts" / "mine.txt").read_text() == "mine"
    assert names(tmp_path) == ["case.geojson", "case.geojson.gz", "case.parts"]


def test_a_file_that_fails_leaves_all_as_it_was(tmp_path):
    export(tmp_path, max_vertices=50)
    before = {path.name: path.read_bytes() for path in (tmp_path / "case.parts").iterdir()}
    bad = [*REGIONS, make_region(SQUARE[:4])]
    with pytest.raises(GeoJsonError, match="last point is not its first"):
        export(tmp_path, regions=bad, max_vertices=50)
    assert names(tmp_path) == ["case.parts"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "case.parts").iterdir()} == before
