import errno
import logging
import os
from functools import partial

import numpy as np
import pytest

from tests.store.slides import GRID, SLIDE
from wsiseg.errors import ConfigError, SlideOpenError
from wsiseg.export.pyramid import Picture, Plane, write_pyramids
from wsiseg.geometry import Size
from wsiseg.run import annotate, plan_jobs
from wsiseg.store import SlideStore


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(str(path).encode())
    return path


def names_of(jobs):
    return {job.name: job.same_as for job in jobs}


def test_links_to_one_file_are_a_row_each_and_done_once(tmp_path):
    touch(tmp_path / "in" / "z.svs")
    (tmp_path / "in" / "a.svs").symlink_to("z.svs")
    os.link(tmp_path / "in" / "z.svs", tmp_path / "in" / "hard.svs")
    touch(tmp_path / "in" / "other.svs")
    jobs = plan_jobs([tmp_path / "in"])
    assert names_of(jobs) == {"a": "hard", "hard": "", "other": "", "z": "hard"}
    os.remove(tmp_path / "in" / "hard.svs")
    assert names_of(plan_jobs([tmp_path / "in"])) == {"a": "z", "other": "", "z": ""}


def test_links_to_a_file_elsewhere(tmp_path):
    slide = touch(tmp_path / "store" / "s.svs")
    for name in ("a.svs", "b.svs"):
        (tmp_path / name).symlink_to(slide)
    assert names_of(plan_jobs([tmp_path])) == {"a": "", "b": "a"}
    jobs = plan_jobs([tmp_path, slide])
    assert names_of(jobs) == {"a": "s", "b": "s", "s": ""}


def test_a_path_given_twice_is_one_row(tmp_path, caplog):
    slide = touch(tmp_path / "a.svs")
    (tmp_path / "m.csv").write_text("slide,mpp\na.svs,0.5\n./a.svs,0.5\n")
    with caplog.at_level(logging.INFO):
        (job,) = plan_jobs([tmp_path, slide, tmp_path / "m.csv"])
    assert (job.name, job.mpp, job.same_as) == ("a", 0.5, "")
    assert "3 slide(s) given more than once are done once" in caplog.text


@pytest.mark.parametrize("second", ["a.svs,0.25", "./a.svs,", "link.svs,0.25"])
def test_one_file_with_two_scales_is_refused(tmp_path, second):
    touch(tmp_path / "a.svs")
    (tmp_path / "link.svs").symlink_to("a.svs")
    (tmp_path / "m.csv").write_text(f"slide,mpp\na.svs,0.5\n{second}\n")
    message = r"has 0\.5 µm/px in .*m\.csv, line 2, and (0\.25|no) µm/px in .*m\.csv, line 3"
    with pytest.raises(ConfigError, match=message):
        plan_jobs([tmp_path / "m.csv"])


def test_two_manifests_that_contradict_each_other(tmp_path):
    for name, mpp in (("m.csv", 0.5), ("n.tsv", 0.25)):
        (tmp_path / name).write_text(f"slide\tmpp\na.svs\t{mpp}\n")
    with pytest.raises(ConfigError, match=r"m\.csv, line 2, and 0\.25 µm/px in .*n\.tsv, line 2"):
        plan_jobs([tmp_path / "m.csv", tmp_path / "n.tsv"])


def test_links_that_lead_nowhere_are_failed_rows(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "gone.svs").symlink_to("nowhere.svs")
    (folder / "loop.svs").symlink_to("loop.svs")
    results = annotate([folder, folder / "gone.svs"], tmp_path / "out", dry_run=True)
    assert [(result.slide, result.status) for result in results] == [
        ("gone", "failed"), ("loop", "failed"),
    ]  # fmt: skip
    assert "gone.svs: is a link to nowhere.svs, which does not exist" in results[0].error


def test_linked_folders_are_said(tmp_path, caplog):
    touch(tmp_path / "in" / "a.svs")
    touch(tmp_path / "elsewhere" / "b.svs")
    (tmp_path / "in" / "more").symlink_to(tmp_path / "elsewhere")
    assert names_of(plan_jobs([tmp_path / "in"], nested=True)) == {"a": ""}
    assert "in/more: is a link to a folder, and not followed; give it by itself" in caplog.text


def test_outputs_below_an_input_are_no_slides(tmp_path, caplog):
    touch(tmp_path / "a.svs")
    for tree in ("out", "former"):
        touch(tmp_path / tree / "ome-tiff" / "a.ome.tiff")
        touch(tmp_path / tree / "masks" / "a" / "Tumor.tif")
    touch(tmp_path / "former" / "summary.csv")
    touch(tmp_path / "former" / "runs" / "1.json")
    touch(tmp_path / "former" / "own.svs")
    touch(tmp_path / "plain" / "masks" / "own.tif")
    with caplog.at_level(logging.INFO):
        jobs = plan_jobs([tmp_path], nested=True, out=tmp_path / "out")
    assert [job.name for job in jobs] == ["a", "former/own", "plain/masks/own"]
    assert "4 file(s) that wsiseg wrote are no slides" in caplog.text
    (job,) = plan_jobs([tmp_path / "out" / "masks" / "a"], out=tmp_path / "out")
    assert job.name == "Tumor", "asked for by name"


def test_the_slides_folder_as_output_folder(tmp_path):
    touch(tmp_path / "a.svs")
    touch(tmp_path / "slides" / "b.svs")
    touch(tmp_path / "ome-tiff" / "a.ome.tiff")
    jobs = plan_jobs([tmp_path], nested=True, out=tmp_path)
    assert [job.name for job in jobs] == ["a", "slides/b"]
    (tmp_path / "a.svs").unlink()
    with pytest.raises(SlideOpenError, match="holds no slide"):
        plan_jobs([tmp_path / "ome-tiff" / ".."], out=tmp_path)


def test_three_slides_of_one_stem_are_three_rows(tmp_path):
    for name in ("x.svs", "x.tif", "x.svs.tif"):
        touch(tmp_path / name)
    assert [job.name for job in plan_jobs([tmp_path])] == ["x.svs", "x.svs.tif", "x.tif"]


def test_a_slide_keeps_its_name_in_the_output_folder(tmp_path):
    """Else it was done again beside a second one of its stem, and its corrections were lost."""
    slide, out = touch(tmp_path / "in" / "x.tif"), tmp_path / "out"
    SlideStore.create(out / "slides" / "x.zarr", GRID, 0.5, {**SLIDE, "path": str(slide)})
    touch(tmp_path / "in" / "x.svs")
    jobs = plan_jobs([slide.parent / ".." / "in"], out=out)
    assert {job.path.name: job.name for job in jobs} == {"x.svs": "x.svs", "x.tif": "x"}
    assert [job.name for job in plan_jobs([slide.parent])] == ["x.svs", "x.tif"]


def test_folders_that_are_not_searched_are_said(tmp_path, caplog):
    for name in ("in/a.svs", "in/more/b.svs", "in/others/c.svs", "in/out/ome-tiff/a.ome.tiff"):
        touch(tmp_path / name)
    with caplog.at_level(logging.INFO):
        plan_jobs([tmp_path / "in"], out=tmp_path / "in" / "out")
    assert "2 sub-folder(s), such as more, are not searched; --nested searches them" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        plan_jobs([tmp_path / "in"], nested=True, out=tmp_path / "in" / "out")
        plan_jobs([tmp_path / "in" / "more"], out=tmp_path / "in" / "out")
    assert "not searched" not in caplog.text


def test_a_folder_that_cannot_be_listed_is_a_failed_row(tmp_path, monkeypatch, caplog):
    """Its slides were left out without a word, and the run counted as whole."""
    touch(tmp_path / "in" / "a.svs")
    touch(tmp_path / "in" / "p2" / "b.svs")
    close(monkeypatch, tmp_path / "in" / "p2")
    results = annotate(tmp_path / "in", tmp_path / "out", nested=True, dry_run=True)
    assert [(result.slide, result.status) for result in results][1:] == [("p2", "failed")]
    assert "p2: cannot be listed (Permission denied)" in results[1].error
    assert "p2: cannot be listed (Permission denied); slides in it are left out" in caplog.text
    with pytest.raises(SlideOpenError, match=r"p2: cannot be listed \(Permission denied\)"):
        plan_jobs([tmp_path / "in" / "p2"])


def close(monkeypatch, folder):
    """Take away the permission to list a folder; root, who runs the tests, has every one."""

    def refuse(given, path="."):
        if os.fspath(path) == str(folder):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return given(path)

    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, partial(refuse, getattr(os, name)))


def test_maps_beside_the_slides_are_no_slides(tmp_path, caplog):
    """`wsiseg export` may write them there; they were mapped as slides."""
    picture = Picture("x", (Plane("labels", lambda level, box: np.zeros(
        (box.height, box.width), np.uint8)),), (Size(64, 64),), 0.5)  # fmt: skip
    for name in ("x.ome.tiff", "y.OME.TIF", "named.tif"):
        write_pyramids(tmp_path / "in" / name, [picture])
    touch(tmp_path / "in" / "x.ome.tif")
    with caplog.at_level(logging.INFO):
        jobs = plan_jobs([tmp_path / "in"])
    assert [job.path.name for job in jobs] == ["named.tif", "x.ome.tif"]
    assert "2 file(s) that wsiseg wrote are no slides" in caplog.text
    for name in ("named.tif", "x.ome.tiff"):
        (result,) = annotate(tmp_path / "in" / name, tmp_path / "out", dry_run=True)
        assert f"{name}: not read: it is a map that wsiseg wrote, not a slide" in result.error


def test_a_name_is_taken_while_its_slide_waits_for_its_turn(tmp_path):
    out = tmp_path / "out"
    for name in ("p1/s.svs", "p2/s.svs"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(name.encode())

    def names(*inputs, **options):
        jobs = plan_jobs([tmp_path / one for one in inputs], out=out, **options)
        return {job.path.relative_to(tmp_path).as_posix(): job.name for job in jobs}

    assert names("p1") == names("p1", reserve=True) == {"p1/s.svs": "s"}
    assert names("p2") == names("p2", reserve=True) == {"p2/s.svs": "s.svs"}
    both = {"p1/s.svs": "s", "p2/s.svs": "s.svs"}
    assert names(".", nested=True, reserve=True) == both, "a run that names them otherwise"
    (tmp_path / "p1" / "s.svs").unlink()
    (tmp_path / "p3").mkdir()
    (tmp_path / "p3" / "s.svs").write_bytes(b"new")
    assert names("p3") == {"p3/s.svs": "s"}, "what is gone and was never done has no name"


def test_a_dry_run_reserves_nothing(tmp_path):
    (tmp_path / "s.svs").write_bytes(b"")
    plan_jobs([tmp_path / "s.svs"], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
