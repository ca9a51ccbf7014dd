"""What a disk, a copy or a hand does to a finished store: it is found, said, and mended alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import wsiseg
from tests.files import contents
from wsiseg.cli import app
from wsiseg.demo.synthesis import synthesize_slide
from wsiseg.errors import StoreError
from wsiseg.store import SlideStore, check_store, layout, slide_store
from wsiseg.store import opened as opened_module

SETTINGS = ["--set", "tile.block=448", "--set", "predict.checkpoint=tiny"]
SETTINGS += ["--set", "stitch.refine=false", "--executor", "serial"]
STEPS = ("tile", "predict", "stitch")

Break = Callable[[Path], object]


def flip(path: Path) -> None:
    """One bit of the first chunk: of the right size, and of the right index."""
    data = path.read_bytes()
    path.write_bytes(data[:20] + bytes([data[20] ^ 1]) + data[21:])


BREAKS: dict[str, Break] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "changed": flip,
}


def run(*args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


def said(result: Result) -> str:
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slide") / "one.svs"
    synthesize_slide(path, width=2700, height=2000, seed=3)
    return path


def make(slide: Path, store: Path) -> None:
    assert run("tile", slide, "-o", store, *SETTINGS).exit_code == 0
    assert run("predict", store, *SETTINGS).exit_code == 0
    assert run("stitch", store, *SETTINGS).exit_code == 0


@pytest.fixture(scope="module")
def finished(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("finished") / "a.zarr"
    make(slide, store)
    return store


@pytest.fixture
def store(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "a.zarr"))


def shards(store: Path, array: str) -> list[Path]:
    return sorted(path for path in (store / array / "c").rglob("*") if path.is_file())


def test_a_whole_store_is_said_to_be(finished: Path) -> None:
    before = contents(finished)
    found = wsiseg.check_store(finished)
    assert found.whole
    assert found.checked
    names = [name for name in before if "/c/" in name and not name.startswith("done/")]
    assert found.files == len(names) > 40
    assert contents(finished) == before, "a look writes nothing"
    result = run("check", finished)
    assert (result.exit_code, f"complete ({found.files} files)" in said(result)) == (0, True)


@pytest.mark.parametrize(
    ("array", "damage"),
    [(array, "changed") for array in ("image/0", "image/1", "cams/logits", "labels/confidence/2")]
    + [(f"labels/classes/{level}", damage) for level in (0, 1) for damage in BREAKS],
)
def test_damage_is_found_and_only_it_is_done_again(
    slide: Path,
    finished: Path,
    store: Path,
    array: str,
    damage: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, file = contents(store), shards(store, array)[-1]
    coarse = {"image/1": 1, "labels/confidence/2": 2, "labels/classes/1": 2}
    blocks = coarse.get(array, 12)
    BREAKS[damage](file)
    result = run("check", store)
    assert result.exit_code == 1
    assert f"{file.relative_to(store)}: " in said(result)
    left = f"1 of {blocks} blocks are missing"
    assert left in said(result)
    again = run("check", store)
    assert (again.exit_code, left in said(again)) == (1, True)

    begun, begin = [], SlideStore.begin

    def note(self: SlideStore, step: str, block: int) -> None:
        begun.append((step, block))
        begin(self, step, block)

    monkeypatch.setattr(SlideStore, "begin", note)
    make(slide, store)
    assert len(begun) == 1
    assert contents(store) == whole
    assert run("check", store).exit_code == 0


@pytest.mark.parametrize("damage", ["missing", "empty", "cut"])
def test_the_next_run_sees_what_has_not_its_size_by_itself(
    slide: Path, store: Path, damage: str
) -> None:
    whole = contents(store)
    for array in ("image/0", "image/1", "cams/logits", "labels/classes/0", "labels/confidence/1"):
        BREAKS[damage](shards(store, array)[-1])
    make(slide, store)
    assert contents(store) == whole


@pytest.mark.parametrize(
    ("array", "damage"),
    [("labels/classes/0", damage) for damage in BREAKS] + [("labels/classes/2", "missing")],
)
def test_a_damaged_map_is_not_exported(
    store: Path, tmp_path: Path, array: str, damage: str
) -> None:
    """One lost label chunk turned 144 regions into 55, with exit status 0."""
    out = tmp_path / "a.geojson"
    assert run("export", store, "-o", out).exit_code == 0
    out.unlink()
    BREAKS[damage](shards(store, array)[-1])
    result = run("export", store, "-o", out)
    assert result.exit_code == 1
    mends = (
        "run `wsiseg check " if damage == "changed" else "`wsiseg stitch` finished have lost files"
    )
    assert mends in said(result)
    assert not out.exists()


@pytest.mark.parametrize("damage", BREAKS)
@pytest.mark.parametrize(
    ("array", "step"),
    [("image/0", "predict"), ("cams/logits", "stitch"), ("cams/classes", "stitch")],
)
def test_no_step_goes_on_from_damage(store: Path, array: str, step: str, damage: str) -> None:
    """Missing pixels were white, and missing CAMs no tissue."""
    BREAKS[damage](shards(store, array)[1])
    for after in STEPS[STEPS.index(step) :]:
        SlideStore(store).clear_marks(after)
    result = run(step, store, *SETTINGS)
    assert result.exit_code == 1, said(result)
    assert "lost files" in said(result) or "is damaged" in said(result)


def test_reading_tells_a_lost_shard_from_an_empty_one(store: Path) -> None:
    opened = SlideStore(store)
    whole = opened.read_labels(opened.grid.box)
    empty = [block for block in range(12) if (_read(opened, whole, block) == 255).all()]
    assert empty, "the slide has blocks of background, which have no file"
    lost = next(block for block in range(12) if block not in empty)
    row, col = divmod(lost, opened.grid.block_cols)
    (store / f"labels/classes/0/c/{row}/{col}").unlink()
    for block in empty:
        assert (opened.read_labels(opened.grid.block_box(block)) == 255).all()
    with pytest.raises(StoreError, match=rf"classes/0/c/{row}/{col}: is damaged \(it was written"):
        SlideStore(store).read_labels(opened.grid.block_box(lost))


def _read(store: SlideStore, labels: np.ndarray, block: int) -> np.ndarray:
    return labels[store.grid.block_box(block).slices()]


def test_what_should_not_be_there_is_found_too(store: Path) -> None:
    known = {path.relative_to(store).as_posix() for path in shards(store, "labels/classes/0")}
    keys = [f"labels/classes/0/c/{row}/{col}" for row in range(3) for col in range(4)]
    stray = next(key for key in keys if key not in known)
    (store / stray).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(store / min(known), store / stray)
    (fault,) = check_store(store, forget=False).damage
    assert (fault.key, fault.why) == (
        stray,
        "exists, although the block's mark says that it is empty",
    )


def test_a_shard_of_another_block_is_told_from_its_own(slide: Path, tmp_path: Path) -> None:
    """Both fit all their own checksums, and without a codec all shards are of one size."""
    store = tmp_path / "a.zarr"
    assert run("tile", slide, "-o", store, *SETTINGS, "--set", "tile.codec=none").exit_code == 0
    full = max(path.stat().st_size for path in shards(store, "image/0"))
    same = [path for path in shards(store, "image/0") if path.stat().st_size == full]
    assert same[0].read_bytes() != same[1].read_bytes()
    shutil.copy(same[0], same[1])
    (fault,) = check_store(store, forget=False).damage
    assert (fault.key, fault.why) == (
        same[1].relative_to(store).as_posix(), "is not the file that was written",
    )  # fmt: skip


@pytest.mark.parametrize("damage", BREAKS)
def test_the_tissue_mask_is_made_again(slide: Path, store: Path, damage: str) -> None:
    whole, (file,) = contents(store), shards(store, "tissue/mask")
    BREAKS[damage](file)
    with pytest.raises(StoreError, match="tissue/mask/c/0/0: is damaged"):
        SlideStore(store).read_tissue()
    result = run("check", store)
    assert (result.exit_code, "tissue/mask/c/0/0: " in said(result)) == (1, True)
    make(slide, store)
    assert contents(store) == whole


@pytest.mark.parametrize(
    ("array", "damage"),
    [("image/0", "empty"), ("cams/classes", "missing"), ("labels/classes/1", "missing")],
)
def test_a_lost_description_is_mended(slide: Path, store: Path, array: str, damage: str) -> None:
    whole = contents(store)
    BREAKS[damage](store / array / "zarr.json")
    result = run("check", store)
    assert (result.exit_code, f"{array}/zarr.json: is " in said(result)) == (1, True)
    make(slide, store)
    assert contents(store) == whole


SHARES = [*SETTINGS, "--set", "stitch.probabilities=true"]


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("damage", ["missing", "empty", "misspelt"])
def test_damaged_descriptions_of_probabilities_are_found_and_mended(
    store: Path, level: int, damage: str
) -> None:
    """Probabilities may be deleted, but one level of them is damage; it was not seen."""
    assert run("stitch", store, *SHARES).exit_code == 0
    whole, array = contents(store), f"probabilities/{level}"
    path = store / array / "zarr.json"
    text = path.read_bytes().replace(b'"codecs"', b'"codeqs"', 1)
    path.write_bytes(text) if damage == "misspelt" else BREAKS[damage](path)
    broken = shutil.copytree(store, store.with_name("b.zarr"))
    result = run("check", store)
    assert (result.exit_code, f"{array}/zarr.json: is " in said(result)) == (1, True), said(result)
    for one in (store, broken):  # the command mends it with and without the check
        assert run("stitch", one, *SHARES).exit_code == 0
        assert contents(one) == whole
    assert run("check", store).exit_code == 0


def test_deleted_probabilities_are_no_damage(store: Path) -> None:
    assert run("stitch", store, *SHARES).exit_code == 0
    shutil.rmtree(store / "probabilities")
    assert run("check", store).exit_code == 0


GROUPS = ("image", "tissue", "cams", "labels", "labels/classes", "labels/confidence", "done")
DESCRIBED = (*GROUPS, "done/tile", "done/tile-pyramid", "done/predict", "done/stitch")


def misspell(path: Path) -> None:
    """One letter of a name: JSON still, and no description any more."""
    path.write_bytes(path.read_bytes().replace(b'"attributes"', b'"attriQutes"', 1))


@pytest.mark.parametrize(
    ("path", "damage"),
    [(path, "misspelt") for path in DESCRIBED]
    + [
        (path, damage)
        for path in ("tissue", "labels/classes", "done/tile")
        for damage in ("missing", "cut")
    ],
)
def test_a_damaged_description_is_found_and_written_again(
    slide: Path, store: Path, path: str, damage: str
) -> None:
    """Of 32 files of a store, damage in 13 was not seen."""
    whole, file = contents(store), store / path / "zarr.json"
    BREAKS.get(damage, misspell)(file)
    broken = shutil.copytree(store, store.with_name("b.zarr"))
    result = run("check", store)
    assert (result.exit_code, f"{path}/zarr.json: is " in said(result)) == (1, True), said(result)
    for one in (store, broken):  # the command mends it with and without the check
        make(slide, one)
        assert contents(one) == whole
    assert run("check", store).exit_code == 0


@pytest.mark.parametrize(
    ("command", "path"), [("export", "done/stitch"), ("predict", "done/tile"), ("check", "")]
)
def test_an_error_names_the_damaged_description(
    store: Path, tmp_path: Path, command: str, path: str
) -> None:
    file = store / path / "zarr.json"
    BREAKS["cut"](file)
    options = {"export": ["-o", tmp_path / "a.geojson"], "predict": SETTINGS, "check": []}
    result = run(command, store, *options[command])
    assert result.exit_code == 1
    assert f"{file}: is damaged (it is not a JSON object); " in said(result)


def test_a_damaged_root_is_not_called_another_programs(slide: Path, store: Path) -> None:
    BREAKS["cut"](store / "zarr.json")
    result = run("tile", slide, "-o", store, *SETTINGS)
    assert result.exit_code == 1
    assert "zarr.json: is damaged (it is not a JSON object); if it is a wsiseg store" in said(
        result
    )


def test_marks_that_were_not_planned_are_found(slide: Path, store: Path) -> None:
    whole = contents(store)
    flip(store / "done" / "stitch" / "c.5.0")
    result = run("check", store)
    assert result.exit_code == 1
    assert "done/stitch: are not the marks that were planned" in said(result)
    make(slide, store)
    assert contents(store) == whole


def test_a_store_that_is_being_written_is_not_called_damaged(store: Path) -> None:
    opened = SlideStore(store)
    opened.begin("stitch", 5)
    (store / "labels/classes/0/c/1/1").write_bytes(b"half")
    found = check_store(store)
    assert (found.damage, found.unfinished) == ((), {"stitch": (1, 12)})


def test_one_bad_store_does_not_hide_another(store: Path, tmp_path: Path) -> None:
    result = run("check", tmp_path / "none.zarr", store)
    assert result.exit_code == 1
    assert "none.zarr: is not a wsiseg store" in said(result)
    assert "a.zarr: complete" in said(result)


@pytest.fixture(scope="module")
def older(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of format 3, in which blocks wrote all levels, each its part."""
    store = tmp_path_factory.mktemp("older") / "a.zarr"
    with pytest.MonkeyPatch.context() as patch:
        for module in (layout, opened_module, slide_store):
            patch.setattr(module, "FORMAT", 3)
        make(slide, store)
    return store


def strip(store: Path) -> None:
    """Make it what format 2 was: no checksums of chunks, marks of a digest alone."""
    opened = SlideStore(store)
    for step, shards in opened._marks.steps.items():
        for block, mark in enumerate(opened._marks.read_all(step)):
            assert mark is not None
            (store / f"done/{step}/c/{block}/0").write_bytes(bytes.fromhex(mark.digest))
        for name in shards.names:
            path = store / name / "zarr.json"
            if path.exists():
                array = opened._array(name)
                data = array.read(array.box)
                meta = json.loads(path.read_text())
                del meta["codecs"][0]["configuration"]["codecs"][-1]
                path.write_text(json.dumps(meta))
                opened._forget(name)
                opened._array(name).write_all(data)
    root = json.loads((store / "zarr.json").read_text())
    root["attributes"]["wsiseg"]["format"] = 2
    (store / "zarr.json").write_text(json.dumps(root))
    tissue = json.loads((store / "tissue/zarr.json").read_text())
    del tissue["attributes"]["shards"]
    (store / "tissue/zarr.json").write_text(json.dumps(tissue))


@pytest.mark.parametrize("known", [2, 3])
def test_a_store_of_an_older_format_is_read_and_exported_but_not_gone_on_with(
    slide: Path, finished: Path, older: Path, tmp_path: Path, known: int
) -> None:
    store = Path(shutil.copytree(older, tmp_path / "a.zarr"))
    if known == 2:
        strip(store)
    old, new = SlideStore(store), SlideStore(finished)
    assert len(shards(store, "labels/classes/1")) > len(shards(finished, "labels/classes/1")) == 1
    assert old.pyramid_factors == new.pyramid_factors
    for level in range(len(new.image_factors)):
        whole = new.levels.box(new.image_factors[level])
        np.testing.assert_array_equal(old.read_image(whole, level), new.read_image(whole, level))
    for level in range(len(new.pyramid_factors)):
        whole = new.level_box(level)
        np.testing.assert_array_equal(old.read_labels(whole, level), new.read_labels(whole, level))
        trust = old.read_confidence(whole, level)
        np.testing.assert_array_equal(trust, new.read_confidence(whole, level))
    for name in ("a.geojson", "a.ome.tiff"):
        assert run("export", store, "-o", tmp_path / name).exit_code == 0
    result = run("check", store)
    assert result.exit_code == 0
    assert ("its format has no checksums" in said(result)) == (known == 2)
    for step in ("predict", "stitch"):
        result = run(step, store, *SETTINGS)
        said_so = f"has format {known}, of an older wsiseg" in said(result)
        assert (result.exit_code, said_so) == (1, True)
    shards(store, "labels/classes/0")[1].write_bytes(b"")
    (fault,) = check_store(store).damage
    assert fault.why.startswith("cannot be decoded" if known == 2 else "has 0 bytes, not ")
    make(slide, store)
    assert contents(store) == contents(finished)
