"""What the contrastive loss of each preset teaches."""

import pytest
import torch

from wsiseg.config import TrainConfig
from wsiseg.model.construct import ConStruct
from wsiseg.model.encoders import load_encoder, load_teacher
from wsiseg.model.losses import MemoryBank, region_masks
from wsiseg.train.contrast import contrast

LABELS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])


def make(preset):
    torch.manual_seed(0)
    model = ConStruct(
        load_encoder("tiny"), ("tumour", "stroma", "cells"), teacher=load_teacher("tiny"),
        preset=preset,
    )  # fmt: skip
    for adapter in model.structure_adapters.values():
        torch.nn.init.normal_(adapter.net[6].weight, std=0.1)
    return model.eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def loss_of(model, images, bank=None):
    bank = bank or MemoryBank(16, 128, torch.Generator().manual_seed(2))
    cams = model.read_pyramid(dict(enumerate(model.encoder.pyramid(images)))).cams
    return contrast(model, images, cams, LABELS, bank, TrainConfig(contrast_shrink=1))


def gradients(preset, images):
    model = make(preset)
    loss = loss_of(model, images)
    if loss.requires_grad:
        loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_the_released_loss_teaches_nothing(images):
    assert gradients("reference", images) == {}


def test_ours_teaches_the_prototypes(images):
    found = gradients("wsiseg", images)
    assert found.keys() == {"prototypes"}
    assert found["prototypes"].abs().max() > 0


def test_the_papers_teaches_prototypes_text_projection_and_cam(images):
    found = gradients("paper", images)
    level = load_encoder("tiny").cam_level
    for name in (
        "prototypes", "text_projection.fc1.weight", "text_projection.fc2.bias", "l_fc.fc1.weight",
        f"structure_adapters.{level}.net.0.weight",
    ):  # fmt: skip
        assert found[name].abs().max() > 0, name


@pytest.mark.parametrize("name", ["prototypes", "l_fc.fc2.weight"])
def test_the_papers_gradient_agrees_with_finite_differences(images, name):
    model = make("paper")
    parameter = dict(model.named_parameters())[name]
    (gradient,) = torch.autograd.grad(loss_of(model, images), parameter)
    along = gradient / gradient.norm()
    step = 2e-3 * parameter.detach().norm() / along.norm()
    with torch.no_grad():
        values = []
        for sign in (1, -1):
            parameter += sign * step * along
            values.append(loss_of(model, images).item())
            parameter -= sign * step * along
    measured = (values[0] - values[1]) / (2 * step.item())
    assert measured == pytest.approx(gradient.norm().item(), rel=0.05)


@pytest.mark.parametrize("preset", ["reference", "paper", "wsiseg"])
def test_every_preset_fills_the_bank_with_its_backgrounds(images, preset):
    bank = MemoryBank(16, 128, torch.Generator().manual_seed(2))
    before = bank.queue.clone()
    loss_of(make(preset), images, bank)
    assert bank.pointer == 3
    assert not torch.equal(bank.queue[:3], before[:3])
    assert torch.equal(bank.queue[3:], before[3:])
    assert not bank.queue.requires_grad


def test_the_papers_threshold_is_each_classes_own():
    cams = torch.tensor([[[[4.0, 1.0]], [[2.0, 0.9]], [[-1.0, -2.0]]]])
    _, masks = region_masks(cams, (1, 2), per_class=True)
    assert masks[0].tolist() == [[[True, False]], [[True, False]], [[True, True]]]


class Wide:
    """CONCH's widths without its weights."""

    level_channels = (768,) * 4
    embedding_dim = 512
    cam_level = 3
    guidance_levels = (2,)


@pytest.mark.parametrize(
    ("preset", "marked", "learning"),
    [
        ("reference", 6_084_609, 2_714_625),
        ("paper", 6_084_609 + 262_912, 2_714_625 + 262_912),
        ("wsiseg", 2_714_625, 2_714_625),
    ],
)
def test_parameter_counts(preset, marked, learning):
    model = ConStruct(Wide(), torch.zeros(4, 512), preset=preset, teacher=load_teacher("tiny"))
    counts = model.count_parameters()
    assert (counts.marked, counts.learning) == (marked, learning)


@pytest.mark.parametrize("preset", ["reference", "paper", "wsiseg"])
def test_what_learns_is_what_gradients_reach(images, preset):
    model = make(preset).train()
    output = model(images)
    (output.logits.square().mean() + output.structure_loss).backward()
    reached = sum(p.numel() for p in model.parameters() if p.grad is not None)
    assert reached == model.count_parameters().learning
