import csv
import json
import time
from dataclasses import replace

import pytest

from wsiseg.config import Config
from wsiseg.errors import StoreError
from wsiseg.run.jobs import OutputTree
from wsiseg.run.records import write_run, write_summary
from wsiseg.run.slide import SlideResult
from wsiseg.view import open_run

NAMES = ["-a", "=b", "+c", "@d", "'=e", "f\n=g", " h", "\udce9", "-1"]


def result(name, status="done"):
    rows = [{"slide": name, "class": "=Tumor", "area_mm2": 2.0}]
    return SlideResult(name, f"{name}.svs", status, mpp=0.25, tiles=3,
                       class_mm2={"=Tumor": 2.0}, measurements=rows)  # fmt: skip


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def statuses(tree):
    rows = rows_of(tree.root / "summary.csv")
    return [(row["slide"], row["path"], row["status"]) for row in rows]


def test_rewriting_the_tables_adds_no_row_whatever_the_names(tmp_path):
    tree = OutputTree(tmp_path)
    write_summary(tree, [result(name) for name in NAMES])
    first = {name: (tmp_path / name).read_bytes() for name in ("summary.csv", "measurements.csv")}
    for name in NAMES:  # as runs of one slide each
        write_summary(tree, [result(name)])
    rows = rows_of(tmp_path / "summary.csv")
    assert len(rows) == len(NAMES)
    assert sorted(first["summary.csv"]) == sorted((tmp_path / "summary.csv").read_bytes())
    assert sorted(first["measurements.csv"]) == sorted((tmp_path / "measurements.csv").read_bytes())
    assert {row["slide"] for row in rows} >= {"'-a", "'=b", "'+c", "'@d"}
    assert {row["'=Tumor_mm2"] for row in rows} == {"2"}


def test_a_class_called_tissue_is_not_the_slides_tissue(tmp_path):
    """It took the place of the slide's, of which the report gives the shares."""
    classes = {"tissue": 2.0, "Stroma": 1.0}
    rows = [{"slide": "a", "class": name, "area_mm2": area} for name, area in classes.items()]
    done = SlideResult(
        "a", "a.svs", "done", tissue_mm2=4.0, class_mm2=classes, measurements=rows
    )  # fmt: skip
    write_summary(OutputTree(tmp_path), [done])
    (row,) = rows_of(tmp_path / "summary.csv")
    assert (row["tissue_mm2"], row["class tissue_mm2"], row["Stroma_mm2"]) == ("4", "2", "1")
    assert "4.00 mm², 25.0 % of it without a class" in (tmp_path / "report.html").read_text()
    (entry,) = open_run(tmp_path).entries()
    assert (entry.tissue_mm2, entry.class_mm2) == (4.0, classes)


def test_a_slides_row_is_replaced_and_the_others_stay(tmp_path):
    tree = OutputTree(tmp_path)
    write_summary(tree, [result("-a", "failed"), result("b")])
    write_summary(tree, [result("-a")])
    status = {row["slide"]: row["status"] for row in rows_of(tmp_path / "summary.csv")}
    assert status == {"b": "done", "'-a": "done"}


def test_rows_stand_in_the_order_of_the_run_though_added_as_slides_end(tmp_path):
    tree = OutputTree(tmp_path)
    write_summary(tree, [result("z")])
    for name in ("c", "a", "b"):
        write_summary(tree, [result(name)], order=["a", "b", "c"])
    assert [row["slide"] for row in rows_of(tmp_path / "summary.csv")] == ["z", "a", "b", "c"]


def test_a_failure_keeps_the_row_of_a_run_that_has_finished_the_slide_since(tmp_path):
    tree, begun = OutputTree(tmp_path), time.time()
    write_summary(tree, [result("a"), result("b", "failed")])
    write_summary(tree, [result("a", "failed"), result("b", "failed")], since=begun)
    assert [row["status"] for row in rows_of(tmp_path / "summary.csv")] == ["done", "failed"]
    assert len(rows_of(tmp_path / "measurements.csv")) == 2
    write_summary(tree, [result("a", "failed")], since=time.time() + 1)
    assert {row["status"] for row in rows_of(tmp_path / "summary.csv")} == {"failed"}


def test_a_failed_row_replaces_no_other_slides_row(tmp_path):
    """Two runs that began at once may both have wanted the name; the second one failed."""
    tree = OutputTree(tmp_path / "out")
    first, second = (replace(result("s"), path=f"p{number}/s.svs") for number in (1, 2))
    failed = replace(second, status="failed", measurements=[], error="another slide's")
    write_summary(tree, [first])
    write_summary(tree, [failed])
    write_summary(tree, [failed])
    assert statuses(tree) == [("s", "p1/s.svs", "done"), ("s", "p2/s.svs", "failed")]
    assert [row["slide"] for row in rows_of(tree.root / "measurements.csv")] == ["s"]
    write_summary(tree, [replace(second, slide="s.svs")])  # run again, it has a name of its own
    assert statuses(tree) == [("s", "p1/s.svs", "done"), ("s.svs", "p2/s.svs", "done")]
    write_summary(tree, [replace(first, path="moved/s.svs")])
    assert statuses(tree)[1:] == [("s", "moved/s.svs", "done")]


def test_a_slide_that_failed_is_not_dropped_for_one_of_its_name(tmp_path):
    tree, broken = OutputTree(tmp_path / "out"), tmp_path / "s.svs"
    broken.touch()
    write_summary(tree, [replace(result("s", "failed"), path=str(broken))])
    write_summary(tree, [result("s")])
    assert statuses(tree) == [("s", str(broken), "failed"), ("s", "s.svs", "done")]
    broken.unlink()
    write_summary(tree, [result("s")])
    assert statuses(tree) == [("s", "s.svs", "done")]


def test_tables_of_an_earlier_version_are_taken_over_once(tmp_path):
    (tmp_path / "summary.csv").write_text(
        "slide,path,status,mpp,Tumor_mm2,error\n'-a,-a.svs,done,0.25,2,\nb,b.svs,failed,,,'=x\n"
    )
    (tmp_path / "measurements.csv").write_text("slide,class,area_mm2\n'-a,Tumor,2\n")
    tree = OutputTree(tmp_path)
    write_summary(tree, [result("b")])
    write_summary(tree, [result("c")])
    rows = {row["slide"]: row for row in rows_of(tmp_path / "summary.csv")}
    assert set(rows) == {"'-a", "b", "c"}
    assert rows["'-a"]["Tumor_mm2"] == "2"
    measured = [row["slide"] for row in rows_of(tmp_path / "measurements.csv")]
    assert measured == ["'-a", "b", "c"]


def test_damaged_records_are_told(tmp_path):
    tree = OutputTree(tmp_path)
    write_summary(tree, [result("a")])
    record = tmp_path / "runs" / "slides.jsonl"
    assert json.loads(record.read_text())["slide"] == "a"
    record.write_text(record.read_text()[:20])
    with pytest.raises(StoreError, match=r"slides\.jsonl: is damaged .* delete it"):
        write_summary(tree, [result("a")])


def test_the_record_of_a_run_has_the_checkpoints_whole_path(tmp_path, monkeypatch):
    """The viewer may be started in another folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.safetensors").touch()
    for given, wanted in (("my.safetensors", str(tmp_path / "my.safetensors")), ("tiny", "tiny")):
        config = Config.model_validate({"predict": {"checkpoint": given}})
        write_run(OutputTree(tmp_path), given, config, [], "serial", None)
        record = json.loads((tmp_path / "runs" / f"{given}.json").read_text())
        assert record["config"]["predict"]["checkpoint"] == wanted
