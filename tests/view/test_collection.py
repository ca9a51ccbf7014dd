import sys

import pytest

from tests.view.runs import make_run
from wsiseg.errors import StoreError
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


def test_one_store_and_a_folder_of_stores_are_taken_too(run):
    (alone,) = open_run(run / "slides/one.zarr").entries()
    assert alone.geojson == (run / "geojson/one.geojson",)
    assert alone.status == "done"
    (listed,) = open_run(run / "slides").entries()
    assert (listed.name, listed.status) == ("one", "not in a table")


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


def test_what_a_table_escaped_is_read_as_it_was(tmp_path):
    make_run(tmp_path, rows=[{"slide": "=1+1", "status": "failed"}])
    assert [one.name for one in open_run(tmp_path).entries()] == ["=1+1", "one"]
