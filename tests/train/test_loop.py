import csv
import re

import numpy as np
import pytest
import torch
from PIL import Image

from wsiseg.config import TrainConfig
from wsiseg.errors import ConfigError, DataError, TrainingError
from wsiseg.model.checkpoint import load_checkpoint
from wsiseg.train import Patches, load_patches, train_model
from wsiseg.train.features import FrozenFeatures
from wsiseg.train.setup import make_model
from wsiseg.train.step import Trainer, poly_rate

CONFIG = TrainConfig(
    classes=("Pink", "Blue"), epochs=16, batch_size=8, learning_rate=0.01, mpp=0.25, device="cpu",
    colors=((255, 0, 255), (0, 0, 255)),
)  # fmt: skip


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    """Pink and blue halves: which colour shows is the label."""
    folder, rng = tmp_path_factory.mktemp("patches"), np.random.default_rng(0)
    colors = {"Pink": (230, 150, 190), "Blue": (120, 90, 170)}
    rows = ["image,labels"]
    for number, names in enumerate([("Pink", "Pink"), ("Blue", "Blue"), ("Pink", "Blue")] * 8):
        pixels = rng.normal(0, 6, (64, 64, 3))
        pixels[:, :32] += colors[names[0]]
        pixels[:, 32:] += colors[names[1]]
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{';'.join(names)}")
    (folder / "patches.csv").write_text("\n".join(rows))
    return load_patches(folder / "patches.csv", CONFIG.classes)


@pytest.fixture(scope="module")
def trained(patches, tmp_path_factory):
    calls = []
    out = tmp_path_factory.mktemp("out") / "m.safetensors"
    path = train_model(patches, CONFIG, out, lambda *call: calls.append(call), note="toy")
    return path, calls


def test_labels_alone_teach_where_things_are(patches, trained):
    model, _ = load_checkpoint(trained[0])
    images = torch.from_numpy(patches.read([0, 1, 2])).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        output = model(images)
    assert (output.logits > 0).tolist() == [[True, False], [False, True], [True, True]]
    winner = output.cams[2].argmax(0)
    assert not winner[:, :3].any(), "the pink half is pink"
    assert winner[:, 5:].all(), "the blue half is blue"


def test_the_checkpoint_remembers_how_it_was_made(trained):
    _, info = load_checkpoint(trained[0])
    assert info.names == CONFIG.classes
    assert info.colors == CONFIG.colors
    assert info.prompts == ("Pink regions", "Blue regions")
    assert (info.mpp, info.tile, info.note) == (0.25, 64, "toy")
    assert TrainConfig.model_validate(info.config) == CONFIG


def test_progress_and_losses_cover_every_step(trained):
    path, calls = trained
    assert calls == [("train", step, 48) for step in range(1, 49)]
    rows = list(csv.DictReader(path.with_name("m.safetensors.csv").open()))
    assert [int(row["step"]) for row in rows] == list(range(48))
    for row in rows:
        parts = [float(row[name]) for name in ("classes", "structure", "contrast")]
        want = parts[0] + CONFIG.struct_weight * parts[1] + CONFIG.contrast_weight * parts[2]
        assert float(row["total"]) == pytest.approx(want, rel=1e-4)
    assert float(rows[-1]["classes"]) < 0.5 * float(rows[0]["classes"])
    assert float(rows[0]["learning_rate"]) == CONFIG.learning_rate
    assert float(rows[-1]["learning_rate"]) == pytest.approx(CONFIG.learning_rate / 48, rel=1e-4)


def test_training_repeats_bit_by_bit_and_leaves_torch_as_it_was(patches, tmp_path):
    config = CONFIG.model_copy(update={"epochs": 1})
    threads = torch.get_num_threads() + 1  # not what training takes
    torch.set_num_threads(threads)
    first = train_model(patches, config, tmp_path / "a.safetensors").read_bytes()
    torch.manual_seed(999)  # the caller's random state is neither used nor disturbed
    want = torch.rand(1)
    torch.manual_seed(999)
    second = train_model(patches, config, tmp_path / "b.safetensors").read_bytes()
    assert torch.rand(1) == want
    assert first == second
    assert torch.get_num_threads() == threads
    torch.set_num_threads(threads - 1)
    other = config.model_copy(update={"seed": 1})
    assert train_model(patches, other, tmp_path / "c.safetensors").read_bytes() != first


def test_losses_can_be_switched_off(patches, tmp_path):
    config = CONFIG.model_copy(update={"epochs": 1, "struct_weight": 0.0, "contrast_weight": 0.0})
    path = train_model(patches, config, tmp_path / "m.safetensors")
    rows = list(csv.DictReader(path.with_name("m.safetensors.csv").open()))
    assert {row["structure"] + row["contrast"] for row in rows} == {"00"}


def test_one_class_is_learned(patches, tmp_path):
    """Against patches that do not show it."""
    one = Patches(patches.paths, patches.labels[:, :1], patches.side)
    config = CONFIG.model_copy(update={"classes": ("Pink",), "colors": (), "epochs": 4})
    path = train_model(one, config, tmp_path / "m.safetensors")
    model, info = load_checkpoint(path)
    assert (info.names, model.classes) == (("Pink",), 1)
    rows = list(csv.DictReader(path.with_name("m.safetensors.csv").open()))
    assert all(np.isfinite(float(row["total"])) for row in rows)
    assert float(rows[-1]["classes"]) < 0.7 * float(rows[0]["classes"])


def test_poly_rate_falls_in_a_line():
    assert [poly_rate(step, 4) for step in range(4)] == [1, 0.75, 0.5, 0.25]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_learns_and_keeps_float32_weights(patches, tmp_path, precision):
    changes = {"precision": precision, "epochs": 4}  # float16 leaves out steps until it scales
    path = train_model(patches, CONFIG.model_copy(update=changes), tmp_path / "m.safetensors")
    model, _ = load_checkpoint(path)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    rows = list(csv.DictReader(path.with_name("m.safetensors.csv").open()))
    losses = [float(row["classes"]) for row in rows]
    assert all(np.isfinite(losses))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    "change", [{"prototypes": "random"}, {"guidance_levels": (0, 2), "preset": "paper"}]
)
def test_each_comparison_trains_another_model(patches, trained, tmp_path, change):
    config = CONFIG.model_copy(update={"epochs": 1, **change})
    model, info = load_checkpoint(train_model(patches, config, tmp_path / "m.safetensors"))
    usual, _ = load_checkpoint(trained[0])
    if "prototypes" in change:
        texts = model.encoder.embed_text(info.prompts)
        cosine = torch.nn.functional.cosine_similarity(model.prototypes, texts).abs()
        assert cosine.max() < 0.5
    else:
        assert info.guidance_levels == (0, 2)
        assert list(usual.structure_adapters) == ["1"]


def test_what_does_not_fit_is_refused(patches, tmp_path):
    def train(given, **changes):
        train_model(given, CONFIG.model_copy(update=changes), tmp_path / "m.safetensors")

    with pytest.raises(DataError, match="labelled with 2 classes, the settings name 3"):
        train(patches, classes=("a", "b", "c"), colors=())
    odd = Patches(patches.paths, patches.labels, 100)
    with pytest.raises(DataError, match=r"100 px a side; .* multiple of 32, the nearest is 96"):
        train(odd)
    with pytest.raises(ConfigError, match="prompts has 1 entries for 2 classes"):
        train(patches, prompts=("one",))
    with pytest.raises(ConfigError, match="colors has 1 entries for 2 classes"):
        train(patches, colors=((0, 0, 0),))
    assert not list(tmp_path.iterdir())


@pytest.fixture
def broken(monkeypatch):
    """Makes the named loss not a number from a step on."""

    def break_(name, step):
        right = Trainer._losses

        def wrong(self, *given):
            losses = right(self, *given)
            if self.done < step:
                return losses
            bad = losses._replace(**{name: losses.total * float("nan")})
            return bad._replace(total=bad.total * float("nan"))

        monkeypatch.setattr(Trainer, "_losses", wrong)

    return break_


@pytest.mark.parametrize("preset", ["wsiseg", "paper"])
def test_a_loss_that_is_no_number_stops_the_run_and_names_its_patches(
    patches, tmp_path, broken, preset
):
    config = CONFIG.model_copy(update={"epochs": 2, "preset": preset})
    broken("structure", 4)  # the second step of the second epoch
    out = tmp_path / "m.safetensors"
    with pytest.raises(TrainingError, match=r"epoch 2, step 5: the loss 'structure' is nan") as bad:
        train_model(patches, config, out)
    batch = re.findall(r"\d+\.png", str(bad.value))
    assert len(batch) == 8
    assert len(set(batch)) == 8
    assert f"epoch 1 is kept in {out}" in str(bad.value)
    model, _ = load_checkpoint(out)
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    assert out.with_name("m.safetensors.unfinished").exists()


def test_nothing_is_written_of_a_first_epoch_that_failed(patches, tmp_path, broken):
    broken("classes", 0)
    with pytest.raises(TrainingError, match=r"epoch 1, step 1: .*'classes' is nan; nothing was"):
        train_model(patches, CONFIG, tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_the_released_code_goes_on_with_what_is_no_number(patches, tmp_path, broken):
    broken("contrast", 4)
    config = CONFIG.model_copy(update={"epochs": 2, "preset": "reference"})
    path = train_model(patches, config, tmp_path / "m.safetensors")
    rows = list(csv.DictReader(path.with_name("m.safetensors.csv").open()))
    assert [row["total"] == "nan" for row in rows] == [False] * 4 + [True] * 2


def test_weights_that_the_last_step_ruined_are_not_kept(patches, tmp_path, monkeypatch):
    right = Trainer.step

    def ruin(self, *given):
        losses = right(self, *given)
        if self.done == 6:
            self.model.prototypes.data[0, 0] = float("inf")
        return losses

    monkeypatch.setattr(Trainer, "step", ruin)
    config, out = CONFIG.model_copy(update={"epochs": 2}), tmp_path / "m.safetensors"
    with pytest.raises(TrainingError, match="epoch 2: prototypes is not finite after its last"):
        train_model(patches, config, out)
    model, _ = load_checkpoint(out)
    assert model.prototypes.isfinite().all()


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Two patches of 224 px, as of the defaults."""
    folder, rng = tmp_path_factory.mktemp("large"), np.random.default_rng(0)
    for number in range(2):
        coarse = rng.integers(0, 256, (28, 28, 3), np.uint8)
        Image.fromarray(coarse.repeat(8, 0).repeat(8, 1)).save(folder / f"{number}.png")
    paths = tuple(folder / f"{number}.png" for number in range(2))
    return Patches(paths, np.eye(2, dtype=np.float32), 224)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("preset", ["wsiseg", "paper"])
def test_losses_of_whole_patches_are_finite_in_half_precision(large, precision, preset):
    found = []
    for setting in ("float32", precision):
        config = CONFIG.model_copy(update={"precision": setting, "preset": preset})
        torch.manual_seed(0)
        model = make_model(config)
        trainer = Trainer(model, config, 10, torch.Generator().manual_seed(0))
        levels = sorted(model.levels_for(True))
        source = FrozenFeatures(model.encoder, model.teacher, large, levels)
        seen = source.read(torch.arange(2), torch.zeros(2, 2, dtype=torch.int64))
        found.append([loss.item() for loss in trainer.losses(seen, torch.from_numpy(large.labels))])
    assert found[1] == pytest.approx(found[0], rel=0.05, abs=0.02)
    assert found[1][2] > 0, "the structure loss"


@pytest.mark.parametrize("preset", ["wsiseg", "reference"])
def test_a_run_that_leaves_out_most_steps_fails(patches, tmp_path, monkeypatch, preset):
    """As gradients overflow at whatever scale."""
    right = Trainer.step

    def overflow(self, *given):
        losses = right(self, *given)
        self.done = 0
        return losses

    monkeypatch.setattr(Trainer, "step", overflow)
    changes = {"epochs": 2, "precision": "float16", "preset": preset}
    with pytest.raises(TrainingError, match=r"6 of 6 steps were skipped.*bfloat16"):
        train_model(patches, CONFIG.model_copy(update=changes), tmp_path / "m.safetensors")
    assert not list(tmp_path.glob("*.safetensors")), "an untrained model is no result"


def test_a_step_whose_gradients_overflow_is_left_out(patches):
    config = CONFIG.model_copy(update={"precision": "float16", "contrast_weight": 0.0})
    torch.manual_seed(0)
    model = make_model(config)
    trainer = Trainer(model, config, 10)
    source = FrozenFeatures(model.encoder, model.teacher, patches, autocast=trainer.autocast)
    batch = torch.arange(8)
    seen, labels = source.read(batch, torch.zeros(8, 2, dtype=torch.int64)), patches.labels[:8]
    state = trainer.scaler.state_dict()
    trainer.scaler.load_state_dict({**state, "scale": 2.0**40})  # beyond what float16 can hold
    before = {name: p.clone() for name, p in model.named_parameters()}
    trainer.step(seen, torch.from_numpy(labels))
    assert trainer.done == 0, "the schedule waits, as in the released code"
    assert trainer.scaler.get_scale() == 2.0**39
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    again = Trainer(make_model(config), config, 10)
    again.restore(trainer.state())
    assert again.scaler.get_scale() == 2.0**39
    trainer.scaler.update(2.0**10)
    trainer.step(seen, torch.from_numpy(labels))
    assert trainer.done == 1
    assert not torch.equal(model.prototypes, before["prototypes"])
