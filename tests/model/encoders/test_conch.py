from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.model import golden
from wsiseg.errors import CheckpointError, ConfigError, GeometryError

pytest.importorskip("timm", reason="CONCH's vision tower is timm's: pip install 'wsiseg[encoders]'")
pytest.importorskip("open_clip", reason="CONCH's text tower is open_clip's: 'wsiseg[encoders]'")

from wsiseg.model.encoders import Encoder
from wsiseg.model.encoders.conch import (
    BCSS_MEAN,
    BCSS_STD,
    CONCH_MEAN,
    CONCH_STD,
    ConchEncoder,
    resize_position,
)
from wsiseg.model.encoders.vit import normalize

BLOCKS = (0, 2, 5, 8, 11)


@pytest.fixture(scope="module")
def conch(conch_file: Path) -> ConchEncoder:
    return ConchEncoder(conch_file)


@contextmanager
def recorded(*modules: nn.Module) -> Iterator[list[Tensor]]:
    """The outputs of `modules` in the order of their calls."""
    outputs: list[Tensor] = []
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(
                module.register_forward_hook(lambda _, __, output: outputs.append(output))
            )
        yield outputs


def check_pyramid(encoder: ConchEncoder, case: str) -> None:
    trunk = encoder.visual.trunk
    golden.check(f"{case}/pos_embed_loaded", trunk.pos_embed)
    with recorded(*(trunk.blocks[block] for block in BLOCKS)) as taps:
        pyramid = encoder.pyramid(golden.images(case))
    for block, tap in zip(BLOCKS, taps, strict=True):
        golden.check(f"{case}/tap_block{block:02d}", tap)
    for level, found in enumerate(pyramid):
        golden.check(f"{case}/pyramid{level}", found)


@pytest.mark.slow
def test_pyramid_equals_the_released_code_at_224(conch: ConchEncoder) -> None:
    check_pyramid(conch, "224")


@pytest.mark.slow
def test_pyramid_and_embedding_equal_the_released_code_at_448(conch_file: Path) -> None:
    encoder = ConchEncoder(conch_file, image_size=448)
    check_pyramid(encoder, "448")
    golden.check("448/img_emb_proj_norm", encoder.embed_image(golden.images("448")))


@pytest.mark.slow
def test_embedding_equals_the_released_code(conch: ConchEncoder) -> None:
    encoder: Encoder = conch
    golden.check("224/img_emb_proj_norm", encoder.embed_image(golden.images("224")))


@pytest.mark.slow
@pytest.mark.parametrize("project", [True, False])
@pytest.mark.parametrize("unit", [True, False])
@torch.no_grad()
def test_each_stage_of_the_embedding_equals_the_released_code(
    conch: ConchEncoder, project: bool, unit: bool
) -> None:
    images = normalize(golden.images("224")[:1], CONCH_MEAN, CONCH_STD)
    found = conch.embed_normalized(images, project=project, unit=unit)
    name = f"img_emb_{'proj' if project else 'noproj'}_{'norm' if unit else 'raw'}"
    golden.check(f"224/{name}", found, rows=1)


@pytest.mark.slow
@torch.no_grad()
def test_the_trunk_ends_in_the_released_codes_norm(conch: ConchEncoder) -> None:
    images = normalize(golden.images("224"), BCSS_MEAN, BCSS_STD)
    with recorded(conch.visual.trunk.norm) as normed:
        found = conch.embed_normalized(images)
    golden.check("224/trunk_final_norm", normed[0])
    golden.check("224/img_emb_dsnorm_proj_norm", found)


@pytest.mark.slow
def test_text_tower_equals_the_released_code(conch: ConchEncoder) -> None:
    cases = ("yaml", "paper", "edge")
    tokens = torch.cat([torch.from_numpy(golden.array(f"text/{case}.tokens")) for case in cases])
    raw = conch.embed_tokens(tokens.long(), unit=False)
    for case, found in zip(cases, raw.split(4), strict=True):
        golden.check(f"text/{case}.emb_raw", found)
        golden.check(f"text/{case}.emb", nn.functional.normalize(found, dim=1))


@pytest.mark.parametrize("case", ["224", "448"])
def test_normalisations_equal_the_released_codes(case: str) -> None:
    images = golden.images(case)
    golden.check(f"{case}/x_norm", normalize(images, BCSS_MEAN, BCSS_STD))
    golden.check(f"{case}/x_conch_norm", normalize(images, CONCH_MEAN, CONCH_STD))


@pytest.mark.slow
def test_gradients_reach_the_images_but_no_weight(conch_file: Path) -> None:
    encoder = ConchEncoder(conch_file, image_size=32)
    images = torch.rand(1, 3, 32, 32, requires_grad=True)
    encoder.embed_normalized(images)[0, 0].backward()
    assert images.grad is not None
    assert images.grad.abs().max() > 0
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_half_precision_gives_float32(hollow_conch: Path) -> None:
    encoder = ConchEncoder(hollow_conch, image_size=32).bfloat16()
    for found in (
        *encoder.pyramid(torch.rand(1, 3, 32, 32)),
        encoder.embed_image(torch.rand(1, 3, 32, 32)),
    ):
        assert found.dtype == torch.float32
        assert found.isfinite().all()


def test_position_embedding_is_the_mean_of_four_at_half_the_size() -> None:
    embedding = torch.rand(1, 1 + 28 * 28, 5)
    found = resize_position(embedding, 14)
    wanted = embedding[:, 1:].unflatten(1, (14, 2, 14, 2)).mean((2, 4)).flatten(1, 2)
    torch.testing.assert_close(found, torch.cat([embedding[:, :1], wanted], 1))
    assert resize_position(embedding, 28) is embedding


def test_only_what_the_method_needs_is_kept(hollow_conch: Path) -> None:
    encoder = ConchEncoder(hollow_conch).train()
    names = encoder.state_dict()
    assert not [name for name in names if "caption" in name or "text" in name]
    assert sum(tensor.numel() for tensor in names.values()) == 85_798_656 + 1_579_008
    assert not any(module.training for module in encoder.modules())
    assert not any(tensor.is_meta for tensor in names.values())


def test_decoder_wrapper_and_prefix_are_taken_off(tmp_path: Path) -> None:
    tensors = golden.make_hollow("conch")
    tensors["text_decoder.ln_final.weight"] = torch.zeros(768)
    named = {f"module.{name}": tensor for name, tensor in tensors.items()}
    torch.save({"state_dict": named, "epoch": 3}, tmp_path / "pytorch_model.bin")
    assert ConchEncoder(tmp_path).identity.startswith("conch-224-")


def test_missing_and_unexpected_tensors_are_listed(tmp_path: Path) -> None:
    tensors = golden.make_hollow("conch")
    del tensors["visual.attn_pool_caption.query"]
    tensors["visual.head.weight"] = torch.zeros(1)
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    with pytest.raises(
        CheckpointError,
        match=r"is not CONCH ViT-B/16: 1 missing: visual\.attn_pool_caption\.query; "
        r"1 unexpected: visual\.head\.weight$",
    ):
        ConchEncoder(tmp_path)


def test_another_models_file_is_named_as_such(mit_files: dict[str, Path]) -> None:
    with pytest.raises(
        CheckpointError,
        match=r"\(another model's file\?\): 326 missing: .* \.\.\. and 316 more; "
        r"194 unexpected: .* \.\.\. and 184 more",
    ):
        ConchEncoder(mit_files["hub"])


def test_images_of_another_size_are_refused(hollow_conch: Path) -> None:
    encoder = ConchEncoder(hollow_conch)
    for read in (encoder.pyramid, encoder.embed_image):
        with pytest.raises(GeometryError, match=r"CONCH takes images \(B, 3, 224, 224\)"):
            read(torch.zeros(1, 3, 448, 448))


def test_an_image_size_without_a_pyramid_is_refused(hollow_conch: Path) -> None:
    with pytest.raises(ConfigError, match="images of 250 px give no pyramid"):
        ConchEncoder(hollow_conch, image_size=250)
