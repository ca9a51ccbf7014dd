"""Vision transformers by their public names: layouts, tokens, levels, and clear refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from wsiseg.errors import CheckpointError, ConfigError, GeometryError
from wsiseg.model.vits import VITS, KnownVit, find_vit

timm = pytest.importorskip("timm", reason="pip install 'wsiseg[encoders]'")

from wsiseg.model.encoders import Encoder, load_encoder  # noqa: E402 - after the skip
from wsiseg.model.encoders.conch15_pooler import Pooler  # noqa: E402
from wsiseg.model.encoders.timm import TimmEncoder  # noqa: E402
from wsiseg.model.encoders.timm_file import Recipe, build_vit  # noqa: E402
from wsiseg.model.encoders.vit import normalize  # noqa: E402
from wsiseg.model.weights import WeightFile  # noqa: E402

NOWHERE = WeightFile(Path("none"), "none", "", "")
PARAMETERS = {  # millions, as their pages say
    "uni2-h": 681.4, "uni": 303.4, "virchow2": 631.2, "h-optimus-0": 1134.8, "h-optimus-1": 1134.8,
    "prov-gigapath": 1134.9, "conch-1.5": 303.9, "phikon-v2": 303.4, "hibou-b": 85.7,
    "hibou-l": 303.7, "dinov2-s": 21.7, "dinov2-b": 85.5, "imagenet-b": 85.8,
}  # fmt: skip
# Name, tokens before the patches, patch, length of the positions, hidden width of the MLP: read
# off the authors' pages and their loaders, independently of the table's arguments.
LAYOUT = {
    "uni2-h": (9, 14, 256, 8192), "uni": (1, 16, 197, 4096), "virchow2": (5, 14, 261, 6832),
    "h-optimus-0": (5, 14, 256, 8192), "h-optimus-1": (5, 14, 256, 8192),
    "prov-gigapath": (1, 16, 197, 8192), "conch-1.5": (1, 16, 785, 4096),
    "phikon-v2": (1, 16, 197, 4096), "hibou-b": (5, 14, 256, 4096), "hibou-l": (5, 14, 256, 5472),
    "dinov2-s": (5, 14, 256, 1536), "dinov2-b": (5, 14, 256, 3072),
    "imagenet-b": (1, 16, 197, 3072),
}  # fmt: skip


def recipe_of(vit: KnownVit) -> Recipe:
    return Recipe(
        vit.name, vit.architecture, dict(vit.arguments), vit.image_size, vit.mean, vit.std, NOWHERE
    )


@pytest.mark.parametrize("vit", VITS, ids=lambda vit: vit.name)
def test_the_table_makes_the_published_layouts(vit: KnownVit) -> None:
    made = build_vit(recipe_of(vit), vit.image_size, {})
    shapes = {name: tuple(value.shape) for name, value in made.state_dict().items()}
    prefix, patch, positions, hidden = LAYOUT[vit.name]
    width = made.embed_dim
    assert made.num_prefix_tokens == prefix
    assert shapes["patch_embed.proj.weight"] == (width, 3, patch, patch)
    assert shapes["pos_embed"] == (1, positions, width)
    assert shapes["cls_token"] == (1, 1, width)
    assert shapes.get("reg_token", (1, 0, width)) == (1, prefix - 1, width)
    assert shapes["blocks.0.mlp.fc1.weight"] == (hidden, width)
    assert ("blocks.0.ls1.gamma" in shapes) == (vit.name != "imagenet-b")
    count = sum(value.numel() for value in made.parameters()) / 1e6
    assert count == pytest.approx(PARAMETERS[vit.name], abs=0.7)
    assert 4 * count == pytest.approx(vit.megabytes, rel=0.02), "float32"
    assert next(made.parameters()).device.type == "meta", "no memory before the file is read"


def small_state(
    name: str, depth: int = 4, **changes: Any
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Made-up weights in the layout of a row, but shallow and narrow; and what made them so."""
    vit = find_vit(name)
    assert vit is not None
    arguments = {"depth": depth, "embed_dim": 96, "num_heads": 4, **changes}
    recipe = recipe_of(vit)
    torch.manual_seed(3)
    made = build_vit(recipe, vit.image_size, arguments)
    tensors = {n: torch.randn(v.shape) * 0.05 for n, v in made.state_dict().items()}
    return tensors, arguments


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("name", ["uni2-h", "virchow2", "prov-gigapath", "imagenet-b"])
def test_a_small_one_of_each_layout_computes_what_timm_does(name: str, saved: Path) -> None:
    tensors, arguments = small_state(name)
    save_file(tensors, saved)
    encoder: Encoder = TimmEncoder(name, saved, arguments=arguments)
    vit = find_vit(name)
    assert vit is not None
    layers = {k: v for k, v in vit.arguments.items() if k != "mlp_layer"} | arguments
    if "mlp_layer" in vit.arguments:
        layers["mlp_layer"] = timm.layers.SwiGLUPacked
    own = timm.create_model(vit.architecture, num_classes=0, img_size=224, **layers).eval()
    own.load_state_dict(tensors)
    images = torch.rand(2, 3, 224, 224)
    inputs = normalize(images, vit.mean, vit.std)
    blocks = own.blocks
    with torch.no_grad():
        taps = own.get_intermediate_layers(inputs, [0, 1, 2, 3], reshape=True)
        tokens = own.forward_features(inputs)
    pyramid = encoder.pyramid(images)
    side = 224 // own.patch_embed.patch_size[0]
    assert len(blocks) == 4
    assert taps[2].shape == (2, 96, side, side), "registers and class token are no places"
    assert torch.equal(pyramid[2], taps[2])
    torch.testing.assert_close(pyramid[3], torch.nn.functional.avg_pool2d(taps[3], 2))
    for maps, stride in zip(pyramid, encoder.level_strides, strict=True):
        assert maps.shape == (2, 96, 224 // stride, 224 // stride)
    assert torch.equal(encoder.pyramid(images, [2, 0])[0], pyramid[2])
    torch.testing.assert_close(
        encoder.embed_image(images), torch.nn.functional.normalize(tokens[:, 0], dim=1)
    )
    assert encoder.embedding_dim == 96
    assert not any(module.training for module in encoder.train().modules())  # type: ignore[attr-defined]  # a module
    assert not any(p.requires_grad for p in encoder.parameters())  # type: ignore[attr-defined]


def test_gradients_reach_regions_and_half_precision_is_close(saved: Path) -> None:
    tensors, arguments = small_state("dinov2-s")
    save_file(tensors, saved)
    encoder = TimmEncoder("dinov2-s", saved, arguments=arguments)
    regions = torch.rand(1, 3, 224, 224, requires_grad=True)
    encoder.embed_normalized(regions)[0, 0].backward()
    assert regions.grad is not None
    assert regions.grad.abs().max() > 0
    images = torch.rand(1, 3, 224, 224)
    whole = encoder.embed_image(images)
    half = encoder.bfloat16().embed_image(images)
    assert half.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(half, whole).item() > 0.99


def test_another_image_size_resamples_the_positions_once(saved: Path) -> None:
    tensors, arguments = small_state("imagenet-b")
    save_file(tensors, saved)
    encoder = TimmEncoder("imagenet-b", saved, image_size=96, arguments=arguments)
    assert encoder.vit.pos_embed.shape == (1, 1 + 36, 96)
    own = timm.create_model(
        "vit_base_patch16_224", num_classes=0, img_size=224, dynamic_img_size=True, **arguments
    ).eval()
    own.load_state_dict(tensors)
    images = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        wanted = own.get_intermediate_layers(
            normalize(images, (0.5,) * 3, (0.5,) * 3), [2], reshape=True
        )
    torch.testing.assert_close(encoder.pyramid(images, [2])[0], wanted[0])
    with pytest.raises(GeometryError, match=r"takes images \(B, 3, 96, 96\), not"):
        encoder.pyramid(torch.rand(1, 3, 224, 224))


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("swiglu", [False, True])
def test_dinov2_of_transformers_computes_the_same(
    registers: int, swiglu: bool, tmp_path: Path
) -> None:
    """Phikon-v2 has no registers and a plain MLP, Hibou four and SwiGLU; against the package."""
    transformers = pytest.importorskip("transformers")
    kind = "Dinov2WithRegisters" if registers else "Dinov2"
    extra = {"num_register_tokens": registers} if registers else {}
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=48, num_hidden_layers=4, num_attention_heads=4, patch_size=14, image_size=56,
        use_swiglu_ffn=swiglu, layerscale_value=1.0, **extra,
    )  # fmt: skip
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}Model")(config).eval()
    for value in model.parameters():
        torch.nn.init.normal_(value, std=0.05)
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.7, 0.6, 0.7], "image_std": [0.2, 0.2, 0.2],
                    "crop_size": {"height": 56, "width": 56}})
    )  # fmt: skip
    encoder = TimmEncoder(tmp_path)
    assert (encoder.mean, encoder.image_size) == ((0.7, 0.6, 0.7), 56)
    images = torch.rand(2, 3, 56, 56)
    with torch.no_grad():
        wanted = model(normalize(images, encoder.mean, encoder.std), output_hidden_states=True)
    torch.testing.assert_close(
        encoder.embed_image(images),
        torch.nn.functional.normalize(wanted.last_hidden_state[:, 0], dim=1),
    )
    third = wanted.hidden_states[3][:, 1 + registers :]
    torch.testing.assert_close(encoder.pyramid(images, [2])[0].flatten(2).mT, third)


def test_conch_15_pools_its_tokens_by_attention(tmp_path: Path) -> None:
    tensors, arguments = small_state("conch-1.5")
    torch.manual_seed(1)
    pooler = Pooler(64, 96).eval()
    torch.nn.init.normal_(pooler.attn_pool_contrast.query)
    path = tmp_path / "pytorch_model_vision.bin"
    whole = {f"trunk.{n}": v for n, v in tensors.items()} | pooler.state_dict()
    torch.save(whole, path)
    encoder = TimmEncoder("conch-1.5", path, arguments=arguments)
    assert (encoder.image_size, encoder.embedding_dim) == (448, 64)
    images = torch.rand(1, 3, 448, 448)
    with torch.no_grad():
        tokens = encoder.vit.forward_features(normalize(images, encoder.mean, encoder.std))
        attention = pooler.attn_pool_contrast
        query = attention.to_q(attention.ln_q(attention.query)).view(8, 1, 8)
        key, value = attention.to_kv(attention.ln_k(tokens[0])).chunk(2, 1)
        key, value = (part.view(-1, 8, 8).transpose(0, 1) for part in (key, value))
        weights = (query @ key.mT / 8**0.5).softmax(2)
        pooled = pooler.ln_contrast(attention.to_out((weights @ value).flatten()))
    torch.testing.assert_close(
        encoder.embed_image(images)[0], torch.nn.functional.normalize(pooled, dim=0)
    )
    del whole["ln_contrast.bias"]
    torch.save(whole, path)
    with pytest.raises(CheckpointError, match=r"is not CONCH v1\.5: 1 missing: ln_contrast\.bias"):
        TimmEncoder("conch-1.5", path, arguments=arguments)


def test_a_folder_brings_its_configuration(tmp_path: Path) -> None:
    arguments = {"depth": 4, "embed_dim": 48, "num_heads": 4, "patch_size": 8, "img_size": 64}
    own = timm.create_model("vit_tiny_patch16_224", num_classes=3, **arguments).eval()
    save_file(own.state_dict(), tmp_path / "model.safetensors")
    facts = {"mean": [0.6, 0.5, 0.7], "std": [0.2, 0.3, 0.2], "input_size": [3, 64, 64]}
    (tmp_path / "config.json").write_text(
        json.dumps({"architecture": "vit_tiny_patch16_224", "model_args": arguments,
                    "pretrained_cfg": facts})
    )  # fmt: skip
    encoder = load_encoder("timm", model=str(tmp_path))
    assert (encoder.mean, encoder.level_strides) == ((0.6, 0.5, 0.7), (2, 4, 8, 16))
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        wanted = own.forward_features(normalize(images, (0.6, 0.5, 0.7), (0.2, 0.3, 0.2)))[:, 0]
    torch.testing.assert_close(
        encoder.embed_image(images), torch.nn.functional.normalize(wanted, dim=1)
    )


def test_rotary_positions_are_made_beside_the_weights(tmp_path: Path) -> None:
    """DINOv3 is such a one: what it computes of its positions is in no file."""
    arguments = {"depth": 4, "embed_dim": 48, "num_heads": 4, "img_size": 64}
    torch.manual_seed(0)
    own = timm.create_model("vit_small_patch16_dinov3", num_classes=0, **arguments).eval()
    save_file(own.state_dict(), tmp_path / "w.safetensors")
    encoder = TimmEncoder(
        "vit_small_patch16_dinov3", tmp_path / "w.safetensors", image_size=64, arguments=arguments
    )
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        wanted = own(normalize(images, encoder.mean, encoder.std))
    torch.testing.assert_close(
        encoder.embed_image(images), torch.nn.functional.normalize(wanted, dim=1)
    )


def test_no_or_an_unknown_model_says_what_there_is() -> None:
    with pytest.raises(ConfigError, match=r"needs encoder_options\.model: one of uni2-h, uni, vir"):
        load_encoder("timm")
    with pytest.raises(ConfigError, match=r"'uni2h' is known neither .* similar are uni2-h"):
        load_encoder("timm", model="uni2h")
    with pytest.raises(ConfigError, match="timm has no weights of this name; add one of its tags"):
        load_encoder("timm", model="vit_giant_patch14_224")


def test_a_network_that_is_no_vision_transformer_is_refused(saved: Path) -> None:
    save_file({"a": torch.ones(1)}, saved)
    with pytest.raises(ConfigError, match="is a SwinTransformer; a vision transformer is needed"):
        TimmEncoder("swin_tiny_patch4_window7_224", saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": 16}, r"its patches are of 14 px, those of the model 16 px; if .*size: 14"),
        ({"reg_tokens": 0}, r"holds 4 register tokens, the model has none; if .*reg_tokens: 4"),
        ({"reg_tokens": 8}, r"holds 4 register tokens, the model has 8; if .*reg_tokens: 4"),
        ({"depth": 5}, "has 4 blocks of width 96, the model 5 of 96"),
        ({"init_values": 0}, r"unexpected: blocks\.0\.ls1\.gamma"),
        ({"mlp_ratio": 2}, r"blocks\.0\.mlp\.fc1\.weight is \(384, 96\), should be \(192, 96\)"),
    ],
)
def test_a_file_of_another_layout_is_refused(
    changes: dict[str, Any], message: str, saved: Path
) -> None:
    tensors, arguments = small_state("dinov2-s")
    save_file(tensors, saved)
    with pytest.raises(CheckpointError, match=message):
        TimmEncoder("dinov2-s", saved, arguments=arguments | changes)


def test_missing_registers_are_told(saved: Path) -> None:
    tensors, arguments = small_state("dinov2-s")
    save_file({n: v for n, v in tensors.items() if n != "reg_token"}, saved)
    with pytest.raises(CheckpointError, match=r"holds no register tokens, the model has 4; if "):
        TimmEncoder("dinov2-s", saved, arguments=arguments)


def test_wrong_arguments_are_told(saved: Path) -> None:
    save_file({"a": torch.ones(1)}, saved)
    with pytest.raises(ConfigError, match=r"dinov2-s: timm .* cannot make .* 'depht'"):
        TimmEncoder("dinov2-s", saved, arguments={"depht": 3})
    with pytest.raises(ConfigError, match=r"mlp_layer = 'os\.system': is none of GluMlp, Mlp"):
        TimmEncoder("dinov2-s", saved, arguments={"mlp_layer": "os.system"})
    with pytest.raises(ConfigError, match=r"patches of 14 px on images of 225 px|cannot make"):
        TimmEncoder("dinov2-s", saved, image_size=225)


def test_a_foreign_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    for text, message in (
        ('{"model_type": "bert"}', "of a 'bert' model of transformers; of these only dinov2"),
        ("{}", "names no 'architecture' of timm"),
        ("[]", "holds a list, not a configuration"),
        ("{", "is not valid JSON"),
    ):
        (tmp_path / "config.json").write_text(text)
        (tmp_path / "preprocessor_config.json").write_text("{}")
        with pytest.raises(CheckpointError, match=message):
            TimmEncoder(tmp_path)
