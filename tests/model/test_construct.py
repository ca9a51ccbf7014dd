from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from wsiseg.model.construct import AdaptiveLayer, ConStruct, StructureAdapter
from wsiseg.model.encoders import LEVELS, Encoder, Teacher, load_encoder, load_teacher
from wsiseg.model.losses import relational_loss


class FakeEncoder:
    """The paper's level structure at toy widths, no network: also shows that widths may differ."""

    identity = "fake-1"
    level_channels = (4, 5, 6, 7)
    level_strides = (4, 8, 16, 32)
    embedding_dim = 10
    cam_level = 3
    guidance_levels: tuple[int, ...] = (2,)
    mean = (0.5, 0.5, 0.5)
    equivariant = True

    def pyramid(self, images: Tensor, levels: Sequence[int] = LEVELS) -> list[Tensor]:
        maps = []
        for channels, stride in zip(self.level_channels, self.level_strides, strict=True):
            grey = F.avg_pool2d(images.mean(1, keepdim=True), stride)
            maps.append(torch.cat([torch.cos(grey * (i + 1)) for i in range(channels)], 1))
        return [maps[level] for level in levels]

    def embed_image(self, images: Tensor) -> Tensor:
        return F.normalize(images.mean((1, 2, 3))[:, None] ** torch.arange(1.0, 11.0), dim=1)

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        rows = [[float(len(p) % (i + 2)) + 1 for i in range(10)] for p in prompts]
        return F.normalize(torch.tensor(rows), dim=1)


class FakeTeacher:
    stage_channels = (3, 3, 3, 3)
    equivariant = True

    def stages(self, images: Tensor, levels: Sequence[int] = LEVELS) -> list[Tensor]:
        return [F.avg_pool2d(images, 4 << level) for level in levels]


if TYPE_CHECKING:
    _encoder: type[Encoder] = FakeEncoder
    _teacher: type[Teacher] = FakeTeacher

PROMPTS = ("a tumour", "some stroma", "lymphocytes")


def model(**options) -> ConStruct:
    torch.manual_seed(0)
    return ConStruct(FakeEncoder(), PROMPTS, **options)


def test_an_adapter_begins_as_the_identity():
    adapter, features = StructureAdapter(6), torch.randn(2, 6, 5, 5)
    torch.testing.assert_close(adapter(features), features)
    adapter.net[6].weight.data.normal_()
    assert not torch.allclose(adapter(features), features)


def test_names_are_the_papers():
    names = set(model().state_dict())
    assert {"prototypes", "logit_scale", "l_fc.fc1.weight", "l_fc.fc2.bias"} <= names
    for level in (2, 3):
        for layer in (0, 1, 3, 4, 6):
            assert f"structure_adapters.{level}.net.{layer}.weight" in names
    assert len(names) == 2 + 4 + 2 * (5 * 2 + 2 * 3)


def test_prototypes_begin_as_the_texts():
    texts = FakeEncoder().embed_text(PROMPTS)
    torch.testing.assert_close(model().prototypes.data, texts)
    twice = model(prototypes_per_class=2, preset="reference")
    torch.testing.assert_close(twice.prototypes.data[2:4], texts[1].expand(2, -1))
    torch.testing.assert_close(twice.anchors, texts)
    assert model().logit_scale.item() == pytest.approx(1 / 0.07)


def test_several_prototypes_of_a_class_part():
    texts, several = FakeEncoder().embed_text(PROMPTS), model(prototypes_per_class=3)
    away = (several.prototypes.data - texts.repeat_interleave(3, 0)).norm(dim=1)
    torch.testing.assert_close(away, torch.full((9,), 0.1))
    several(torch.rand(2, 3, 64, 64)).logits.sum().backward()
    gradient = several.prototypes.grad.view(3, 3, -1)
    assert not torch.allclose(gradient[:, 0], gradient[:, 1])


def test_adaptive_layer_gives_unit_rows():
    layer = AdaptiveLayer(10, 7)
    assert layer.fc1.out_features == 5
    layer.fc2.bias.data.normal_()
    torch.testing.assert_close(layer(torch.randn(4, 10)).norm(dim=1), torch.ones(4))


def test_forward_is_the_papers_chain():
    torch.manual_seed(1)
    construct, images = model().eval(), torch.rand(2, 3, 64, 96)
    output = construct(images)
    assert output.cams.shape == (2, 3, 2, 3)
    assert output.structure_loss is None
    torch.testing.assert_close(output.logits, output.cams.mean((2, 3)))
    features = construct.structure_adapters["3"](FakeEncoder().pyramid(images)[3])
    projected = construct.l_fc(construct.prototypes)
    want = F.cosine_similarity(features[1, :, 0, 2], projected[2], dim=0).item() / 0.07
    assert output.cams[1, 2, 0, 2].item() == pytest.approx(want, rel=1e-4)


def test_structure_loss_is_the_mean_over_guided_levels():
    encoder, images = FakeEncoder(), torch.rand(2, 3, 64, 64)
    encoder.guidance_levels = (1, 2)
    construct = ConStruct(encoder, PROMPTS, teacher=FakeTeacher())
    maps, stages = encoder.pyramid(images), FakeTeacher().stages(images)
    want = [relational_loss(maps[level], stages[level]) for level in (1, 2)]
    got = construct(images).structure_loss
    assert got.item() == pytest.approx(torch.stack(want).mean().item(), rel=1e-4)


def test_training_mode_leaves_the_frozen_encoders_alone():
    construct = ConStruct(load_encoder("tiny"), PROMPTS, teacher=load_teacher("tiny")).train()
    assert not construct.encoder.training
    assert not construct.teacher.training
    assert construct.structure_adapters["0" if construct.encoder.cam_level == 0 else "1"].training


def test_every_trained_tensor_gets_a_gradient():
    construct = ConStruct(load_encoder("tiny"), PROMPTS, teacher=load_teacher("tiny")).train()
    for adapter in construct.structure_adapters.values():
        torch.nn.init.normal_(adapter.net[6].weight, std=0.1)  # zero lets nothing through
    output = construct(torch.rand(2, 3, 64, 64))
    (output.logits.square().mean() + output.structure_loss).backward()
    for name, tensor in construct.named_parameters():
        assert tensor.grad is not None, f"{name} is dead weight"
