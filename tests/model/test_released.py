import pytest
import torch

from wsiseg.errors import CheckpointError, ConfigError
from wsiseg.model.checkpoint import trained_state
from wsiseg.model.construct import ConStruct
from wsiseg.model.encoders import load_encoder
from wsiseg.model.released import load_released


def make(preset="reference", seed=0):
    torch.manual_seed(seed)
    return ConStruct(load_encoder("tiny"), ("one", "two"), preset=preset).eval()


def released_state(model):
    """By the names of the released code; the tiny pair's CAM level is 1, so `l_fc2` is used."""
    named = {name.replace("l_fc.", "l_fc2."): t for name, t in trained_state(model).items()}
    return named | {"clip_adapter.model.logit_scale": torch.zeros(())}


def test_comes_back_under_our_names(tmp_path):
    source, target = make(seed=1), make(seed=2)
    torch.save({"model": released_state(source), "best_mIoU": 0.5}, tmp_path / "a.pth")
    load_released(target, tmp_path / "a.pth")
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(source(images).cams, target(images).cams)


def test_what_is_missing_is_named(tmp_path):
    tensors = released_state(make())
    del tensors["l_fc2.fc1.bias"]
    torch.save(tensors, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"released ConStruct: 1 missing: l_fc\.fc1\.bias$"):
        load_released(make(), tmp_path / "a.pth")


def test_another_number_of_classes_is_named(tmp_path):
    tensors = released_state(make())
    tensors["prototypes"] = torch.cat([tensors["prototypes"], tensors["prototypes"][:1]])
    torch.save(tensors, tmp_path / "a.pth")
    with pytest.raises(
        CheckpointError, match=r"1 of another shape: prototypes is \(\d+, 128\), should be \(\d"
    ):
        load_released(make(), tmp_path / "a.pth")


def test_only_its_own_preset_takes_it(tmp_path):
    with pytest.raises(ConfigError, match="of preset 'paper'; make it with preset 'reference'"):
        load_released(make("paper"), tmp_path / "a.pth")


def test_settings_as_python_objects_are_not_run(tmp_path):
    torch.save({"model": released_state(make()), "cfg": Settings()}, tmp_path / "a.pth")
    with pytest.raises(
        CheckpointError, match=r"holds code \(tests\.model\.test_released\.Settings"
    ):
        load_released(make(), tmp_path / "a.pth")


class Settings:
    """Stands for the released file's OmegaConf object."""
