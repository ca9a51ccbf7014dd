"""What the contrastive loss of each preset teaches."""

import pytest
import torch

from wsiseg.config import TrainConfig
from wsiseg.model.construct import ConStruct
from wsiseg.model.encoders import load_encoder, load_teacher
from wsiseg.model.losses import (
    MemoryBank,
    background_loss,
    foreground_loss,
    region_masks,
    split_anchors,
)
from wsiseg.train.contrast import contrast

LABELS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])


def make(preset):
    torch.manual_seed(5 if preset == "wsiseg" else 0)  # some CAM of each is above 0
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


@pytest.mark.parametrize("preset", ["reference", "paper"])
def test_the_bank_takes_in_a_background_a_pair(images, preset):
    bank = MemoryBank(16, 128, torch.Generator().manual_seed(2))
    before = bank.queue.clone()
    loss_of(make(preset), images, bank)
    assert bank.pointer == 3
    assert not torch.equal(bank.queue[:3], before[:3])
    assert torch.equal(bank.queue[3:], before[3:])
    assert not bank.queue.requires_grad


def test_ours_leaves_out_regions_and_backgrounds_that_are_empty(images):
    """One threshold a class; nothing found is no region, the whole patch has no background."""
    model, bank = make("wsiseg"), MemoryBank(16, 128, torch.Generator().manual_seed(2))
    cams = torch.full((2, 3, 2, 2), -1.0)
    cams[0, 2, 0] = 0.1  # weak beside another class, but the best of its own
    cams[0, 1] = 9.0  # does not show, so nobody asks
    cams[1, 1] = 3.0  # everywhere
    first = bank.queue.clone()
    got = contrast(model, images, cams, LABELS, bank, TrainConfig(contrast_shrink=1))

    _, masks = region_masks(cams, (64, 64), per_class=True)
    fill = torch.tensor(model.encoder.mean)[:, None, None]
    inside = torch.stack([torch.where(masks[0, 2], images[0], fill), images[1]])
    outside = torch.where(masks[0, 2], fill, images[0])[None]
    own, others = split_anchors(model.anchors, torch.tensor([2, 1]))
    foreground = foreground_loss(model.encoder.embed_image(inside), own, others, first)
    background = background_loss(model.encoder.embed_image(outside), own[:1], others[:1])
    assert 0 < masks[0, 2].sum() < 64 * 64
    assert got.item() == pytest.approx((foreground + background).item(), rel=1e-5)
    assert bank.pointer == 1


def test_ours_is_nothing_where_no_class_is_found(images):
    bank = MemoryBank(16, 128, torch.Generator().manual_seed(2))
    cams = torch.full((2, 3, 2, 2), -1.0)
    got = contrast(make("wsiseg"), images, cams, LABELS, bank, TrainConfig(contrast_shrink=1))
    assert (got.item(), bank.pointer) == (0, 0)


@pytest.mark.parametrize("preset", ["reference", "paper", "wsiseg"])
def test_one_class_has_a_finite_loss(images, preset):
    model = ConStruct(load_encoder("tiny"), ("tumour",), preset=preset).eval()
    cams = torch.tensor([1.0, -1.0]).expand(2, 1, 2, 2)
    bank = MemoryBank(16, 128, torch.Generator().manual_seed(2))
    got = contrast(model, images, cams, torch.ones(2, 1), bank, TrainConfig(contrast_shrink=1))
    assert got.isfinite()
    assert got > 0


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
