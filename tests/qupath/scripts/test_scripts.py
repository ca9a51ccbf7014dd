import hashlib
import json
import os
import re
import shutil
import subprocess
import uuid
from pathlib import Path

import numpy as np
import pytest

from tests.qupath.regions import SQUARE, annotate, make_region
from wsiseg.annotations import PALETTES
from wsiseg.config import ExportConfig
from wsiseg.qupath import export_geojson, lint_geojson, write_geojson, write_scripts
from wsiseg.run.names import name_outputs

STUBS = Path(__file__).parent / "stubs"


def test_the_script_knows_its_folder_and_the_colours(tmp_path):
    path, _ = write_scripts(tmp_path)
    assert path == tmp_path / "qupath" / "import.groovy"
    text = path.read_text(encoding="utf-8")
    assert f"def OUTPUT = '{tmp_path.resolve().as_posix()}'" in text
    for name, color in zip(PALETTES["bcss"].names, PALETTES["bcss"].colors, strict=True):
        assert f"'{name}': {list(color)}" in text
    assert not re.search(r"@[A-Z]+@", text), "a placeholder was left"


def test_a_folder_with_a_quote_and_a_dollar(tmp_path):
    root = tmp_path / "it's $5"
    text = write_scripts(root)[0].read_text(encoding="utf-8")
    assert "it\\'s $5'" in text


@pytest.mark.parametrize("which", [0, 1])
def test_brackets_pair_up(tmp_path, which):
    text = write_scripts(tmp_path)[which].read_text(encoding="utf-8")
    assert not re.search(r"@[A-Z]+@", text), "a placeholder was left"
    code = re.sub(r"/\*.*?\*/|//[^\n]*|'(?:\\.|[^'\\])*'", "", text, flags=re.S)
    for opening, closing in ("{}", "[]"):
        assert code.count(opening) == code.count(closing)


needs_groovy = pytest.mark.skipif(not shutil.which("groovyc"), reason="groovy is not installed")


@pytest.fixture(scope="module")
def run_script(tmp_path_factory):
    """Runs the script by a real Groovy against stubs of QuPath's classes; the lines it prints."""
    stubs = tmp_path_factory.mktemp("stubs")
    # Without the second compiler, a short run takes half the time.
    quick = {"JAVA_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}
    java = shutil.which("java")
    if java:
        quick["JAVA_HOME"] = str(Path(java).resolve().parents[1])
    quick |= os.environ

    def call(*command):
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=600, check=False, env=quick
        )
        if "JAVA_HOME" in done.stdout + done.stderr:
            pytest.skip(f"groovy finds no Java: {(done.stdout + done.stderr).strip()}")
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def run(root, image="case.svs", which=0, **properties):
        given = {"image": image, "kept": str(root / "kept.txt"), **properties}
        flags = [f"-Dstub.{name}={value}" for name, value in given.items()]
        return call("groovy", "-cp", str(stubs), *flags, str(write_scripts(root)[which]))

    probe = subprocess.run(
        ["groovyc", "--version"], capture_output=True, text=True, check=False, env=quick
    )
    if probe.returncode:
        why = " ".join((probe.stderr or probe.stdout).split())
        pytest.skip(f"groovyc is installed, but does not run (JAVA_HOME?): {why}")
    call("groovyc", "-d", str(stubs), *map(str, STUBS.rglob("*.groovy")))
    return run


def squares(count):
    """Small regions in a row, 100 px apart."""
    return [make_region(np.add(SQUARE, (100 * i, 0))) for i in range(count)]


@needs_groovy
def test_import_colours_new_classes_and_skips_what_is_there(run_script, tmp_path):
    write_geojson(annotate(squares(3)), tmp_path / "geojson" / "sub" / "case.geojson.gz")
    write_geojson(annotate(squares(1)), tmp_path / "geojson" / "case2.geojson")
    lines = run_script(tmp_path)
    assert lines[-1] == "wsiseg: case.svs: 3 regions imported, 0 were there already"
    assert "resolved" not in lines, "among regions of ours there is nothing to resolve"
    colors = dict(line.split()[-2:] for line in lines if line.startswith("class "))
    assert colors["Stroma"] == str(0x123456), "the project's own colour stays"
    assert colors["Tumor"] == str(200 << 16), "a new class takes ours"
    assert colors["Necrosis"] == str(0x323232), "so does one without a colour of its own"
    again = run_script(tmp_path, image="case.svs - Series 0")
    assert again == ["wsiseg: case.svs: 0 regions imported, 3 were there already"]


@needs_groovy
def test_import_resolves_the_hierarchy_among_other_objects_only(run_script, tmp_path):
    write_geojson(annotate(squares(2)), tmp_path / "geojson" / "case.geojson")
    run_script(tmp_path)
    write_geojson(annotate(squares(3)), tmp_path / "geojson" / "case.geojson")
    lines = run_script(tmp_path)
    assert lines[-1] == "wsiseg: case.svs: 1 regions imported, 2 were there already"
    assert "resolved" not in lines, "all that was there is in the file, too"
    kept = tmp_path / "kept.txt"
    kept.write_text("00000000-0000-4000-8000-000000000001")
    assert "resolved" in run_script(tmp_path)


@needs_groovy
def test_a_renamed_entry_is_found_by_its_file(run_script, tmp_path):
    write_geojson(annotate(squares(2)), tmp_path / "geojson" / "a b.geojson")
    lines = run_script(tmp_path, image="Patient 7", uri="file:/slides/a%20b.svs")
    assert lines[-1] == "wsiseg: Patient 7: 2 regions imported, 0 were there already"
    (line,) = run_script(tmp_path, image="Patient 7", uri="file:/slides/c.svs")
    assert line.startswith("wsiseg: Patient 7: no file of this name nor of its file, c.svs, below")


@needs_groovy
def test_the_file_counts_where_an_entry_bears_another_slides_name(run_script, tmp_path):
    write_geojson(annotate(squares(2)), tmp_path / "geojson" / "one.geojson")
    write_geojson(annotate(squares(3)), tmp_path / "geojson" / "two.geojson")
    lines = run_script(tmp_path, image="two.svs", uri="file:/slides/one.svs")
    assert lines[-1] == "wsiseg: two.svs: 2 regions imported, 0 were there already"
    (tmp_path / "kept.txt").unlink()
    lines = run_script(tmp_path, image="two.svs", uri="omero:iid=7")  # no path at all
    assert lines[-1] == "wsiseg: two.svs: 3 regions imported, 0 were there already"


@needs_groovy
def test_import_takes_the_latest_of_two_forms_and_the_right_of_two_folders(run_script, tmp_path):
    old = write_geojson(annotate(squares(2)), tmp_path / "geojson" / "a" / "case.geojson")
    write_geojson(annotate(squares(3)), tmp_path / "geojson" / "a" / "case.geojson.gz")
    write_geojson(annotate(squares(4)), tmp_path / "geojson" / "b" / "case.geojson")
    os.utime(old, (1, 1))
    lines = run_script(tmp_path, uri="file:/slides/a/case.svs")
    assert lines[0] == "wsiseg: case.svs: case.geojson is older than case.geojson.gz, left out"
    assert lines[-1] == "wsiseg: case.svs: 3 regions imported, 0 were there already"
    (line,) = run_script(tmp_path, uri="file:/elsewhere/case.svs")
    assert "all fit; import the right one by hand" in line


@needs_groovy
def test_import_prefers_the_name_with_the_extension(run_script, tmp_path):
    """It refused to choose, though the other one is that of case.svs."""

    def read(name):
        (tmp_path / "kept.txt").unlink(missing_ok=True)
        (line,) = (
            line
            for line in run_script(tmp_path, image=name, uri=f"file:/slides/{name}")
            if line.startswith("wsiseg")
        )
        return line

    for count, name in ((2, "case"), (3, "case.tif")):
        write_geojson(annotate(squares(count)), tmp_path / "geojson" / f"{name}.geojson")
    assert read("case.tif") == "wsiseg: case.tif: 3 regions imported, 0 were there already"
    assert read("case.svs") == "wsiseg: case.svs: 2 regions imported, 0 were there already"
    write_geojson(annotate(squares(4)), tmp_path / "geojson" / "case.tif-0123abcd.geojson")
    line = read("case.tif")
    assert "all fit; import the right one by hand" in line
    assert "case.geojson" not in line


@needs_groovy
def test_import_loads_the_parts_that_one_looks_at(run_script, tmp_path):
    path = tmp_path / "geojson" / "case.geojson"
    written = export_geojson(annotate(squares(20)), path, ExportConfig(max_vertices=40))
    parts = len(list(written.path.iterdir()))
    assert parts == 20
    lines = run_script(tmp_path, selected="150,0,300,5")
    assert lines[0] == f"wsiseg: case.svs: 2 of {parts} parts lie in the selection or view"
    assert lines[-1] == "wsiseg: case.svs: 2 regions imported, 0 were there already"
    lines = run_script(tmp_path, view="0,0,100000,100000")
    assert lines[-1] == "wsiseg: case.svs: 18 regions imported, 2 were there already"
    (kept,) = {len((tmp_path / "kept.txt").read_text().split())}
    assert kept == 20
    lines = run_script(tmp_path)
    assert "no area: open the image and select an annotation" in lines[0]


@needs_groovy
def test_import_finds_a_name_that_was_cut(run_script, tmp_path):
    image = "a" * 250 + ".svs"
    (name,) = name_outputs([(Path(image), Path(image))])
    write_geojson(annotate(squares(2)), tmp_path / "geojson" / f"{name}.geojson")
    write_geojson(annotate(squares(3)), tmp_path / "geojson" / f"b{name}.geojson")
    (line,) = (line for line in run_script(tmp_path, image=image) if line.startswith("wsiseg"))
    assert line.endswith(": 2 regions imported, 0 were there already")


@needs_groovy
def test_import_says_that_a_file_is_missing(run_script, tmp_path):
    write_geojson(annotate(squares(1)), tmp_path / "geojson" / "case.geojson")
    (line,) = run_script(tmp_path, image="other.svs", uri="file:/slides/other.svs")
    assert line.startswith("wsiseg: other.svs: no file of this name below ")


def in_qupath(root, *features):
    """What an image holds, as QuPath would export it."""
    path = root / "in_qupath.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return str(path)


def written(path):
    """Id, state and class of each feature of a file of corrections, which QuPath takes too."""
    assert lint_geojson(path) == []
    features = json.loads(path.read_text())["features"]
    facts = [(f["id"], f["properties"]) for f in features]
    return {(i, p.get("metadata", {}).get("wsiseg"), p["classification"]["name"]) for i, p in facts}


NEW = "00000000-0000-4000-8000-000000000001"


def reclassify(feature, name):
    text = json.loads(json.dumps(feature))
    text["properties"]["classification"] = {"name": name, "color": [1, 2, 3]}
    return text


@needs_groovy
def test_export_writes_what_differs_from_the_map_and_keeps_older_files(run_script, tmp_path):
    path = write_geojson(annotate(squares(4)), tmp_path / "geojson" / "sub" / "case.geojson")
    ours = json.loads(path.read_text())["features"]
    moved = json.loads(json.dumps(ours[2]))
    moved["geometry"]["coordinates"][0][1][0] += 7
    fresh = {**reclassify(ours[0], "Necrosis"), "id": NEW}
    checked = {**reclassify(ours[0], "Checked*"), "id": NEW[:-1] + "2"}
    held = in_qupath(tmp_path, ours[0], reclassify(ours[1], "Immune cells"), moved, fresh, checked)
    name = ours[0]["properties"]["classification"]["name"]
    lines = run_script(tmp_path, which=1, objects=held, uri="file:/slides/sub/case.svs")
    target = tmp_path / "corrections" / "sub" / "case.geojson"
    assert lines == [f"wsiseg: case.svs: 1 reclassified, 2 drawn, 2 deleted, 1 checked to {target}"]
    reshaped = str(
        uuid.UUID(bytes=hashlib.md5(f"{moved['id']} reshaped".encode()).digest(), version=3)
    )
    assert written(target) == {
        (ours[1]["id"], "reclassified", "Immune cells"), (ours[2]["id"], "deleted", name),
        (reshaped, "drawn", name), (ours[3]["id"], "deleted", name),
        (NEW, "drawn", "Necrosis"), (checked["id"], "checked", "Checked*"),
    }  # fmt: skip
    first = target.read_text()
    assert json.loads(first)["wsiseg"] == {"size": [20000, 10000]}
    (line,) = run_script(tmp_path, which=1, objects=held)
    assert line == "wsiseg: case.svs: case.geojson is up to date"
    lines = run_script(tmp_path, which=1, objects=in_qupath(tmp_path, *ours[:3]))
    assert lines[0] == "wsiseg: case.svs: the earlier case.geojson is now case.geojson.old"
    assert (target.parent / "case.geojson.old").read_text() == first
    assert written(target) == {(ours[3]["id"], "deleted", name)}
    lines = run_script(tmp_path, which=1, objects=in_qupath(tmp_path, *ours))
    assert lines[-1] == "wsiseg: case.svs: nothing was corrected or drawn"
    assert not target.exists()


@needs_groovy
def test_export_of_an_image_without_a_map_gives_all_that_was_drawn(run_script, tmp_path):
    path = write_geojson(annotate(squares(1)), tmp_path / "geojson" / "other.geojson")
    one = json.loads(path.read_text())["features"][0]
    plain = {**one, "id": NEW, "properties": {"objectType": "annotation"}}
    lines = run_script(tmp_path, which=1, objects=in_qupath(tmp_path, one, plain))
    assert lines[0] == "wsiseg: case.svs: 1 annotations have no class and are left out"
    found = written(tmp_path / "corrections" / "case.geojson")
    assert found == {(one["id"], None, one["properties"]["classification"]["name"])}
