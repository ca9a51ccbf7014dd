"""What a finished slide's outputs are on the next run: left alone, made anew, or kept as edited."""

import json
import shutil

import pytest
from typer.testing import CliRunner

import wsiseg.run.after_tiling as after_tiling
import wsiseg.run.outputs as outputs_module
from wsiseg.cli import app
from wsiseg.config import Config
from wsiseg.demo.synthesis import synthesize_slide
from wsiseg.errors import SlideReadError, StoreError
from wsiseg.run import annotate
from wsiseg.store import FORMAT, SlideStore
from wsiseg.tile import tile_slide

SETTINGS = {
    "tile": {"block": 448},
    "predict": {"checkpoint": "tiny"},
    "export": {"formats": ["geojson", "png", "masks"]},
}
CONFIG = Config.model_validate(SETTINGS)


def configure(**changes):
    return Config.model_validate({**SETTINGS, **changes})


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    path = tmp_path_factory.mktemp("slide") / "one.svs"
    synthesize_slide(path, width=1536, height=1280, seed=3)
    return path


@pytest.fixture(scope="module")
def finished(slide, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "out"
    (result,) = annotate(slide, out, CONFIG, executor="serial")
    assert result.status == "done", result.error
    return out, result


@pytest.fixture
def out(finished, tmp_path):
    """A copy of the finished run, time stamps and all."""
    return shutil.copytree(finished[0], tmp_path / "out")


def run(slide, out, config=CONFIG, **others):
    (result,) = annotate(slide, out, config, executor="serial", **others)
    assert result.status == "done", result.error
    return result


def outputs(out):
    """Files that a run writes of a slide, beside its store."""
    places = ("geojson", "overlays", "png", "masks")
    files = [file for place in places for file in (out / place).rglob("*") if file.is_file()]
    return {str(file.relative_to(out)): file for file in files}


def contents(out):
    return {name: file.read_bytes() for name, file in outputs(out).items()}


def test_a_finished_slide_is_neither_traced_nor_written(slide, finished, out, monkeypatch):
    monkeypatch.setattr(after_tiling, "outline_regions", lambda *_: pytest.fail("traced again"))
    before = {name: file.stat() for name, file in outputs(out).items()}
    result = run(slide, out)
    assert {name: file.stat() for name, file in outputs(out).items()} == before
    assert result.measurements == finished[1].measurements
    assert (result.class_mm2, result.note) == (finished[1].class_mm2, finished[1].note)


def test_copied_without_its_time_stamps_it_is_still_finished(slide, out, monkeypatch):
    monkeypatch.setattr(after_tiling, "outline_regions", lambda *_: pytest.fail("traced again"))
    for file in outputs(out).values():
        file.write_bytes(file.read_bytes())
    run(slide, out)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["geojson/one.geojson", "overlays/one.jpg", "png/one.png"])
def test_an_edited_output_is_kept_beside_and_said(slide, finished, out, name, overwrite):
    path = out / name
    path.write_bytes(b"mine")
    result = run(slide, out, overwrite=overwrite)
    kept = path.with_name(f"one.edited{path.suffix}")
    assert kept.read_bytes() == b"mine"
    assert f"{path.name} was edited: it is kept as {kept.name}" in result.note
    assert kept.name in (out / "summary.csv").read_text(encoding="utf-8-sig")
    assert contents(out) == {
        **contents(finished[0]), str(kept.relative_to(out)): b"mine"
    }  # fmt: skip
    run(slide, out)
    assert len(contents(out)) == len(contents(finished[0])) + 1, "once is enough"


def test_a_corrected_class_in_the_geojson_is_kept(slide, finished, out):
    """As QuPath saves it: other bytes, and no word of wsiseg in them."""
    path = out / "geojson" / "one.geojson"
    features = json.loads(path.read_bytes())["features"]
    features[0]["properties"]["classification"] = {"name": "Other", "color": [255, 200, 0]}
    text = json.dumps({"type": "FeatureCollection", "features": features})
    path.write_text(text)
    run(slide, out, configure(outline={"simplify_um": 2}))
    assert (out / "geojson" / "one.edited.geojson").read_text() == text
    assert path.read_bytes() != contents(finished[0])["geojson/one.geojson"]


def test_a_file_in_a_folder_of_ours_is_left_alone(slide, finished, out):
    mask = next((out / "masks" / "one").iterdir())
    mask.write_bytes(b"mine")
    (mask.parent / "notes.txt").write_text("mine, too")
    result = run(slide, out)
    kept = mask.with_name(f"{mask.stem}.edited{mask.suffix}")
    assert kept.read_bytes() == b"mine"
    assert result.note.count("was edited") == 1
    assert (mask.parent / "notes.txt").read_text() == "mine, too"
    assert mask.read_bytes() == contents(finished[0])[f"masks/one/{mask.name}"]


def test_masks_of_an_earlier_map_do_not_stay(slide, out):
    folder = out / "masks" / "one"
    (folder / "notes.txt").write_text("mine")
    (folder / "mine.png").write_bytes(b"mine, too")
    before = {path.name: path for path in folder.iterdir()}
    edited = next(path for name, path in before.items() if name.startswith("Tumor"))
    edited.write_bytes(b"edited")
    config = configure(export={"formats": ["masks"], "mask_mpp": 4})
    result = run(slide, out, config)
    names = {path.name for path in folder.iterdir()}
    assert sorted(name for name in names if name.endswith("_4mpp.png")) == [
        f"{name}_4mpp.png" for name in ("Immune_cells", "Necrosis", "Stroma", "Tumor", "classes")
    ]
    assert names & before.keys() == {"notes.txt", "mine.png"}, "what no run wrote"
    kept = edited.with_name(f"{edited.stem}.edited.png")
    assert len(names) == 5 + 3
    assert kept.read_bytes() == b"edited"
    assert f"{edited.name} was edited: it is kept as {kept.name}" in result.note
    said = "masks/one also holds files that are not of this map: mine.png"
    assert said in result.note
    assert "notes.txt" not in result.note
    (folder / "mine.png").unlink()
    assert said not in run(slide, out, config).note
    run(slide, out, configure(export={"formats": ["masks"], "mask_mpp": 8}))
    assert not list(folder.glob("*_4mpp.png"))


def test_an_export_over_masks_of_a_run_replaces_them_too(out):
    folder = out / "masks" / "one"
    tumor = next(folder.glob("Tumor*"))
    tumor.write_bytes(b"edited")
    (folder / "mine.png").write_bytes(b"mine")
    call = ["export", str(out / "slides" / "one.zarr"), "-o", str(folder), "--format", "masks",
            "--overwrite", "--executor", "serial", "--set", "export.mask_mpp=4"]  # fmt: skip
    done = CliRunner().invoke(app, call, env={"COLUMNS": "500"})
    assert done.exit_code == 0, done.output
    assert f"one: {tumor.name} was edited: it is kept as {tumor.stem}.edited.png" in done.output
    assert "one: it also holds files that are not of this map: mine.png" in done.output
    names = {path.name for path in folder.iterdir() if not path.name.endswith("_4mpp.png")}
    assert names == {f"{tumor.stem}.edited.png", "mine.png"}


def test_files_in_the_record_of_an_earlier_version_may_be_a_persons(slide, out):
    """It recorded all that lay in the folder."""
    path = out / "runs" / "outputs" / "one.json"
    record = json.loads(path.read_text())
    assert record["outputs"]["masks/one"].pop("own")
    path.write_text(json.dumps(record))
    before = sorted(file.name for file in (out / "masks" / "one").iterdir())
    result = run(slide, out, configure(export={"formats": ["masks"], "mask_mpp": 4}))
    assert {file.name for file in (out / "masks" / "one").iterdir()} > set(before)
    assert f"not of this map: {', '.join(before[:3])} and 2 more" in result.note


def test_what_is_missing_and_what_has_other_settings_is_made(slide, finished, out):
    (out / "png" / "one.png").unlink()
    (out / "geojson" / "one.geojson").unlink()
    result = run(slide, out)
    assert contents(out) == contents(finished[0])
    assert result.note == finished[1].note
    changed = run(slide, out, configure(outline={"min_area_um2": 20_000}))
    assert contents(out).keys() == contents(finished[0]).keys(), "nothing was edited"
    assert contents(out) != contents(finished[0])
    assert changed.measurements != result.measurements


def test_with_the_record_lost_nothing_is_taken_for_edited(slide, finished, out):
    shutil.rmtree(out / "runs")
    result = run(slide, out)
    assert contents(out) == contents(finished[0])
    assert result.note == finished[1].note


def test_what_a_killed_run_put_aside_is_no_edit(slide, finished, out):
    """Killed between writing a picture and noting it, and again while it was made anew."""
    shutil.rmtree(out / "runs")
    picture = out / "overlays" / "one.jpg"
    picture.rename(picture.with_name("one.edited.jpg"))
    picture.with_name("one.edited2.jpg").write_bytes(b"a person's")
    result = run(slide, out)
    assert result.note == finished[1].note
    kept = picture.with_name("one.edited2.jpg")
    assert kept.read_bytes() == b"a person's"
    kept.unlink()
    assert contents(out) == contents(finished[0])


def test_what_a_killed_run_wrote_is_no_edit_under_other_settings(slide, out, monkeypatch):
    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(outputs_module, "write_pictures", kill)  # the last of them
        with pytest.raises(KeyboardInterrupt):
            run(slide, out, configure(outline={"min_area_um2": 20_000}))
    result = run(slide, out, configure(outline={"min_area_um2": 5_000}))
    assert "edited" not in result.note
    assert not [name for name in contents(out) if "edited" in name]


def test_a_record_that_is_cut_off_is_as_good_as_none(slide, finished, out):
    (out / "runs" / "outputs" / "one.json").write_text('{"outputs": {"geo')
    run(slide, out)
    assert contents(out) == contents(finished[0])


def test_with_the_store_deleted_an_edit_is_kept(slide, finished, out):
    shutil.rmtree(out / "slides")
    shutil.rmtree(out / "runs")
    path = out / "geojson" / "one.geojson"
    edited = path.read_bytes().replace(b"Tumor", b"Other")
    assert edited != path.read_bytes()
    path.write_bytes(edited)
    run(slide, out)
    assert path.with_name("one.edited.geojson").read_bytes() == edited
    assert contents(out).keys() == contents(finished[0]).keys() | {"geojson/one.edited.geojson"}


@pytest.mark.parametrize("meta", [{"format": FORMAT}, {"format": FORMAT - 1, "grid": {}}])
def test_overwrite_works_where_a_plain_run_does(slide, finished, out, meta):
    """A store that was killed while it was laid out, and one of an older format."""
    path = out / "slides" / "one.zarr" / "zarr.json"
    data = json.loads(path.read_text())
    data["attributes"]["wsiseg"] = meta
    path.write_text(json.dumps(data))
    run(slide, out, overwrite=True)
    assert contents(out) == contents(finished[0])


def test_another_slide_does_not_take_a_store(slide, finished, out, tmp_path):
    other = tmp_path / "two.svs"
    synthesize_slide(other, width=1536, height=1280, seed=4)
    path = out / "slides" / "one.zarr"
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    call = ["tile", str(other), "-o", str(path), "--set", "tile.block=448"]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 1
    assert "holds the results of another slide" in done.output.replace("\n", " ")
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    done = CliRunner().invoke(app, [*call, "--overwrite"])
    assert done.exit_code == 0, done.output
    store = SlideStore(path)
    assert store.slide["name"] == "two.svs"
    with pytest.raises(StoreError, match="run it first"):
        store.finished("stitch")


def test_tiling_again_keeps_the_labels_of_the_same_slide(slide, out):
    from wsiseg.compute import open_executor

    path = out / "slides" / "one.zarr"
    before = SlideStore(path).finished("stitch")
    with open_executor("serial", None) as pool:
        tile_slide(slide, path, CONFIG, pool)
    assert SlideStore(path).finished("stitch") == before


def test_outputs_of_an_earlier_map_are_named_and_not_linked(slide, out):
    geojson = {"formats": ["geojson"]}
    assert not run(slide, out, configure(export=geojson)).note, "the same map"
    page = (out / "report" / "one.html").read_text()
    assert all(f'href="../{name}"' in page for name in ("png/one.png", "masks/one"))
    before = contents(out)
    other = {"outline": {"min_area_um2": 20_000}}
    note = "with other settings, and so left out of the report: png/one.png, masks/one"
    for _ in range(2):  # it is said as long as it is so
        assert note in run(slide, out, configure(export=geojson, **other)).note
    assert note in (out / "summary.csv").read_text(encoding="utf-8-sig")
    for name in ("report.html", "report/one.html"):
        text = (out / name).read_text()
        assert 'geojson/one.geojson"' in text
        assert 'png/one.png"' not in text
        assert 'masks/one"' not in text
    assert contents(out)["png/one.png"] == before["png/one.png"], "nobody named it"
    (out / "png" / "one.png").write_bytes(b"exported anew")
    assert "png" not in run(slide, out, configure(export=geojson, **other)).note
    assert not run(slide, out, configure(**other)).outdated


def test_a_map_that_was_corrected_is_kept_when_it_is_made_anew(slide, out):
    corrections = out / "corrections" / "one.geojson"
    corrections.parent.mkdir()
    corrections.write_text("{}")
    before = (out / "geojson" / "one.geojson").read_bytes()
    run(slide, out)
    assert not (corrections.parent / ".maps").exists(), "nothing was made anew"
    run(slide, out, configure(outline={"min_area_um2": 400}))
    kept = corrections.parent / ".maps" / "one"
    assert [path.read_bytes() for path in kept.iterdir()] == [before]
    second = (out / "geojson" / "one.geojson").read_bytes()
    assert second != before
    corrections.write_text("{} ")  # the second was corrected, too
    run(slide, out)
    assert sorted(path.read_bytes() for path in kept.iterdir()) == sorted([before, second])
    corrections.write_text("{}")
    run(slide, out, configure(outline={"min_area_um2": 400}))
    assert len(list(kept.iterdir())) == 2, "the first was made a second time, and is kept already"


def test_the_report_says_that_a_failed_slide_shows_what_was_made_before(slide, out, monkeypatch):
    """Pictures and files of the earlier map stood below the error as if they were of this run."""
    said = "made before, by an earlier run or until it failed"
    pages = [out / name for name in ("report.html", "report/one.html")]
    assert not any(said in page.read_text() for page in pages)

    def fail(*_, **__):
        raise SlideReadError("one.svs: is cut off")

    with monkeypatch.context() as patch:
        patch.setattr("wsiseg.run.slide.plan_tile", fail)
        (result,) = annotate(slide, out, CONFIG, executor="serial")
    assert result.status == "failed"
    for page in pages:
        assert page.read_text().count(said) == 1
        assert 'geojson/one.geojson"' in page.read_text()
    assert run(slide, out).status == "done"
    assert not any(said in page.read_text() for page in pages)
