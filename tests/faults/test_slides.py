"""Slides that vanish or break in the middle of a run."""

from __future__ import annotations

import csv
import re

import pytest
import tifffile

from tests.faults.runs import CONFIG, NAMES, contents, marks
from wsiseg.run import annotate


@pytest.mark.parametrize("executor", ["serial", "threads"])
def test_a_slide_vanishes_in_the_middle(folder, finished, tmp_path, executor):
    slides, out = tmp_path / "slides", tmp_path / "out"
    slides.mkdir()
    for name in NAMES:
        (slides / f"{name}.svs").write_bytes((folder / f"{name}.svs").read_bytes())

    def vanish(job, step, done, total):
        if (job.name, step) == ("a", "tile") and done >= 2:  # tiles run far ahead of the rest
            job.path.unlink(missing_ok=True)

    results = annotate(slides, out, CONFIG, executor=executor, workers=2, progress=vanish)
    assert [result.status for result in results] == ["failed", "done"]
    assert re.search(r"a\.svs", results[0].error)
    rows = {row["slide"]: row for row in csv.DictReader((out / "summary.csv").open())}
    assert rows["a"]["error"] == results[0].error
    assert not (out / "geojson" / "a.geojson").exists()
    (slides / "a.svs").write_bytes((folder / "a.svs").read_bytes())
    # Its store names the other folder; the pixels, maps and polygons must be the same.
    first = annotate(slides, out, CONFIG, executor=executor, workers=2)[0]
    assert first.status == "done", first.error
    ours = contents(out)
    assert ours.keys() == finished.keys()
    assert sorted(name for name in ours if ours[name] != finished[name]) == [
        "slides/a.zarr/zarr.json", "slides/b.zarr/zarr.json"
    ]  # fmt: skip


def test_a_slide_fails_to_decode_in_the_middle(folder, tmp_path):
    slides, out = tmp_path / "slides", tmp_path / "out"
    slides.mkdir()
    data = bytearray((folder / "a.svs").read_bytes())
    with tifffile.TiffFile(folder / "a.svs") as tiff:
        page = tiff.pages[0]
        # The largest compressed tile holds tissue for certain.
        size, start = max(zip(page.databytecounts, page.dataoffsets, strict=True))
    data[start : start + size] = bytes(size)
    (slides / "a.svs").write_bytes(bytes(data))
    (slides / "b.svs").write_bytes((folder / "b.svs").read_bytes())
    results = annotate(slides, out, CONFIG, executor="threads", workers=2)
    assert [result.status for result in results] == ["failed", "done"]
    assert "a.svs" in results[0].error
    assert marks(out) > 0
