import gzip
import json

import numpy as np
import pytest

from tests.qupath.regions import SQUARE, annotate, make_region
from wsiseg.config import ExportConfig
from wsiseg.qupath import (
    export_geojson,
    fix_geojson,
    lint_geojson,
    read_annotations,
    read_stamp,
    write_geojson,
)
from wsiseg.qupath.form.stamp import read_head

REGIONS = [make_region(np.add(SQUARE, (100 * i, 0))) for i in range(20)]
FOREIGN = b'{"type":"FeatureCollection","features":[]}'


def export(folder, name="case.geojson", **limits):
    return export_geojson(annotate(REGIONS, provenance={"made": "abc"}), folder / name,
                          ExportConfig(**limits))  # fmt: skip


def unpack(path):
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


def edit(path):
    """Move a vertex, as a person might with a text editor."""
    text = unpack(path).replace(b"[0,0]", b"[1,1]").replace(b"[100,0]", b"[101,1]")
    text = text.replace(b"[1000,0]", b"[1001,1]")
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_head_of_what_is_not_ours_says_nothing(tmp_path):
    assert read_head(tmp_path / "none.geojson") == {}
    for name, content in (("a.geojson", FOREIGN), ("b.geojson", b"no"), ("c.geojson.gz", b"no")):
        (tmp_path / name).write_bytes(content)
        assert read_head(tmp_path / name) == {}


@pytest.mark.parametrize("name", ["case.geojson", "case.json", "case.geojson.gz"])
def test_a_file_of_ours_shows_whether_it_was_edited(tmp_path, name):
    path = write_geojson(annotate(REGIONS, provenance={"made": "abc"}), tmp_path / name)
    assert read_stamp(path)["made"] == read_head(path)["made"] == "abc"
    assert lint_geojson(path) == []
    edit(path)
    assert read_stamp(path) is None
    assert read_head(path)["made"] == "abc"


def test_what_is_no_file_of_ours_has_no_stamp(tmp_path):
    path = tmp_path / "case.geojson"
    assert read_stamp(path) is None
    for data in (b"", b"{", FOREIGN, b'{"features":[\n\n]}', b'7\n\n],"wsiseg_sha256":""}'):
        path.write_bytes(data)
        assert read_stamp(path) is None
    empty = write_geojson(annotate([]), path)
    assert read_stamp(empty)["regions"] == 0
    data = empty.read_bytes()
    path.write_bytes(data[:-9])  # cut off
    assert read_stamp(path) is None


def test_written_by_json_again_it_is_edited(tmp_path):
    """QuPath and scripts write no lines; a repaired copy is not what we wrote either."""
    path = write_geojson(annotate(REGIONS), tmp_path / "case.geojson")
    copy, _ = fix_geojson(path)
    assert read_stamp(copy) is None
    assert "wsiseg_sha256" not in json.loads(copy.read_bytes())
    path.write_text(json.dumps(json.loads(path.read_bytes())))
    assert read_stamp(path) is None


@pytest.mark.parametrize("change", [edit, lambda path: path.write_bytes(FOREIGN)])
def test_an_edited_file_is_kept_beside(tmp_path, change):
    path = export(tmp_path).path
    before = path.read_bytes()
    change(path)
    edited = path.read_bytes()
    written = export(tmp_path)
    assert written.notes == ("case.geojson was edited: it is kept as case.edited.geojson",)
    assert (tmp_path / "case.edited.geojson").read_bytes() == edited
    assert path.read_bytes() == before
    assert export(tmp_path).notes == (), "what we wrote ourselves is replaced"
    change(path)
    assert "case.edited2.geojson" in export(tmp_path).notes[0]
    assert (tmp_path / "case.edited.geojson").read_bytes() == edited


def test_an_edited_file_in_another_form_is_kept_as_such(tmp_path):
    packed = export(tmp_path, "case.geojson.gz").path
    edit(packed)
    written = export(tmp_path)
    assert written.notes == ("case.geojson.gz was edited: it is kept as case.edited.geojson.gz",)
    assert names(tmp_path) == ["case.edited.geojson.gz", "case.geojson"]
    assert len(read_annotations(tmp_path / "case.edited.geojson.gz").regions) == 20


def test_an_edited_part_is_kept_and_the_others_are_replaced(tmp_path):
    parts = export(tmp_path, max_vertices=50).path
    first = sorted(parts.iterdir())[0]
    edit(first)
    edited, others = first.read_bytes(), len(names(parts))
    written = export(tmp_path, max_vertices=50)
    aside = tmp_path / first.name.replace(".geojson.gz", ".edited.geojson.gz")
    assert written.notes[-1] == f"{first.name} was edited: it is kept as {aside.name}"
    assert aside.read_bytes() == edited
    assert len(names(parts)) == others
    assert read_stamp(first)["made"] == "abc"
