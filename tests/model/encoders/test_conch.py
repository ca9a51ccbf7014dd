from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.model import golden
from wsiseg.errors import CheckpointError, ConfigError, GeometryError

pytest.importorskip("timm", reason="CONCH's vision tower is timm's: pip install 'wsiseg[encoders]'")
pytest.importorskip("open_clip", reason="CONCH's text tower is open_clip's: 'wsiseg[encoders]'")

from open_clip.transformer import ResidualAttentionBlock

from wsiseg.model.encoders.conch import (
    BCSS_MEAN,
    BCSS_STD,
    CONCH_MEAN,
    CONCH_STD,
    ConchEncoder,
)
from wsiseg.model.encoders.conch_file import resize_position
from wsiseg.model.encoders.vit import normalize

BLOCKS = (0, 2, 5, 8, 11)
CASES = ("224", "448")

ConchAt = Callable[[int], ConchEncoder]


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


@golden.asserts("*/pos_embed_loaded", "*/tap_block*", "*/pyramid*")
@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_pyramid_equals_the_released_codes(conch_at: ConchAt, case: str) -> None:
    encoder = conch_at(int(case))
    trunk = encoder.visual.trunk
    golden.check(f"{case}/pos_embed_loaded", trunk.pos_embed)
    with recorded(*(trunk.blocks[block] for block in BLOCKS)) as taps:
        pyramid = encoder.pyramid(golden.images(case))
    for block, tap in zip(BLOCKS, taps, strict=True):
        golden.check(f"{case}/tap_block{block:02d}", tap)
    for level, found in enumerate(pyramid):
        golden.check(f"{case}/pyramid{level}", found)


@golden.asserts("*/img_emb_proj_*", "*/img_emb_noproj_*")
@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_each_stage_of_the_embedding_equals_the_released_codes(
    conch_at: ConchAt, case: str
) -> None:
    encoder, images = conch_at(int(case)), golden.images(case)
    golden.check(f"{case}/img_emb_proj_norm", encoder.embed_image(images))
    images = normalize(images, CONCH_MEAN, CONCH_STD)
    for name, project, unit in (
        ("proj_raw", True, False), ("noproj_raw", False, False), ("noproj_norm", False, True)
    ):  # fmt: skip
        found = encoder.embed_normalized(images, project=project, unit=unit)
        golden.check(f"{case}/img_emb_{name}", found)


@golden.asserts("*/trunk_final_norm", "*/img_emb_dsnorm_proj_norm", "*/caption_tokens")
@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_the_trunk_ends_in_the_released_codes_norm(conch_at: ConchAt, case: str) -> None:
    encoder, images = conch_at(int(case)), normalize(golden.images(case), BCSS_MEAN, BCSS_STD)
    with recorded(encoder.visual.trunk.norm) as normed:
        found = encoder.embed_normalized(images)
    golden.check(f"{case}/trunk_final_norm", normed[0])
    golden.check(f"{case}/img_emb_dsnorm_proj_norm", found)
    golden.check(f"{case}/caption_tokens", encoder.caption_tokens(images))


@golden.asserts("text/*.emb*", "text/*block*", "*/prototypes_text_init")
@pytest.mark.slow
def test_the_text_tower_equals_the_released_codes(conch_at: ConchAt) -> None:
    """From token ids; padding shows only in the class token, so pads are not compared."""
    encoder, cases = conch_at(224), ("yaml", "paper", "edge")
    tokens = torch.cat([torch.from_numpy(golden.array(f"text/{case}.tokens")) for case in cases])
    blocks: list[Tensor] = []

    def keep(module: nn.Module, _: object, output: Tensor) -> None:
        if isinstance(module, ResidualAttentionBlock):
            blocks.append(output)

    with nn.modules.module.register_module_forward_hook(keep):  # the tower is made for the call
        raw = encoder.embed_tokens(tokens.long(), unit=False)
    assert len(blocks) == 12
    for number, case in enumerate(cases):
        rows = slice(4 * number, 4 * number + 4)
        golden.check(f"text/{case}.emb_raw", raw[rows])
        unit = nn.functional.normalize(raw[rows], dim=1)
        golden.check(f"text/{case}.emb", unit)
        for block in (0, 5, 11):
            golden.check(f"text/{case}.cls_block{block:02d}", blocks[block][rows, -1])
        real = int((tokens[rows.start] > 0).sum())
        golden.check(f"text/{case}.tok_block11_first", blocks[11][rows.start, :real])
        for size in CASES if case == "yaml" else ():
            golden.check(f"{size}/prototypes_text_init", unit)


@golden.asserts("*/x_norm", "*/x_conch_norm")
@pytest.mark.parametrize("case", CASES)
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
