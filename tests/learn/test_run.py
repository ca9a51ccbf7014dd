import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from wsiseg.annotations import Palette
from wsiseg.cli import app
from wsiseg.config import TrainConfig
from wsiseg.errors import ConfigError, DataError
from wsiseg.labels import label_slides
from wsiseg.learn import learn_model
from wsiseg.learn.fit import Folds, FoldScore, choose_epochs
from wsiseg.learn.report import describe_learned
from wsiseg.learn.run import _drop_unshown, _label
from wsiseg.learn.start import extend_config, start_from
from wsiseg.model.checkpoint import load_checkpoint, read_info
from wsiseg.store import SlideStore
from wsiseg.train import gather_tiles
from wsiseg.train.setup import make_model
from wsiseg.train.stores import StoreTiles

from ..labels.slides import COLS, PALETTE, ROWS, TILE, make_store
from ..labels.test_forms import collection, feature, polygon, square
from ..train.test_stores import annotate

QUICK = {"epochs": 4, "batch_size": 8, "learning_rate": 0.01}


def draw(folder, name, *features):
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.geojson").write_text(json.dumps(collection(*features)))


@pytest.fixture
def slides(tmp_path):
    """Three slides, pink to the left and blue to the right, and labels of some tiles of each."""
    for name in ("one", "two", "three"):
        make_store(tmp_path / "slides", name)
        draw(
            tmp_path / "labels", name, feature("Pink", polygon(square(0, 0, 2, 2))),
            feature("Blue", polygon(square(0, 3, 2, 2))),
        )  # fmt: skip
    return tmp_path


def test_a_round_scores_held_out_slides_and_learns_from_all(slides):
    out = slides / "my.safetensors"
    first = learn_model([slides], slides / "labels", out, settings=QUICK)
    assert first.classes == ("Blue", "Pink")
    assert set(first.folds) == {"one", "two", "three"}
    assert (first.tiles, first.shown, first.absent) == (24, (12, 12), (12, 12))
    assert first.precision == (1, 1), "two plain colours"
    assert first.guess == (0.5, 0.5)
    assert read_info(out).names == ("Blue", "Pink")
    report = json.loads((slides / "my.safetensors.json").read_text())
    assert report["score"] == 1
    before = out.read_bytes()
    assert learn_model([slides], slides / "labels", out, settings=QUICK).digest == first.digest
    assert out.read_bytes() == before

    draw(slides / "more", "one", feature("Pink", polygon(square(2, 0, 2, 2))))
    second = learn_model([slides], [slides / "labels", slides / "more"], out, settings=QUICK)
    assert second.tiles == 28
    assert [(one.tiles, one.score) for one in second.rounds] == [(24, 1)]
    assert (slides / "my.safetensors.old").read_bytes() == before


def test_a_round_that_was_cut_off_goes_on(slides, monkeypatch):
    whole = slides / "whole.safetensors"
    learn_model([slides], slides / "labels", whole, settings=QUICK)
    out, calls = slides / "my.safetensors", []

    def stop(step, done, total):
        calls.append(step)
        if step == "without three" and done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn_model([slides], slides / "labels", out, settings=QUICK, progress=stop)
    done = len(set(calls)) - 1
    calls.clear()
    learn_model(
        [slides], slides / "labels", out, settings=QUICK, progress=lambda *a: calls.append(a[0])
    )
    assert len({step for step in calls if step.startswith("without")}) == 3 - done
    assert out.read_bytes() == whole.read_bytes()
    assert not out.with_name(f"{out.name}.folds").exists()


def test_labels_drawn_after_a_training_was_cut_off_begin_a_new_one(slides):
    out, settings = slides / "my.safetensors", QUICK | {"epochs": 8}

    def stop(step, done, total):
        if not step.startswith("without") and done == total - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn_model([slides], slides / "labels", out, settings=settings, progress=stop)
    assert out.with_name(f"{out.name}.unfinished").exists()
    draw(slides / "more", "one", feature("Pink", polygon(square(2, 0, 2, 2))))
    labels = [slides / "labels", slides / "more"]
    whole = slides / "whole.safetensors"
    for path in (whole, out):
        learn_model([slides], labels, path, settings=settings)
    assert out.read_bytes() == whole.read_bytes()
    assert not out.with_name(f"{out.name}.unfinished").exists()


def test_a_model_goes_on_under_another_name_from_what_it_was_then(slides):
    first, out = slides / "first.safetensors", slides / "my.safetensors"
    learn_model([slides], slides / "labels", first, settings=QUICK)
    with pytest.raises(ConfigError, match=r"first\.safetensors: is the checkpoint to continue"):
        learn_model([slides], slides / "labels", first, start=str(first))
    settings = {"epochs": 2, "batch_size": 8}
    before = learn_model([slides], slides / "labels", out, start=str(first), settings=settings)
    first.unlink()
    learn_model([slides], slides / "labels", first, settings=QUICK | {"seed": 7})
    after = learn_model([slides], slides / "labels", out, start=str(first), settings=settings)
    assert before.digest != after.digest
    assert (slides / "my.safetensors.old").exists()


def test_a_checkpoints_classes_go_on_and_new_ones_begin_as_their_tiles_look(slides):
    for name in ("one", "two", "three"):
        draw(
            slides / "labels", name, feature("Stroma", polygon(square(0, 0, 2, 2))),
            feature("Blue", polygon(square(0, 3, 2, 2))),
        )  # fmt: skip
    out = slides / "my.safetensors"
    still = {**QUICK, "epochs": 1, "learning_rate": 1e-12}
    learned = learn_model([slides], slides / "labels", out, start="tissue", settings=still)
    model, info = load_checkpoint(out)
    former, known = load_checkpoint("tissue")
    assert known.calibration
    factor = np.delete(info.calibration, 8, 0) / np.array(known.calibration)
    assert factor == pytest.approx(factor[0, 0]), "classes keep their relation to each other"
    assert info.calibration[8][1] == 0
    assert any("calibrated again, on 24 held-out windows" in note for note in learned.notes)
    assert model.exemplars.known.tolist() == [True] * 8 + [False, True], "not of the new class"
    assert torch.equal(model.exemplars.features, former.exemplars.features)
    assert torch.equal(model.familiar.axes, former.familiar.axes)
    before = out.read_bytes()
    learn_model([slides], slides / "labels", out, start="tissue", settings=still)
    assert out.read_bytes() == before
    assert info.names == (*known.names[:8], "Blue", "Glass")
    assert info.background == 1
    assert set(learned.kept) == set(known.names) - {"Stroma"}
    for at, name in enumerate(info.names):
        if name != "Blue":
            old = former.prototypes[known.names.index(name)]
            torch.testing.assert_close(model.prototypes[at], old, atol=1e-6, rtol=1e-5)
    assert model.prototypes[8].norm().item() == pytest.approx(1, abs=1e-4)
    with pytest.raises(ConfigError, match=r"pooling = 'mean' does not fit tissue, which has"):
        learn_model([slides], slides / "labels", out, start="tissue", settings={"pooling": "mean"})


def test_few_tiles_are_learned_from_for_a_while_whatever_is_held_out(slides):
    """One step tells two plain colours apart, and no map can be made of it."""
    settings = {"epochs": 30, "batch_size": 8, "learning_rate": 1e-5}
    learned = learn_model([slides], slides / "labels", slides / "my.safetensors", settings=settings)
    assert learned.epochs == 30, "two steps an epoch: 60 are all there are"


def test_an_epoch_of_a_fold_is_worth_two_while_the_rate_is_high():
    config = TrainConfig(epochs=40)
    scores = [FoldScore(epoch, 40, []) for epoch in (10, 40)]
    assert choose_epochs(scores[:1], config) == 18
    assert choose_epochs(scores[1:], config) == 40
    assert choose_epochs([], config) == 20


def test_a_correction_that_does_not_hold_is_named(slides):
    wrong = feature("Blue", polygon(square(1, 1)), metadata={"wsiseg": "drawn"})
    draw(slides / "corrections", "two", wrong)
    learned = learn_model(
        [slides], [slides / "labels", slides / "corrections"], slides / "my.safetensors",
        settings=QUICK,
    )  # fmt: skip
    assert {one.where for one in learned.missed} == {"two around (92, 152)"}


def correct_map(folder, kind, **more):
    """Map slide `one`, and say that all of its left half is wrong, or that some of it is right."""
    path = annotate(SlideStore(folder / "slides/one.zarr"), folder / "geojson/one.geojson", **more)
    pink, *_ = json.loads(path.read_text())["features"]
    shape = pink["geometry"] if kind == "deleted" else polygon(square(0, 0, 1, 5))
    name = "Ignore*" if kind == "deleted" else "Checked*"
    one = {**feature(name, shape, metadata={"wsiseg": kind}), "id": pink["id"]}
    draw(folder / "corrections", "one", one)
    return folder / "corrections"


def test_a_round_may_only_check(tmp_path):
    """It was refused, as no slide were labelled."""
    make_store(tmp_path / "slides")
    _, config = _label([tmp_path], correct_map(tmp_path, "checked"), None, "tissue", {})
    assert set(config.classes) == {*read_info("tissue").names, "Blue", "Pink"}


def test_a_round_may_only_delete(tmp_path):
    """It was refused, as no tissue were annotated."""
    make_store(tmp_path / "slides")
    names = Palette(("Stroma", "Muscle"), PALETTE.colors)
    labels = correct_map(tmp_path, "deleted", palette=names)
    labelling, config = _label([tmp_path], labels, None, "tissue", {})
    assert config.classes == read_info("tissue").names
    shown = gather_tiles(labelling.slides).labels
    assert (shown[:, config.classes.index("Stroma")] == 0).all()
    assert np.isnan(shown).sum(1).tolist() == [len(config.classes) - 1] * len(shown)
    with pytest.raises(DataError, match="nothing shows 'Stroma', so it cannot be learned"):
        _label([tmp_path], labels, None, None, {})


def test_what_shows_nothing_and_corrects_nothing_cannot_be_learned(tmp_path):
    make_store(tmp_path / "slides")
    nowhere = np.full((ROWS * TILE, COLS * TILE), 255, np.uint8)
    nowhere[-TILE:] = 0
    labels = correct_map(tmp_path, "checked", labels=nowhere)
    with pytest.raises(DataError, match="show no class and correct no region, so there is nothing"):
        _label([tmp_path], labels, None, "tissue", {})
    with pytest.raises(DataError, match="no label is of a class: draw areas of classes, or learn"):
        _label([tmp_path], labels, None, None, {})


def test_small_regions_off_the_grid_are_learned_from(slides):
    """A map is corrected by strokes that hold no whole tile."""
    for name in ("one", "two", "three"):
        draw(
            slides / "labels", name, feature("Pink", polygon(square(0.3, 0.4, 0.5, 0.6))),
            feature("Blue", polygon(square(1.3, 4.2, 0.3, 0.3))),
        )  # fmt: skip
    longer = QUICK | {"epochs": 16}
    learned = learn_model([slides], slides / "labels", slides / "my.safetensors", settings=longer)
    assert (learned.tiles, learned.shown, learned.absent) == (6, (3, 3), (3, 3))
    assert learned.precision == (1, 1)


def test_what_would_spoil_a_training_is_refused_before_it(slides):
    labels = slides / "labels"
    draw(labels, "one", feature("pink", polygon(square(0, 0))))
    draw(labels, "four", feature("Pink", polygon(square(0, 0))))
    with pytest.raises(DataError) as caught:
        learn_model([slides], labels, slides / "my.safetensors", settings=QUICK)
    assert "'Pink', 'pink' look like one class" in str(caught.value)
    assert "no store of slide 'four'" in str(caught.value)
    (labels / "four.geojson").unlink()
    for name in ("one", "two", "three"):
        draw(labels, name, feature("Pink", polygon(square(0, 0, 2, 2))))
    with pytest.raises(DataError, match="nothing is known to be without 'Pink'"):
        learn_model([slides], labels, slides / "my.safetensors", settings=QUICK)


def test_a_class_without_labels_and_no_labels_at_all_are_refused(slides):
    wanted = {**QUICK, "classes": ["Pink", "Blue", "Green"]}
    with pytest.raises(
        DataError, match="nothing shows 'Green', so it cannot be learned: label some"
    ):
        learn_model([slides], slides / "labels", slides / "my.safetensors", settings=wanted)
    empty = slides / "regions.csv"
    empty.write_text("slide,x,y,class\n")
    with pytest.raises(DataError, match="no slide is labelled"):
        learn_model([slides], empty, slides / "my.safetensors", settings=QUICK)


def test_of_one_slide_a_model_is_learned_and_it_is_said_that_nothing_scores_it(slides):
    for name in ("two", "three"):
        (slides / "labels" / f"{name}.geojson").unlink()
    learned = learn_model([slides], slides / "labels", slides / "my.safetensors", settings=QUICK)
    assert (learned.folds, learned.tiles) == ((), 8)
    assert any("nothing could be held out and there is no score" in n for n in learned.notes)
    assert any("slides without labels, which were skipped: 2" in n for n in learned.notes)


def test_the_command_and_one_patient_only(slides):
    manifest = slides / "slides.csv"
    manifest.write_text("slide,patient\none,P\ntwo,P\nthree,P\n")
    labels = (slides / "labels").rename(slides / "corrections")
    call = ["learn", str(slides), "--labels", str(labels), "--manifest", str(manifest)]
    call += ["-o", str(slides / "my.safetensors"), "--set", "epochs=2"]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.output
    assert "only one patient is labelled, so nothing could be held out" in result.output
    assert f"wsiseg view OUT --earlier {slides}\n" in result.output
    manifest.write_text("slide,patient,split\none,P,train\ntwo,P,test\n")
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 1
    assert "leaks: P is on both sides" in result.output


def test_a_class_that_one_slide_alone_shows_has_no_score_and_spoils_no_fold(slides):
    draw(
        slides / "labels", "one", feature("Pink", polygon(square(0, 0, 2, 2))),
        feature("Blue", polygon(square(0, 3, 2, 2))), feature("Green", polygon(square(3, 0, 1, 2))),
    )  # fmt: skip
    learned = learn_model([slides], slides / "labels", slides / "my.safetensors", settings=QUICK)
    assert learned.shown == (12, 2, 12)
    assert np.isfinite(learned.precision).tolist() == [True, False, True]
    said = list(describe_learned(learned))
    assert "no score for Green: label them on slides of at least two patients" in said


def test_a_fold_begins_as_the_other_slides_look(slides):
    """Prototypes that begin as the tiles held out would have seen what they are asked about."""
    draw(
        slides / "labels", "one", feature("Blue", polygon(square(0, 0, 2, 2))),
        feature("Pink", polygon(square(0, 3, 2, 2))),
    )  # fmt: skip
    found = label_slides(slides / "labels", [slides])
    config = extend_config(None, found.classes, {**QUICK, "prototypes": "images"})
    tiles = gather_tiles(found.slides)
    held, model, other = tiles.windows[:, 0] == 0, make_model(config), make_model(config)
    assert tiles.stores[0].path.stem == "one"
    assert Folds(model, tiles, config)._initialise(held) == []
    start_from(None, other, tiles.pick(~held), config)
    assert torch.equal(model.prototypes, other.prototypes)
    start_from(None, other, tiles, config)
    assert not torch.equal(model.prototypes, other.prototypes)


def test_a_table_of_tiles_names_its_own_classes(slides):
    table = slides / "tiles.csv"
    lines = [
        f"{name},{row},{col},{int(col < 2)},{int(col > 2)}"
        for name in ("one", "two") for row in (0, 1) for col in (0, 1, 3, 4)
    ]  # fmt: skip
    table.write_text("\n".join(["slide,row,col,Pink,Blue", *lines]))
    learned = learn_model([slides], table, slides / "my.safetensors", settings=QUICK)
    assert (learned.classes, learned.tiles) == (("Blue", "Pink"), 16)
    lines = [f"{line[:-4]},{'Pink' if line.endswith('1,0') else 'Blue'}" for line in lines]
    table.write_text("\n".join(["slide,row,col,labels", *lines]))
    chosen = {**QUICK, "classes": ["Pink", "Blue"]}
    learned = learn_model([slides], table, slides / "two.safetensors", settings=chosen)
    assert (learned.classes, learned.tiles) == (("Pink", "Blue"), 16)
    chosen = {**QUICK, "classes": ["Pink"]}
    with pytest.raises(DataError, match=r"tiles.csv line 4: unknown class.*--set 'classes=\["):
        learn_model([slides], table, slides / "two.safetensors", settings=chosen)


def test_a_class_that_no_window_shows_is_denied_by_corrections_alone():
    labels = np.array([[1, 0, 0], [1, 0, 0], [0, 0, 1]], np.float32)
    tiles = StoreTiles(
        (), np.zeros((3, 3), np.int64), labels, np.ones(3, np.float32),
        np.ones((3, 2, 2), bool), np.array([False, True, False]),
    )  # fmt: skip
    told, kept = _drop_unshown(tiles, ("Dermis", "Blood", "Stroma"))
    assert kept == ("Blood",)
    assert told.labels[1, 1] == 0, "the correction said that something else is there"
    assert np.isnan(told.labels[[0, 2], 1]).all()
