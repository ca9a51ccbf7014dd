"""A slide keeps its name in an output folder, and no other slide gets it."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from tests.store.slides import GRID, SLIDE
from wsiseg.run import OutputTree, plan_jobs
from wsiseg.run import owners as owners_module
from wsiseg.slide import identify_slide
from wsiseg.store import SlideStore


def write(path, content=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content or str(path))
    return path


def finish(out, *inputs, nested=False):
    """Make a store of each slide, as a run does; return the names."""
    jobs = plan_jobs([Path(each) for each in inputs], nested=nested, out=out)
    for job in jobs:
        facts = {"path": str(job.path.absolute()), "identity": identify_slide(job.path)}
        SlideStore.create(OutputTree(out).store(job.name), GRID, 0.5, {**SLIDE, **facts})
    return [job.name for job in jobs]


def test_slides_of_one_name_one_run_each(tmp_path):
    """The second one failed, and its row replaced that of the first."""
    for patient in ("p1", "p2", "p3"):
        write(tmp_path / patient / "HE.tif")
    out = tmp_path / "out"
    names = [finish(out, tmp_path / patient)[0] for patient in ("p1", "p2", "p3")]
    assert names[:2] == ["HE", "HE.tif"]
    assert names[2].startswith("HE.tif-")
    for _ in range(2):  # in any order, alone or together
        assert [finish(out, tmp_path / patient)[0] for patient in ("p1", "p2", "p3")] == names
    assert finish(out, tmp_path / "p3", tmp_path / "p1", tmp_path / "p2") == [names[2], *names[:2]]


def test_a_slide_of_a_nested_run_given_alone(tmp_path):
    """It took the name of another one, or was done again under a second name."""
    for name in ("x.tif", "sub/x.tif", "sub/y.tif"):
        write(tmp_path / "in" / name)
    out = tmp_path / "out"
    assert finish(out, tmp_path / "in", nested=True) == ["sub/x", "sub/y", "x"]
    assert finish(out, tmp_path / "in" / "sub" / "x.tif") == ["sub/x"]
    assert finish(out, tmp_path / "in" / "sub") == ["sub/x", "sub/y"]
    assert finish(out, tmp_path / "in" / "x.tif") == ["x"]


def test_moved_slides_keep_their_names(tmp_path):
    for patient in ("p1", "p2"):
        write(tmp_path / "old" / patient / "HE.tif")
    table = write(tmp_path / "old" / "m.csv", "slide\np1/HE.tif\np2/HE.tif\n")
    out = tmp_path / "out"
    names = finish(out, table)
    assert all(name.startswith("HE.tif-") for name in names)
    (tmp_path / "old").rename(tmp_path / "new")
    write(tmp_path / "new" / "p3" / "HE.tif")
    assert finish(out, tmp_path / "new" / "p2") == names[1:]
    table = write(tmp_path / "new" / "m.csv", "slide\np3/HE.tif\np1/HE.tif\np2/HE.tif\n")
    assert finish(out, table)[1:] == names
    write(tmp_path / "old" / "p1" / "HE.tif", "another")  # at the path that the name is made of
    again = finish(out, tmp_path / "old" / "p1", table)
    assert again[2:] == names
    assert len(set(again)) == 4


def test_a_slide_that_is_gone_is_not_replaced_by_another(tmp_path):
    slide, out = write(tmp_path / "a" / "s.tif"), tmp_path / "out"
    assert finish(out, slide) == ["s"]
    slide.unlink()
    assert finish(out, write(tmp_path / "b" / "s.tif")) == ["s.tif"]


def test_a_slide_that_was_replaced_keeps_its_name(tmp_path):
    slide, out = write(tmp_path / "s.tif"), tmp_path / "out"
    assert finish(out, slide) == ["s"]
    assert plan_jobs([write(slide, "scanned again")], out=out)[0].name == "s"


@pytest.mark.parametrize("by", ["copy", "link"])
def test_one_slide_by_two_paths_has_one_name(tmp_path, by):
    """As on a cluster, where slides are copied to a disk of the machine first."""
    slide, out = write(tmp_path / "a" / "s.tif"), tmp_path / "out"
    assert finish(out, slide) == ["s"]
    if by == "copy":
        shutil.copytree(slide.parent, tmp_path / "b")
    else:
        (tmp_path / "b").symlink_to(tmp_path / "a")
    assert finish(out, tmp_path / "b") == ["s"]
    assert finish(out, slide) == ["s"]


def test_stores_of_former_identities(tmp_path):
    slide, out = write(tmp_path / "new" / "s.tif"), tmp_path / "out"
    data = slide.read_bytes()
    former = hashlib.sha256(str(len(data)).encode() + b":" + data + data).hexdigest()
    facts = {"path": str(tmp_path / "old" / "s.tif"), "identity": former}
    SlideStore.create(out / "slides" / "s.zarr", GRID, 0.5, {**SLIDE, **facts})
    assert plan_jobs([slide], out=out)[0].name == "s"


def test_what_says_no_slide_has_no_owner(tmp_path):
    slide, store = write(tmp_path / "s.tif"), tmp_path / "out" / "slides" / "s.zarr"
    write(store / "zarr.json", "{")
    assert plan_jobs([slide], out=tmp_path / "out")[0].name == "s"


def test_stores_are_opened_once_and_only_where_names_are_alike(tmp_path, monkeypatch):
    """A job of one slide must not read the thousands of others, nor any slide's content."""
    for number in range(5):
        write(tmp_path / "in" / f"s{number}.tif")
    out, opened = tmp_path / "out", []
    finish(out, tmp_path / "in")

    def open_store(path):
        opened.append(os.path.basename(path))
        return SlideStore(path)

    monkeypatch.setattr(owners_module, "SlideStore", open_store)
    monkeypatch.setattr(owners_module, "identify_slide", None)  # would be called
    plan_jobs([tmp_path / "in"], out=out)
    assert sorted(opened) == [f"s{number}.zarr" for number in range(5)]
    opened.clear()
    plan_jobs([write(tmp_path / "else" / "s3.tif")], out=out)
    assert opened == ["s3.zarr"]
