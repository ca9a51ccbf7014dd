import shutil
import sys

import pytest

from tests.view.runs import make_run
from wsiseg.errors import StoreError
from wsiseg.labels import name_in_run
from wsiseg.store import SlideStore
from wsiseg.view import open_run


def test_a_run_lists_its_slides_and_what_failed(run):
    failed, one = open_run(run).entries()
    assert (failed.name, failed.store, failed.status) == ("<b>bad</b>", None, "failed")
    assert failed.error == "cannot <i>be</i> read"
    assert one.name == "one"
    assert one.store == run / "slides/one.zarr"
    assert set(one.class_mm2) == {"Tumor", "Stroma", "Immune cells", "Necrosis"}
    assert one.tissue_mm2 == 1.0
    assert one.corrections == run / "corrections/one.geojson"


def test_one_store_and_a_folder_of_stores_are_taken_too(run, tmp_path):
    (alone,) = open_run(run / "slides/one.zarr").entries()
    assert alone.geojson == (run / "geojson/one.geojson",)
    assert alone.status == "done"
    named = [(one.name, one.status, one.geojson) for one in open_run(run).entries()]
    listed = open_run(run / "slides").entries()
    assert [(one.name, one.status, one.geojson) for one in listed] == named
    (moved,) = open_run(shutil.copytree(run / "slides/one.zarr", tmp_path / "a/one.zarr")).entries()
    assert (moved.name, moved.status) == ("one", "not in a table")
    assert moved.corrections == tmp_path / "a/corrections/one.geojson"
    (moved,) = open_run(tmp_path / "a").entries()
    assert moved.corrections == tmp_path / "a/corrections/one.geojson"


@pytest.mark.parametrize("folder", ["", "sub", "slides", "slides/a"])
def test_whatever_is_given_of_an_output_its_corrections_are_in_one_place(tmp_path, folder):
    """Also below a folder of slides, and with slides in a folder of that name."""
    root, name = tmp_path / "slides/out", f"{folder}/one".lstrip("/")
    make_run(root, "other")
    make_run(root, name, rows=[{"slide": f"{folder}/bad".lstrip("/"), "status": "failed"}])
    within = [root, root / "slides", *(root / "slides" / name).parents]
    for path in within[: within.index(root, 1)]:
        entries = {one.name: one for one in open_run(path).entries()}
        assert entries.keys() >= {name}, path
        one = entries[name]
        assert one.corrections == root / "corrections" / f"{name}.geojson", path
        assert one.geojson == (root / "geojson" / f"{name}.geojson",), path
    (one,) = open_run(root / "slides" / f"{name}.zarr").entries()
    assert (one.name, one.root) == (name, root)
    assert name_in_run(SlideStore(one.store)) == name
    below = open_run(root / "slides" / folder).entries()
    assert [e.status for e in below if e.name.endswith("bad")] == ["failed"]


def test_a_folder_of_slides_is_no_output_of_stores_far_below_it(tmp_path):
    store = tmp_path / "slides/stores/sub/one.zarr"
    make_run(tmp_path / "out")
    shutil.copytree(tmp_path / "out/slides/one.zarr", store)
    assert open_run(store).root == store.parent
    assert open_run(store.parents[1]).root == store.parents[1]


@pytest.mark.parametrize("given", ["", "slides", "slides/sub", "slides/sub/one.zarr"])
@pytest.mark.parametrize("lost", ["slides/corrections/sub", "slides/sub/corrections"])
def test_corrections_that_were_saved_among_the_stores_are_told(tmp_path, caplog, lost, given):
    make_run(tmp_path, "sub/one")
    open_run(tmp_path / given)
    assert not caplog.records
    (tmp_path / lost).mkdir(parents=True)
    open_run(tmp_path / given)
    assert not caplog.records, "an empty folder"
    (tmp_path / lost / "one.geojson").write_text("{}")
    open_run(tmp_path / given)
    (record,) = caplog.records
    folder, sub, _ = lost.partition("/sub") if lost.endswith("/sub") else (lost, "", "")
    place = tmp_path / "corrections" / ("" if sub else "sub")
    assert record.getMessage() == (
        f"{tmp_path / folder}: has corrections that are not shown, as an earlier version saved "
        f"them there; move them to {place}"
    )


def test_nested_stores_keep_their_folders_in_their_names(tmp_path):
    make_run(tmp_path, "case 1/a")
    assert [one.name for one in open_run(tmp_path).entries()] == ["case 1/a"]


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
def test_a_slide_whose_name_is_not_utf8_is_listed_with_its_row(tmp_path):
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    make_run(tmp_path, name)
    for path in (tmp_path, tmp_path / "slides" / f"{name}.zarr"):
        (entry,) = open_run(path).entries()
        assert (entry.name, entry.status) == (name, "done")


def test_nothing_of_ours_is_said(tmp_path):
    with pytest.raises(StoreError, match="contains no map; give the output folder"):
        open_run(tmp_path)
    (tmp_path / "one.svs").write_bytes(b"a slide")
    with pytest.raises(StoreError, match="contains no map; give the output folder"):
        open_run(tmp_path / "one.svs")


def test_what_a_table_escaped_is_read_as_it_was(tmp_path):
    make_run(tmp_path, rows=[{"slide": "=1+1", "status": "failed"}])
    assert [one.name for one in open_run(tmp_path).entries()] == ["=1+1", "one"]
