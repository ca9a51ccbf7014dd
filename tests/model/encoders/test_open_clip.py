from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from wsiseg.errors import CheckpointError, ConfigError, GeometryError

open_clip = pytest.importorskip("open_clip", reason="pip install 'wsiseg[encoders]'")

from wsiseg.model.encoders import Encoder  # noqa: E402 - after the skip
from wsiseg.model.encoders.open_clip import OpenClipEncoder  # noqa: E402
from wsiseg.model.encoders.vit import normalize  # noqa: E402

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
TOWERS: dict[str, dict[str, Any]] = {
    "own": {"image_size": 64, "patch_size": 16, "width": 48, "layers": 8, "head_width": 16},
    "timm": {
        "timm_model_name": "vit_tiny_patch16_224",
        "timm_pool": "token",
        "timm_proj": "linear",
        "image_size": 224,
    },
    "resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8},
}
SIDE = {"own": 64, "timm": 224}


def make_model(folder: Path, vision: dict[str, Any]) -> Path:
    """A model of random weights in a folder, as open_clip's own `local-dir:` reads it."""
    folder.mkdir(exist_ok=True)
    config = {
        "model_cfg": {"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT},
        "preprocess_cfg": {"mean": [0.6, 0.5, 0.7], "std": [0.2, 0.3, 0.2]},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(1)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="module", params=["own", "timm"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("clip") / request.param, TOWERS[request.param])


def test_embeddings_are_open_clips_own(folder: Path) -> None:
    encoder: Encoder = OpenClipEncoder(folder)
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    images = torch.rand(2, 3, SIDE[folder.name], SIDE[folder.name])
    inputs = normalize(images, (0.6, 0.5, 0.7), (0.2, 0.3, 0.2))
    texts = ["tumour", "stroma and fat"]
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(texts)
    with torch.no_grad():
        torch.testing.assert_close(
            encoder.embed_image(images), model.encode_image(inputs, normalize=True)
        )
        torch.testing.assert_close(
            encoder.embed_text(texts), model.encode_text(tokens, normalize=True)
        )
    assert encoder.embedding_dim == 24
    assert encoder.mean == (0.6, 0.5, 0.7)


def test_pyramid_taps_the_last_block_of_each_quarter(folder: Path) -> None:
    encoder = OpenClipEncoder(folder)
    visual = encoder.clip.visual
    blocks = visual.trunk.blocks if folder.name == "timm" else visual.transformer.resblocks
    side, seen = SIDE[folder.name], []
    for block in blocks:
        block.register_forward_hook(lambda _, __, output: seen.append(output))
    pyramid = encoder.pyramid(torch.rand(2, 3, side, side))
    wanted = seen[len(seen) * 3 // 4 - 1][:, 1:]  # level 2 is not resized
    assert torch.equal(pyramid[2].flatten(2).mT, wanted)
    last = seen[-1][:, 1:].mT.unflatten(2, (side // 16, side // 16))
    torch.testing.assert_close(pyramid[3], torch.nn.functional.avg_pool2d(last, 2))
    for maps, stride, width in zip(
        pyramid, encoder.level_strides, encoder.level_channels, strict=True
    ):
        assert maps.shape == (2, width, side // stride, side // stride)


def test_a_named_architecture_takes_its_weights_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_model(tmp_path / "own", TOWERS["own"])
    config = json.loads((made / "open_clip_config.json").read_text())["model_cfg"]
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "small-vit", config)
    encoder = OpenClipEncoder("small-vit", made / "open_clip_model.safetensors")
    assert encoder.identity == OpenClipEncoder(made).identity
    with pytest.raises(ConfigError, match="small-vit is an architecture of open_clip: give its"):
        OpenClipEncoder("small-vit")


def test_a_model_stays_frozen_and_in_evaluation(folder: Path) -> None:
    encoder = OpenClipEncoder(folder).train()
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_half_precision_is_close_and_gives_float32(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "own", TOWERS["own"])
    whole, half = OpenClipEncoder(folder), OpenClipEncoder(folder).bfloat16()
    images = torch.rand(1, 3, 64, 64)
    for found, wanted in (
        (half.embed_image(images), whole.embed_image(images)),
        (half.embed_text(["tumour"]), whole.embed_text(["tumour"])),
        (half.pyramid(images)[0].flatten(1), whole.pyramid(images)[0].flatten(1)),
    ):
        assert found.dtype == torch.float32
        assert torch.nn.functional.cosine_similarity(found, wanted).item() > 0.99


def test_weights_beside_a_folder_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"brings its own weights: leave out other\.bin"):
        OpenClipEncoder(folder, "other.bin")


def test_images_of_another_size_are_refused(folder: Path) -> None:
    with pytest.raises(GeometryError, match="takes images"):
        OpenClipEncoder(folder).pyramid(torch.zeros(1, 3, 96, 96))


def test_a_tower_that_is_no_vit_is_refused(tmp_path: Path) -> None:
    made = make_model(tmp_path / "resnet", TOWERS["resnet"])
    with pytest.raises(ConfigError, match="vision tower is a ModifiedResNet; a plain ViT"):
        OpenClipEncoder(made)


def test_a_patch_without_a_whole_pyramid_is_refused(tmp_path: Path) -> None:
    made = make_model(tmp_path / "odd", {**TOWERS["own"], "patch_size": 7, "image_size": 56})
    with pytest.raises(ConfigError, match="patches of 7 px on images of 56 px give no pyramid"):
        OpenClipEncoder(made)


def test_missing_and_unexpected_tensors_are_listed(tmp_path: Path) -> None:
    made = make_model(tmp_path / "own", TOWERS["own"])
    tensors = load_file(made / "open_clip_model.safetensors")
    tensors["visual.extra"] = tensors.pop("visual.ln_post.bias")
    save_file(tensors, made / "open_clip_model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"1 missing: visual\.ln_post\.bias; 1 unexpected: visual\.extra"
    ):
        OpenClipEncoder(made)


def test_tensors_of_another_shape_are_listed(tmp_path: Path) -> None:
    made = make_model(tmp_path / "own", TOWERS["own"])
    tensors = load_file(made / "open_clip_model.safetensors")
    tensors["visual.ln_post.bias"] = torch.zeros(3)
    save_file(tensors, made / "open_clip_model.safetensors")
    with pytest.raises(CheckpointError, match=r"does not fit its configuration: .*ln_post\.bias"):
        OpenClipEncoder(made)


def test_a_broken_configuration_is_named(tmp_path: Path) -> None:
    made = make_model(tmp_path / "own", TOWERS["own"])
    (made / "open_clip_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="open_clip cannot make this model"):
        OpenClipEncoder(made)


def test_code_in_the_weights_is_refused(tmp_path: Path) -> None:
    made = make_model(tmp_path / "own", TOWERS["own"])
    (made / "open_clip_model.safetensors").unlink()
    (made / "pytorch_model.bin").write_bytes(pickle.dumps({"a": print}, protocol=2))
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: holds code \(print\)"):
        OpenClipEncoder(made)
