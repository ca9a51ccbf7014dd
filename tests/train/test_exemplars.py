"""What a checkpoint keeps of its patches, and what later training makes of it."""

import numpy as np
import pytest
import torch
from PIL import Image

from wsiseg.config import TrainConfig
from wsiseg.errors import ConfigError
from wsiseg.model.checkpoint import load_checkpoint, trained_state
from wsiseg.train import Patches, train_model
from wsiseg.train.exemplars import Recall, choose_exemplars
from wsiseg.train.setup import check_settings

COLORS = {"Pink": (230, 150, 190), "Blue": (120, 90, 170), "Red": (200, 60, 70)}
BROWN = (150, 110, 70)
CONFIG = TrainConfig(
    classes=tuple(COLORS), epochs=12, batch_size=8, learning_rate=0.01, device="cpu",
    contrast_weight=0, struct_weight=0, exemplars=2,
)  # fmt: skip


def write_patches(folder, colors, labels):
    """Write a patch of plain colour and noise for each row of labels."""
    rng, paths = np.random.default_rng(0), []
    for number, color in enumerate(colors):
        pixels = (rng.normal(0, 8, (64, 64, 3)) + color).clip(0, 255).astype(np.uint8)
        paths.append(folder / f"{number}.png")
        Image.fromarray(pixels).save(paths[-1])
    return Patches(tuple(paths), np.array(labels, np.float32), 64)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Patches of one colour each, and a checkpoint that was taught their classes."""
    folder = tmp_path_factory.mktemp("patches")
    patches = write_patches(folder, [*COLORS.values()] * 8, np.tile(np.eye(3), (8, 1)))
    return patches, train_model(patches, CONFIG, folder / "base.safetensors")


def go_on(start, folder, weight):
    """Teach a checkpoint that what is brown is blue, and say nothing of red."""
    folder.mkdir()
    new = write_patches(folder, [BROWN] * 8, [(0, 1, np.nan)] * 8)
    config = CONFIG.model_copy(update={"recall_weight": weight, "epochs": 30})
    state = trained_state(load_checkpoint(start)[0])
    out = train_model(new, config, folder / "on.safetensors", start=state)
    return load_checkpoint(out)[0], new


@torch.no_grad()
def ask(model, patches):
    images = torch.from_numpy(patches.read(range(len(patches)))).permute(0, 3, 1, 2).float() / 255
    return model(images).logits


def test_a_checkpoint_keeps_features_of_some_patches_of_each_class(base):
    patches, path = base
    model, _ = load_checkpoint(path)
    assert len(model.exemplars) == 6
    assert model.exemplars.features.dtype == torch.float16
    images = torch.from_numpy(patches.read([0])).permute(0, 3, 1, 2).float() / 255
    whole = model.encoder.pyramid(images, model.cam_levels)[0][0]
    side = model.exemplars.features.shape[2]
    top = (whole.shape[1] - side) // 2
    middle = whole[:, top : top + side, top : top + side]
    torch.testing.assert_close(model.exemplars.features[0].float(), middle, atol=1e-2, rtol=1e-2)


def test_what_new_labels_do_not_show_lasts_and_what_they_say_is_learned(base, tmp_path):
    patches, start = base
    former, _ = load_checkpoint(start)
    drift = []
    for weight in (0.0, 0.1):
        model, new = go_on(start, tmp_path / str(weight), weight)
        assert ((ask(model, new) > 0)[:, :2].numpy() == [False, True]).all(), "it is blue now"
        drift.append((ask(model, patches) - ask(former, patches)).abs().mean().item())
    assert drift[1] < 0.5 * drift[0]
    assert torch.equal(model.exemplars.features, former.exemplars.features)


def test_recall_is_nothing_at_first_and_leaves_new_classes_alone(base):
    model, _ = load_checkpoint(base[1])
    recall = Recall(model, seed=1)
    assert recall.loss(model, 0) == 0
    with torch.no_grad():
        model.prototypes[1] += torch.randn(model.prototypes.shape[1])
    changed = recall.loss(model, 0)
    assert changed > 0
    assert recall.loss(model, 0) == changed, "the same step compares the same"
    model.exemplars.known[1] = False
    assert Recall(model, seed=1).loss(model, 0) == 0


def test_exemplars_show_few_classes_and_come_from_everywhere():
    labels = np.zeros((100, 3), np.float32)
    labels[:, 0] = 1
    labels[:50, 1] = 1  # with the first class
    labels[99, 2] = np.nan
    assert choose_exemplars(labels, 3).tolist() == [0, 24, 49, 50, 74, 99]


def test_settings_under_which_none_can_be_kept_are_refused():
    for changed in ({"preset": "paper"}, {"cam_levels": (1, 2)}):
        with pytest.raises(ConfigError, match=r"exemplars = 2 needs preset wsiseg and one CAM"):
            check_settings(CONFIG.model_copy(update=changed))
