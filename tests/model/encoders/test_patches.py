"""Patches embedded as MaskCLIP does, and prompts over real towers, against plain computations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.model import golden
from tests.model.plain_prompts import plain_cams, plain_softmax, plain_texts, softmax
from tests.model.test_prompt_file import TWO

open_clip = pytest.importorskip("open_clip", reason="pip install 'wsiseg[encoders]'")

from tests.model.encoders.test_conch_text import write_tokenizer  # noqa: E402 - after the skip
from tests.model.encoders.test_open_clip import SIDE, TOWERS, make_model  # noqa: E402
from wsiseg.errors import ConfigError  # noqa: E402
from wsiseg.model.encoders import load_prompt_encoder  # noqa: E402
from wsiseg.model.encoders.conch import CONCH_MEAN, CONCH_STD, ConchEncoder  # noqa: E402
from wsiseg.model.encoders.conch_file import load_text, read_conch  # noqa: E402
from wsiseg.model.encoders.conch_text import tokenize  # noqa: E402
from wsiseg.model.encoders.open_clip import OpenClipEncoder  # noqa: E402
from wsiseg.model.encoders.vit import apply_alone, normalize  # noqa: E402
from wsiseg.model.prompt_file import PromptSet  # noqa: E402
from wsiseg.model.prompts import PromptSource, embed_prompts  # noqa: E402

PROMPTS = PromptSet.model_validate(TWO)
MEAN, STD = (0.6, 0.5, 0.7), (0.2, 0.3, 0.2)


@pytest.fixture(scope="module", params=["own", "timm"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("clip") / request.param, TOWERS[request.param])


def images(side: int, count: int = 2) -> Tensor:
    return torch.rand((count, 3, side, side), generator=torch.Generator().manual_seed(1))


def value(weight: Tensor, bias: Tensor, tokens: Tensor) -> Tensor:
    """The value projection, the last third of a fused projection of queries, keys and values."""
    width = len(weight) // 3
    return tokens @ weight[2 * width :].T + bias[2 * width :]


def plain_own(visual: torch.nn.Module, tokens: Tensor) -> Tensor:
    for block in visual.transformer.resblocks[:-1]:
        tokens = block(tokens)
    block = visual.transformer.resblocks[-1]
    held = value(block.attn.in_proj_weight, block.attn.in_proj_bias, block.ln_1(tokens))
    tokens = tokens + held @ block.attn.out_proj.weight.T + block.attn.out_proj.bias
    tokens = tokens + block.mlp(block.ln_2(tokens))
    return visual.ln_post(tokens) @ visual.proj


def plain_timm(visual: torch.nn.Module, tokens: Tensor) -> Tensor:
    for block in visual.trunk.blocks[:-1]:
        tokens = block(tokens)
    block = visual.trunk.blocks[-1]
    held = value(block.attn.qkv.weight, block.attn.qkv.bias, block.norm1(tokens))
    tokens = tokens + held @ block.attn.proj.weight.T + block.attn.proj.bias
    tokens = tokens + block.mlp(block.norm2(tokens))
    return visual.head(visual.trunk.norm(tokens))


@torch.no_grad()
def test_open_clip_patches_are_maskclips(folder: Path) -> None:
    encoder, side = OpenClipEncoder(folder), SIDE[folder.name]
    batch = images(side)
    visual = open_clip.create_model(f"local-dir:{folder}").eval().visual
    inputs = normalize(batch, MEAN, STD)
    if folder.name == "timm":
        trunk = visual.trunk
        tokens = trunk.norm_pre(trunk._pos_embed(trunk.patch_embed(inputs)))
        embedded = plain_timm(visual, tokens)[:, 1:]
    else:
        embedded = plain_own(visual, visual._embeds(inputs))[:, 1:]
    found, cells = encoder.embed_patches(batch), side // 16
    assert found.shape == (2, 24, cells, cells)
    for row in range(cells):
        for col in range(cells):
            wanted = F.normalize(embedded[:, row * cells + col], dim=1)
            torch.testing.assert_close(found[:, :, row, col], wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("features", ["window", "patch"])
@torch.no_grad()
def test_open_clip_prompts_are_the_plain_computation(folder: Path, features: str) -> None:
    encoder, window = load_prompt_encoder("open_clip", model=folder), SIDE[folder.name]
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    stride = window if features == "window" else window // 2
    source = PromptSource(
        encoder, PROMPTS.palette, embed_prompts(encoder, PROMPTS), stride=stride,
        features=features,  # type: ignore[arg-type]  # one of its literals
    )  # fmt: skip
    batch = images(3 * window // 2 if features == "patch" else 2 * window, 1)

    def encode(crop: Tensor) -> Tensor:
        if features == "patch":
            return encoder.embed_patches(crop[None])[0]  # shown above
        return model.encode_image(normalize(crop[None], MEAN, STD))[0][:, None, None]

    texts = plain_texts(PROMPTS.texts(), lambda text: model.encode_text(tokenizer([text]))[0])
    scale = float(model.logit_scale.exp())
    wanted = plain_cams(batch, encode, texts, scale, window, stride, source.stride)
    found = source.cams(batch)
    assert source.mean == MEAN
    np.testing.assert_allclose(found, wanted, atol=2e-4)
    np.testing.assert_allclose(softmax(found), plain_softmax(wanted), atol=2e-4)


def test_towers_that_pool_by_attention_have_windows_only(tmp_path: Path) -> None:
    tower = {**TOWERS["own"], "attentional_pool": True, "attn_pooler_heads": 4}
    encoder = OpenClipEncoder(make_model(tmp_path / "coca", tower))
    encoder.embed_image(images(64))
    with pytest.raises(ConfigError, match=r"pools its patches by attention, .* to window"):
        encoder.embed_patches(images(64))


def test_attention_alone_splits_into_parts_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    block = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    tokens = torch.rand(3, 5, 8)
    with torch.no_grad():
        whole = apply_alone(block, tokens)
        monkeypatch.setattr("wsiseg.model.encoders.vit._BATCH", 4)
        torch.testing.assert_close(apply_alone(block, tokens), whole)
        torch.testing.assert_close(block(tokens[1, 2][None, None])[0, 0], whole[1, 2])


@pytest.fixture
def conch_file(tmp_path: Path) -> Path:
    """A file of CONCH's layout, a few kilobytes: zeros, but for the logarithm of the scale."""
    tensors = {**golden.make_hollow("conch"), "logit_scale": torch.tensor(3.0)}
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    return tmp_path / "pytorch_model.bin"


@torch.no_grad()
def randomize(module: torch.nn.Module) -> None:
    random = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.normal_(std=0.05, generator=random)


@torch.no_grad()
def test_conch_patches_are_the_poolers_values(conch_file: Path) -> None:
    encoder = ConchEncoder(conch_file, image_size=64)
    randomize(encoder.visual)
    batch, visual = images(64, 1), encoder.visual
    tokens = visual.trunk.forward_features(normalize(batch, CONCH_MEAN, CONCH_STD))[0, 1:]
    pooler = visual.attn_pool_contrast
    attention, found = pooler.attn, encoder.embed_patches(batch)
    assert found.shape == (1, 512, 4, 4)
    for number, token in enumerate(tokens):
        held = attention.v_proj_weight @ pooler.ln_k(token) + attention.in_proj_bias[1024:]
        pooled = attention.out_proj.weight @ held + attention.out_proj.bias
        embedded = visual.ln_contrast(pooled) @ visual.proj_contrast
        wanted = embedded / embedded.square().sum().sqrt()
        row, col = divmod(number, 4)
        torch.testing.assert_close(found[0, :, row, col], wanted, atol=1e-5, rtol=1e-3)


@torch.no_grad()
def test_conch_prompts_are_the_plain_computation(
    conch_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {"name": "A", "color": [0, 0, 0], "prompts": ["tumour"], "sentences": ["It is a tumour."]}
    prompts = PromptSet.model_validate({"classes": [few], "background": ["glass"]})
    write_tokenizer(tmp_path / "t.json")
    encoder = ConchEncoder(conch_file, image_size=32, tokenizer=tmp_path / "t.json")
    tower, batch = load_text(read_conch(conch_file)), images(48, 1)
    randomize(encoder.visual)
    randomize(tower)
    monkeypatch.setattr("wsiseg.model.encoders.conch.load_text", lambda tensors: tower)
    embedded = embed_prompts(encoder, prompts)

    def encode(crop: Tensor) -> Tensor:
        pooled = encoder.visual(normalize(crop[None], CONCH_MEAN, CONCH_STD))
        return (pooled @ encoder.visual.proj_contrast)[0][:, None, None]

    texts = plain_texts(
        prompts.texts(), lambda text: tower(tokenize([text], tmp_path / "t.json"))[0]
    )
    np.testing.assert_allclose(embedded, texts, atol=1e-5)
    maps = {"window": encode, "patch": lambda crop: encoder.embed_patches(crop[None])[0]}
    for features, crops in maps.items():
        source = PromptSource(
            encoder, prompts.palette, embedded, stride=16,
            features=features,  # type: ignore[arg-type]  # one of its literals
        )  # fmt: skip
        wanted = plain_cams(batch, crops, texts, float(np.exp(3)), 32, 16, 16)
        found = source.cams(batch)
        assert found.shape == (1, 2, 3, 3)
        np.testing.assert_allclose(found, wanted, atol=1e-4)
        np.testing.assert_allclose(softmax(found), plain_softmax(wanted), atol=1e-4)
