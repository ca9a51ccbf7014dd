import csv
from pathlib import Path

import pytest

from wsiseg.run import batch
from wsiseg.run.jobs import Job, OutputTree
from wsiseg.run.log import open_log
from wsiseg.run.notifier import Notifier
from wsiseg.run.records import write_summary
from wsiseg.run.slide import SlideResult


@pytest.mark.parametrize("fails", ["to close", "to open"])
def test_an_executor_that_cannot_be_replaced_ends_no_batch(monkeypatch, fails):
    """Its error was no row of a slide, but the end of all."""
    monkeypatch.setattr(batch, "is_alive", lambda executor: False)

    def fail(*_):
        raise OSError("too many open files")

    with batch._Pool("threads", 1) as pool:
        before = pool.executor
        if fails == "to close":
            pool._stack.callback(fail)
        else:
            monkeypatch.setattr(pool, "_open", fail)
        pool.renew(before)
        if fails == "to close":
            assert pool.lost == ""
            assert pool.executor is not before
            assert pool.executor.submit(int).result(60) == 0
        else:
            assert pool.lost == "no executor starts again: OSError: too many open files"


def test_a_long_run_leaves_the_newer_rows_of_other_runs(tmp_path):
    tree, jobs = OutputTree(tmp_path), [Job(Path(f"{name}.svs"), name) for name in "ab"]
    with open_log(tree.log("run")) as log:
        record = batch._Record(tree, jobs, Notifier(None, None), log)
        record.add(SlideResult("a", "a.svs", "failed", error="still being copied"))
        record.write()
        write_summary(tree, [SlideResult("a", "a.svs", "done")])  # by another run, meanwhile
        record.add(SlideResult("b", "b.svs", "done"))
        record.write()
    with (tmp_path / "summary.csv").open(newline="", encoding="utf-8") as file:
        assert [(row["slide"], row["status"]) for row in csv.DictReader(file)] == [
            ("a", "done"), ("b", "done"),
        ]  # fmt: skip
