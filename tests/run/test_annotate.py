import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import geojson
import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.files import contents
from tests.model.test_scale import taught_at
from tests.slide.damaged import spoil
from wsiseg.annotations import BACKGROUND
from wsiseg.config import Config, TileConfig
from wsiseg.demo.synthesis import synthesize_slide
from wsiseg.errors import ConfigError, MissingDependencyError, SlideOpenError
from wsiseg.qupath import lint_geojson
from wsiseg.run import annotate, plan_jobs
from wsiseg.store import SlideStore
from wsiseg.tissue import kept_tiles

RESULTS = ("slides", "geojson")
TINY = {"checkpoint": "tiny"}  # taught on what the synthetic slides show
CONFIG = Config.model_validate({"tile": {"block": 448}, "predict": TINY})


@pytest.fixture(scope="session")
def slide(tmp_path_factory):
    path = tmp_path_factory.mktemp("slide") / "one.svs"
    synthesize_slide(path, width=3072, height=2560, seed=3)
    return path


@pytest.fixture(scope="session")
def finished(slide, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished")
    (result,) = annotate(slide, out, CONFIG, executor="serial")
    return out, result


def test_polygons_lint_clean_and_equal_the_raster(finished):
    out, result = finished
    assert result.status == "done", result.error
    path = out / "geojson" / "one.geojson"
    assert not [f for f in lint_geojson(path) if f.severity == "error"]
    store = SlideStore(out / "slides" / "one.zarr")
    labels = store.read_labels(store.grid.box)
    counts = np.bincount(labels.ravel(), minlength=256)
    assert geojson.loads(path.read_text()).is_valid  # as another reader sees it
    features = json.loads(path.read_bytes())["features"]
    for label, name in enumerate(store.palette.names):
        mine = [f for f in features if f["properties"]["classification"]["name"] == name]
        area = sum(f["properties"]["measurements"]["Area mm^2"] for f in mine)
        assert area * 1e6 / store.mpp**2 == pytest.approx(counts[label], abs=0.01)
        assert result.class_mm2[name] == pytest.approx(area)


def test_no_polygon_edge_lies_on_a_block_border_between_equal_labels(finished):
    out, _ = finished
    store = SlideStore(out / "slides" / "one.zarr")
    labels = np.pad(store.read_labels(store.grid.box), 1, constant_values=BACKGROUND)
    features = json.loads((out / "geojson" / "one.geojson").read_bytes())["features"]
    scale, seen = store.mpp / store.slide["mpp"][0], 0
    for feature in features:
        for ring in feature["geometry"]["coordinates"]:
            points = np.rint(np.array(ring) / scale).astype(int)
            for (x0, y0), (x1, y1) in pairwise(points.tolist()):
                along_x = y0 == y1
                fixed, (low, high) = (y0, sorted((x0, x1))) if along_x else (x0, sorted((y0, y1)))
                if fixed % store.grid.block:
                    continue
                map_ = labels if along_x else labels.T
                before, after = map_[fixed, low + 1 : high + 1], map_[fixed + 1, low + 1 : high + 1]
                assert (before != after).all()
                seen += 1
    assert seen > 0  # the slide's own border is one, and regions do end at others by chance


def test_the_output_tree_is_whole(finished):
    out, _ = finished
    for name in ("summary.csv", "report.html", "measurements.csv", "qupath/import.groovy"):
        assert (out / name).stat().st_size > 0
    assert (out / "overlays" / "one.jpg").stat().st_size > 1000
    assert len(list((out / "runs").glob("*.json"))) == 1


@pytest.mark.parametrize("executor", ["threads", "processes", "dask"])
def test_executors_give_the_same_bytes(slide, finished, tmp_path, executor):
    (result,) = annotate(slide, tmp_path, CONFIG, executor=executor, workers=2)
    assert result.status == "done", result.error
    assert contents(tmp_path, *RESULTS) == contents(finished[0], *RESULTS)


@pytest.mark.parametrize("step", ["tile", "predict", "stitch"])
def test_kill_and_resume_gives_the_same_bytes(slide, finished, tmp_path, step):
    """kill -9 after a few blocks of a step; the same command again ends with the same hashes."""
    code = (
        "import sys, time\nfrom wsiseg.run import annotate\nfrom wsiseg.config import Config\n"
        "def report(job, step, done, total):\n"
        f"    if step == {step!r} and done >= 2:\n"
        "        print('now', flush=True)\n        time.sleep(600)\n"
        f"annotate({str(slide)!r}, {str(tmp_path)!r}, Config.model_validate("
        "{'tile': {'block': 448}, 'predict': {'checkpoint': 'tiny'}}),\n"
        "    executor='serial', progress=report)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"now\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    before = contents(tmp_path, *RESULTS)
    seen: dict[str, list[int]] = {}

    def report(job, name, done, total):
        seen.setdefault(name, []).append(done)

    (result,) = annotate(slide, tmp_path, CONFIG, executor="serial", progress=report)
    assert result.status == "done", result.error
    assert contents(tmp_path, *RESULTS) == contents(finished[0], *RESULTS)
    assert min(seen[step]) >= 2, "finished blocks were done again"
    marks = [key for key in before if f"done/{step}/c." in key]
    assert len(marks) >= 2


def test_second_run_does_nothing(slide, finished):
    out, _ = finished
    store = out / "slides"
    times = {f: f.stat().st_mtime_ns for f in store.rglob("c/**/*") if f.is_file()}
    time.sleep(0.01)
    annotate(slide, out, CONFIG, executor="serial")
    assert times == {f: f.stat().st_mtime_ns for f in store.rglob("c/**/*") if f.is_file()}


def test_an_edited_outline_redoes_what_it_touches(slide, finished, tmp_path, monkeypatch):
    """One edit redid the slide: each block's digest held the whole mask."""
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    shutil.copytree(finished[0], out)
    store = SlideStore(out / "slides" / "one.zarr")
    kept = np.argwhere(kept_tiles(store, CONFIG.tissue)).tolist()
    box = store.grid.tile_box(*kept[0])
    x, y, side = 2 * box.x, 2 * box.y, 2 * box.width  # level 0 has half the store's µm/px
    square = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    outline = out / "tissue" / "one.geojson"
    drawn = json.loads(outline.read_text())
    drawn["features"].append({
        "type": "Feature", "geometry": {"type": "Polygon", "coordinates": [square]},
        "properties": {"objectType": "annotation", "classification": {"name": "Ignore*"}},
    })  # fmt: skip
    outline.write_text(json.dumps(drawn))
    begun, begin = [], SlideStore.begin

    def note(self, step, block):
        begun.append((step, block))
        begin(self, step, block)

    monkeypatch.setattr(SlideStore, "begin", note)
    (result,) = annotate(slide, out, CONFIG, executor="serial")
    assert result.status == "done", result.error
    assert "its tissue is as drawn in tissue/one.geojson" in result.note
    own, n = store.grid.owner(*kept[0]), store.grid.n_blocks
    by_step = {s: [b for name, b in begun if name == s] for s in ("tile", "predict", "stitch")}
    assert by_step["tile"] == by_step["predict"] == [own]
    assert own in by_step["stitch"]
    assert len(by_step["stitch"]) <= 9 < n
    (fresh / "tissue").mkdir(parents=True)
    shutil.copy(outline, fresh / "tissue")
    annotate(slide, fresh, CONFIG, executor="serial")
    assert contents(out, *RESULTS) == contents(fresh, *RESULTS)


def test_a_bad_folder_does_not_end_the_batch(slide, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    for sub in ("a", "b"):
        (folder / sub).mkdir(parents=True)
        (folder / sub / "same.svs").symlink_to(slide)
    (folder / "good.svs").write_bytes(slide.read_bytes())
    (folder / "cut.svs").write_bytes(slide.read_bytes()[:20_000])
    (folder / "text.svs").write_text("I am no slide")
    synthesize_slide(folder / "blank.svs", width=1024, height=1024, seed=1, tissue=False)
    (folder / "b" / "same.svs").unlink()
    (folder / "b" / "same.svs").write_bytes(slide.read_bytes() + b"\0")
    results = annotate(folder, out, CONFIG, executor="serial", nested=True)
    status = {result.slide: result.status for result in results}
    assert status == {
        "a/same": "done", "b/same": "done", "good": "done", "cut": "failed", "text": "failed",
        "blank": "no tissue",
    }  # fmt: skip
    rows = {row["slide"]: row for row in csv.DictReader((out / "summary.csv").open())}
    assert "cut.svs" in rows["cut"]["error"]
    assert json.loads((out / "geojson" / "blank.geojson").read_bytes())["features"] == []
    assert (out / "geojson" / "a" / "same.geojson").exists()
    assert (out / "geojson" / "b" / "same.geojson").exists()


def test_an_output_that_is_a_file_is_refused(slide, tmp_path):
    (tmp_path / "out").write_text("of a person")
    with pytest.raises(ConfigError, match="out: is a file; the outputs of a run go into a folder"):
        annotate(slide, tmp_path / "out", Config.model_validate({"predict": TINY}))
    assert (tmp_path / "out").read_text() == "of a person"


def test_manifest_gives_mpp(tmp_path):
    (tmp_path / "m.csv").write_text("slide,mpp\na.svs,0.25\n/abs/b.svs,\n")
    jobs = plan_jobs([tmp_path / "m.csv"])
    assert [(job.path, job.mpp) for job in jobs] == [
        (tmp_path / "a.svs", 0.25), (Path("/abs/b.svs"), None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"), [("file\na\n", "needs 'slide'"), ("slide,mpp\na,x\n", "line 2: mpp 'x'")]
)
def test_bad_manifests(tmp_path, text, message):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(ConfigError, match=message):
        plan_jobs([tmp_path / "m.csv"])


def test_missing_input_and_empty_folder(tmp_path):
    with pytest.raises(SlideOpenError, match="does not exist"):
        plan_jobs([tmp_path / "none.svs"])
    with pytest.raises(SlideOpenError, match="holds no slide; use --nested"):
        plan_jobs([tmp_path])


def test_names_of_any_length_and_first_letter(tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    stems = ["a" * 251, "a" * 221, "=1+1", "-x", "+y", "@z"]
    synthesize_slide(tmp_path / "one.svs", width=512, height=512, seed=3)
    for stem in stems:
        shutil.copy(tmp_path / "one.svs", folder / f"{stem}.svs")
    for _ in range(2):
        results = annotate(folder, out, CONFIG, executor="serial")
        assert {result.error for result in results} == {""}
        rows = list(csv.DictReader((out / "summary.csv").open()))
        assert len(rows) == len(stems)
    names = {path.name.removesuffix(".geojson") for path in (out / "geojson").iterdir()}
    assert names >= {"=1+1", "-x", "+y", "@z"}
    assert sorted(len(name) for name in names)[-2:] == [200, 200]


def test_links_to_one_file_are_done_once(tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    synthesize_slide(folder / "one.svs", width=512, height=512, seed=3)
    (folder / "link.svs").symlink_to("one.svs")
    (folder / "gone.svs").symlink_to("nowhere.svs")
    results = {r.slide: r for r in annotate(folder, out, CONFIG, executor="threads", workers=2)}
    assert {name: result.status for name, result in results.items()} == {
        "gone": "failed", "link": "same file", "one": "done",
    }  # fmt: skip
    assert results["link"].note == "the same file as one"
    rows = {row["slide"]: row for row in csv.DictReader((out / "summary.csv").open())}
    assert rows["link"]["note"] == "the same file as one"
    assert "the same file as one" in (out / "report.html").read_text()
    assert sorted(path.name for path in (out / "geojson").iterdir()) == ["one.geojson"]


def test_another_slide_of_that_name_gets_a_name_of_its_own(finished, tmp_path):
    """It failed, its row replaced that of the first, and `overwrite` replaced the results."""
    other, out = tmp_path / "one.svs", tmp_path / "out"
    shutil.copytree(finished[0], out)
    synthesize_slide(other, width=1024, height=1024, seed=9)
    for overwrite in (False, True):
        (result,) = annotate(other, out, CONFIG, executor="serial", overwrite=overwrite)
        assert (result.slide, result.status) == ("one.svs", "done"), result.error
    for folder in ("slides/one.zarr", "geojson/one.geojson"):
        assert contents(out, folder) == contents(finished[0], folder)
    for table in ("summary.csv", "measurements.csv"):
        rows = csv.DictReader((out / table).open())
        assert {row["slide"] for row in rows} == {"one", "one.svs"}


def test_a_file_that_was_replaced_by_another_slide_is_refused(slide, finished, tmp_path):
    copy, out = tmp_path / "one.svs", tmp_path / "out"
    shutil.copytree(finished[0], out)
    shutil.copy(slide, copy)
    (result,) = annotate(copy, out, CONFIG, executor="serial")
    assert (result.slide, result.status) == ("one", "done"), "the same slide, elsewhere"
    synthesize_slide(copy, width=1024, height=1024, seed=9)
    (result,) = annotate(copy, out, CONFIG, executor="serial")
    assert (result.slide, result.status) == ("one", "failed")
    assert "another slide" in result.error


def test_a_store_with_the_identity_of_older_versions_is_done_again(slide, finished, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    facts = out / "slides" / "one.zarr" / "zarr.json"
    content, known = slide.read_bytes(), SlideStore(facts.parent).slide["identity"]
    parts = str(len(content)).encode() + b":" + content[: 2**16] + content[-(2**16) :]
    facts.write_text(facts.read_text().replace(known, hashlib.sha256(parts).hexdigest()))
    (result,) = annotate(slide, out, CONFIG, executor="serial")
    assert result.status == "done", result.error
    assert SlideStore(facts.parent).slide["identity"] == known
    assert contents(out, *RESULTS) == contents(finished[0], *RESULTS)


def test_a_slide_unlike_the_training_patches_is_said_to_be(slide, tmp_path):
    config = Config.model_validate({"tile": {"block": 448}})  # `tissue`, which knows real tissue
    (result,) = annotate(slide, tmp_path, config, executor="serial")
    assert result.status == "done", result.error
    assert "looks unlike what the model was taught" in result.note
    for name in ("summary.csv", "report.html"):
        assert "looks unlike what the model was taught" in (tmp_path / name).read_text()


def test_damaged_tiles_are_counted_told_and_drawn(slide, tmp_path):
    broken = tmp_path / "broken.svs"
    shutil.copy(slide, broken)
    with tifffile.TiffFile(broken) as file:
        across = -(-file.pages.first.imagewidth // file.pages.first.tilewidth)
    spoil(broken, 5 * across + 6)
    blank = Config.model_validate({**CONFIG.model_dump(), "slide": {"damaged": "blank"}})
    (failed,) = annotate(broken, tmp_path / "fail", CONFIG, executor="serial")
    (result,) = annotate(broken, tmp_path / "blank", blank, executor="serial")
    assert failed.status == "failed"
    assert "broken.svs: cannot decode level 0" in failed.error
    assert "(column 6, row 5)" in failed.error
    assert (result.status, result.damaged_tiles) == ("done", 1)
    said = "1 tile of the slide's file cannot be decoded, and was taken for glass"
    assert said in result.note
    (row,) = csv.DictReader((tmp_path / "blank" / "summary.csv").open())
    assert row["damaged_tiles"] == "1"
    assert said in row["note"]
    page = (tmp_path / "blank" / "report.html").read_text()
    assert "damaged tiles <b>1</b>" in page
    picture = np.asarray(Image.open(tmp_path / "blank" / "overlays" / "broken.jpg")).astype(int)
    assert ((picture[..., 0] > 150) & (picture[..., 1:].max(2) < 60)).sum() > 50


def test_tiles_take_the_checkpoints_scale_and_another_is_said(slide, tmp_path):
    checkpoint = str(taught_at(tmp_path / "m.safetensors", 2.0, 64))
    config = Config.model_validate({"predict": {"checkpoint": checkpoint}})
    (result,) = annotate(slide, tmp_path / "null", config, executor="serial")
    grid = SlideStore(tmp_path / "null" / "slides" / "one.zarr").grid
    assert (result.status, result.note, grid.tile, grid.block) == ("done", "", 64, 1792)
    (record,) = (tmp_path / "null" / "runs").glob("*.json")
    assert json.loads(record.read_text())["config"]["tile"]["mpp"] == 2.0

    insisting = config.model_copy(update={"tile": TileConfig(mpp=1.0)})
    with pytest.warns(UserWarning, match=r"tiles have 1 µm/px, the checkpoint was trained at 2"):
        (result,) = annotate(slide, tmp_path / "set", insisting, executor="serial")
    for text in (result.note, *((tmp_path / "set" / n).read_text() for n in _SAID)):
        assert "its tiles have 1 µm/px, the checkpoint was trained at 2" in text


_SAID = ("summary.csv", "report.html")


def test_the_asked_for_formats_are_written(slide, finished, tmp_path):
    store = tmp_path / "slides" / "one.zarr"
    shutil.copytree(finished[0] / "slides" / "one.zarr", store)
    export = {"formats": ["ome-tiff", "masks"], "mask_mpp": 4.0}
    config = Config.model_validate({"tile": {"block": 448}, "predict": TINY, "export": export})
    (result,) = annotate(slide, tmp_path, config, executor="serial")
    assert result.status == "done", result.error
    assert (tmp_path / "ome-tiff" / "one.ome.tiff").stat().st_size > 1000
    assert (tmp_path / "masks" / "one" / "Tumor_4mpp.png").exists()
    assert not (tmp_path / "geojson").exists()
    text = (tmp_path / "report.html").read_text()
    assert 'href="ome-tiff/one.ome.tiff"' in text


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_format_that_lacks_its_package_is_told_before_any_work(
    slide, tmp_path, monkeypatch, dry_run
):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    config = Config.model_validate({"predict": TINY, "export": {"formats": ["geojson", "parquet"]}})
    with pytest.raises(MissingDependencyError, match=r"pip install 'wsiseg\[parquet\]'"):
        annotate(slide, tmp_path / "out", config, dry_run=dry_run)
    assert not (tmp_path / "out").exists()


def test_dry_run_writes_nothing(slide, tmp_path):
    (result,) = annotate(slide, tmp_path / "out", CONFIG, dry_run=True)
    assert result.status == "planned"
    assert result.tiles == 7 * 6
    assert not (tmp_path / "out").exists()
