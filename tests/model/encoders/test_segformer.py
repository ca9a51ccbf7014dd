from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.model import golden
from wsiseg.errors import CheckpointError, ConfigError
from wsiseg.model.encoders import Teacher
from wsiseg.model.encoders.segformer import SegformerTeacher
from wsiseg.model.weights import read_tensors


@golden.asserts("mit/strides????.stage?")
@pytest.mark.parametrize("naming", ["hub", "official"])
@pytest.mark.parametrize("case", ["mit/strides4221", "mit/strides4222"])
def test_stages_equal_the_released_codes(
    mit_files: dict[str, Path], naming: str, case: str
) -> None:
    teacher: Teacher = SegformerTeacher(mit_files[naming], strides=[int(n) for n in case[-4:]])
    for stage, found in enumerate(teacher.stages(golden.images("224"))):
        golden.check(f"{case}.stage{stage}", found)


@golden.asserts("mit/*hf_eps1e5*")
@pytest.mark.parametrize("case", ["mit/strides4221", "mit/strides4222"])
def test_stages_equal_those_of_transformers(mit_files: dict[str, Path], case: str) -> None:
    """Its norms all have one epsilon, which moves the maps by less than the tolerance."""
    teacher = SegformerTeacher(mit_files["hub"], strides=[int(n) for n in case[-4:]])
    ours = teacher.stages(golden.images("224"))
    for module in teacher.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-5
    for stage, found in enumerate(teacher.stages(golden.images("224"))):
        golden.check(f"{case}.hf_eps1e5.stage{stage}", found)
        assert 0 < (found - ours[stage]).abs().max() < 1e-4


def test_transformers_own_network_gives_the_same_maps(
    mit_files: dict[str, Path], tmp_path: Path
) -> None:
    """With the released code's epsilons; ours stays, for names that no version changes."""
    transformers = pytest.importorskip("transformers")
    strides = (4, 2, 2, 1)
    sizes = {"depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 320, 512]}
    config = transformers.SegformerConfig(
        strides=list(strides), num_attention_heads=[1, 2, 5, 8], sr_ratios=[8, 4, 2, 1], **sizes
    )
    config.save_pretrained(tmp_path)
    tensors = read_tensors(mit_files["hub"])
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    theirs = transformers.SegformerModel.from_pretrained(tmp_path).eval()
    for name, module in theirs.named_modules():
        reduced = "patch_emb" in name or "sequence_reduction" in name or ".self." in name
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-5 if reduced else 1e-6
    images = golden.images("224")[:1, :, :96, :128]
    with torch.inference_mode():
        ours = SegformerTeacher(mit_files["hub"], strides=strides).encoder(images)
        found = theirs(images, output_hidden_states=True).hidden_states
    for own, other in zip(ours, found, strict=True):
        torch.testing.assert_close(own, other, rtol=0.0, atol=1e-5)


@golden.asserts("*/x_teacher", "*/teacher?")
@pytest.mark.parametrize("case", ["224", "448"])
def test_input_and_stages_equal_the_released_codes(mit_files: dict[str, Path], case: str) -> None:
    teacher = SegformerTeacher(mit_files["hub"])
    seen: list[torch.Tensor] = []
    teacher.encoder.stages[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for stage, found in enumerate(teacher.stages(golden.images(case))):
        golden.check(f"{case}/teacher{stage}", found)
    golden.check(f"{case}/x_teacher", seen[0])


def test_both_namings_give_the_same_tensors(mit_files: dict[str, Path]) -> None:
    hub, official = (SegformerTeacher(path) for path in mit_files.values())
    other = official.state_dict()
    assert all(torch.equal(tensor, other[name]) for name, tensor in hub.state_dict().items())


def test_a_folder_half_precision_and_a_prefix_are_read(
    mit_files: dict[str, Path], tmp_path: Path
) -> None:
    tensors = {
        f"backbone.{name}": tensor.half()
        for name, tensor in torch.load(mit_files["official"], weights_only=True).items()
    }
    save_file(tensors, tmp_path / "model.safetensors")
    teacher = SegformerTeacher(tmp_path)
    assert {parameter.dtype for parameter in teacher.parameters()} == {torch.float32}
    wanted = SegformerTeacher(mit_files["official"]).state_dict()["encoder.stages.3.norm.weight"]
    found = teacher.state_dict()["encoder.stages.3.norm.weight"]
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


def test_the_teacher_never_trains(mit_files: dict[str, Path]) -> None:
    teacher = SegformerTeacher(mit_files["hub"]).train()
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert sum(parameter.numel() for parameter in teacher.parameters()) == 13_151_424


def test_half_precision_is_close_and_gives_float32(mit_files: dict[str, Path]) -> None:
    teacher = SegformerTeacher(mit_files["hub"])
    images = golden.images("224")[:1, :, :32, :32]
    wanted = teacher.stages(images)
    for half, whole in zip(teacher.bfloat16().stages(images), wanted, strict=True):
        assert half.dtype == torch.float32
        assert torch.nn.functional.cosine_similarity(half.flatten(1), whole.flatten(1)) > 0.99


def test_strides_and_weights_are_part_of_the_identity(mit_files: dict[str, Path]) -> None:
    teachers = [
        SegformerTeacher(mit_files["hub"]),
        SegformerTeacher(mit_files["official"]),
        SegformerTeacher(mit_files["hub"], strides=(4, 2, 2, 2)),
    ]
    assert len({teacher.identity for teacher in teachers}) == 3
    assert teachers[0].weights.sha256.startswith(teachers[0].identity[-16:])


def test_unknown_strides_are_refused(mit_files: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"strides \(4, 2, 1, 1\) are neither of"):
        SegformerTeacher(mit_files["hub"], strides=(4, 2, 1, 1))


def test_missing_and_unexpected_tensors_are_listed_in_the_files_own_names(tmp_path: Path) -> None:
    tensors = golden.make_hollow("mit_b1")
    del tensors["segformer.encoder.block.1.0.attention.self.key.weight"]
    tensors["segformer.encoder.extra"] = torch.zeros(1)
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    with pytest.raises(
        CheckpointError,
        match=r"not a SegFormer MiT-B1 encoder: 1 missing: "
        r"encoder\.block\.1\.0\.attention\.self\.key\.weight; 1 unexpected: encoder\.extra$",
    ):
        SegformerTeacher(tmp_path)


def test_another_size_is_refused_by_its_shapes(tmp_path: Path) -> None:
    tensors = golden.make_hollow("mit_b1")
    tensors["segformer.encoder.patch_embeddings.0.proj.weight"] = torch.zeros(32, 3, 7, 7)
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    with pytest.raises(
        CheckpointError, match=r"proj.weight is \(32, 3, 7, 7\), should be \(64, 3, 7, 7\)"
    ):
        SegformerTeacher(tmp_path)


def test_another_models_file_is_named_as_such(hollow_conch: Path) -> None:
    with pytest.raises(CheckpointError, match=r"\(another model's file\?\): 176 missing"):
        SegformerTeacher(hollow_conch)
