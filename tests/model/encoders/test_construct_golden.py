"""The `reference` preset against the released code: forward, losses, gradients, three steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.model import golden
from tests.model.golden import construct

pytest.importorskip("timm", reason="CONCH's vision tower is timm's: pip install 'wsiseg[encoders]'")

from wsiseg.config import TrainConfig
from wsiseg.model.cam import cosine_cams
from wsiseg.model.construct import ConStruct
from wsiseg.model.encoders import Encoder, load_teacher
from wsiseg.model.encoders.vit import normalize
from wsiseg.model.losses import (
    background_loss,
    foreground_loss,
    region_masks,
    relational_loss,
    weigh_regions,
)
from wsiseg.model.released import load_released
from wsiseg.train.features import Seen
from wsiseg.train.step import Losses, Trainer

CONFIG = TrainConfig(
    preset="reference", encoder="conch", epochs=2, batch_size=10, learning_rate=2e-5
)
STEPS = 6

pytestmark = pytest.mark.slow


def save_released(tensors: dict[str, Tensor], path: Path) -> Path:
    """As in the authors' file: the frozen towers are in it too."""
    held = {name: tensor for name, tensor in tensors.items() if not name.startswith("extra.")}
    held["clip_adapter.model.visual.proj_contrast"] = torch.zeros(2)
    held["segformer_teacher.norm1.weight"] = torch.zeros(2)
    torch.save({"model": held, "iter": 3}, path)
    return path


@pytest.fixture(scope="module", params=["224", "448"])
def case(
    request: pytest.FixtureRequest,
    conch_at: Callable[[int], Encoder],
    mit_files: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Case:
    encoder, folder = conch_at(int(request.param)), tmp_path_factory.mktemp("released")
    return Case(request.param, encoder, mit_files["official"], folder)


class Case:
    """One golden case: the model as it was, and what the frozen encoders see."""

    def __init__(self, name: str, encoder: Encoder, mit: Path, folder: Path) -> None:
        self.name, tensors = name, construct.make_tensors(name)
        teacher = load_teacher("segformer", weights=mit)
        self.model = ConStruct(encoder, torch.zeros(4, 512), teacher=teacher, preset="reference")
        self.file = save_released(tensors, folder / "best_cam.pth")
        self.queue = F.normalize(tensors["extra.memory_queue"], dim=1)
        self.images = golden.images(name)
        self.labels = construct.array(f"{name}/labels").float()
        self.seen = self.look(self.images)
        self.flipped = self.look(self.images.flip(3)) if name == "224" else self.seen

    def __str__(self) -> str:
        return self.name

    def look(self, images: Tensor) -> Seen:
        teacher = self.model.teacher
        assert teacher is not None
        return Seen(
            images,
            dict(enumerate(self.model.encoder.pyramid(images))),
            dict(enumerate(teacher.stages(images))),
        )

    def check(self, name: str, mine: Tensor | float) -> None:
        golden.check(f"{self.name}/{name}", mine)

    def start(self) -> Trainer:
        load_released(self.model, self.file)
        trainer = Trainer(self.model, CONFIG, STEPS)
        trainer.bank.queue = self.queue.clone()
        trainer.bank.pointer = int(golden.array(f"{self.name}/memory_ptr_initial"))
        return trainer


@pytest.fixture
def loaded(case: Case) -> Iterator[Case]:
    load_released(case.model, case.file).eval()
    yield case
    case.model.zero_grad()


@golden.asserts("*/cam_eval", "*/cls_logits_eval", "*/proto_projected", "*/refined?_eval",
                "*/struct_loss_eval_*", "*/proto_maps_eval", "*/affinity_*")  # fmt: skip
@pytest.mark.usefixtures("loaded")
@torch.no_grad()
def test_forward_equals_the_released_code(case: Case) -> None:
    model, seen = case.model, case.seen
    output = model.read_pyramid(seen.pyramid, seen.stages)
    case.check("cam_eval", output.cams)
    case.check("cls_logits_eval", output.logits)
    projected = model.l_fc(model.bank)
    case.check("proto_projected", projected)
    refined = [model.structure_adapters[str(i)](seen.pyramid[i]) for i in range(4)]
    for level, found in enumerate(refined):
        case.check(f"refined{level}_eval", found)
        structure = relational_loss(found, seen.stages[level])
        case.check(f"struct_loss_eval_level{level}", structure)
    case.check("proto_maps_eval", cosine_cams(refined[3], projected, model.logit_scale, 4))
    for name, maps in (("student_level2_eval", refined[2]), ("teacher_level2", seen.stages[2])):
        tokens = F.normalize(maps.flatten(2), dim=1)
        case.check(f"affinity_{name}", tokens.mT @ tokens)


@golden.asserts("*/refined?_train", "*/struct_loss_train_*")
@pytest.mark.usefixtures("loaded")
@torch.no_grad()
def test_training_mode_equals_the_released_code(case: Case) -> None:
    model, seen = case.model.train(), case.seen
    for level in range(4):
        found = model.structure_adapters[str(level)](seen.pyramid[level])
        if level >= 2:  # the others are not in the set
            case.check(f"refined{level}_train", found)
        structure = relational_loss(found, seen.stages[level])
        case.check(f"struct_loss_train_level{level}", structure)


@golden.asserts("*/step0.c*", "*/step0.mask_fg", "*/step0.thresholds", "*/step0.pairs",
                "*/step0.?g_image")  # fmt: skip
@pytest.mark.usefixtures("loaded")
@torch.no_grad()
def test_regions_equal_the_released_code(case: Case) -> None:
    model, seen, encoder = case.model.train(), case.seen, case.model.encoder
    logits, cams, *_ = model.read_pyramid(seen.pyramid, seen.stages)
    case.check("step0.cls_logits", logits)
    case.check("step0.cam", cams)
    maps, masks = region_masks(cams, case.images.shape[2:])
    case.check("step0.cam_up", maps)
    case.check("step0.mask_fg", masks)
    case.check("step0.thresholds", 0.5 * maps.amax((1, 2, 3)))
    normal = normalize(case.images, encoder.region_mean, encoder.region_std)
    regions = weigh_regions(normal, maps, masks, case.labels)
    pairs = torch.nonzero(case.labels)
    case.check("step0.pairs", pairs)
    assert torch.equal(regions.labels, pairs[:, 1])
    case.check("step0.fg_image", regions.foreground)
    case.check("step0.bg_image", regions.background)


@golden.asserts("*/memory_queue_initial", "*/step?.lr", "*/step?.losses", "*/step?.memory_*",
                "*/step0.?g_features", "*/grad.*", "*/step?.delta.*",
                "*/step?.buffer.*")  # fmt: skip
def test_three_steps_equal_the_released_code(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, model = case.start(), case.model
    loaded = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    case.check("memory_queue_initial", trainer.bank.queue)
    embedded = record_embeddings(model, monkeypatch)
    for step in range(3 if case.name == "224" else 1):
        case.check(f"step{step}.lr", trainer.rate)
        anchors, queue = model.anchors.detach().clone(), trainer.bank.queue.clone()
        losses = trainer.step(case.flipped if step == 1 else case.seen, case.labels)
        assert not losses.contrast.requires_grad, "the released loss has no gradient at all"
        check_losses(case, step, losses, embedded[-2:], anchors, queue)
        case.check(f"step{step}.memory_ptr", trainer.bank.pointer)
        if step != 1:  # not in the set
            rows = torch.cat([trainer.bank.queue[:6], trainer.bank.queue[2043:]])
            case.check(f"step{step}.memory_rows", rows)
        if step == 0:
            check_gradients(case)
            case.check("step0.fg_features", embedded[0])
            case.check("step0.bg_features", embedded[1])
        check_changes(case, step, loaded)


def record_embeddings(model: ConStruct, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What the encoder says of the regions, in the order of the calls."""
    embed, found = model.encoder.embed_normalized, []

    def recording(images: Tensor) -> Tensor:
        found.append(embed(images))
        return found[-1]

    monkeypatch.setattr(model.encoder, "embed_normalized", recording)
    return found


def check_losses(
    case: Case, step: int, losses: Losses, embedded: list[Tensor], anchors: Tensor, queue: Tensor
) -> None:
    """All seven numbers of the set; three of them from what the regions were embedded to."""
    classes = torch.nonzero(case.labels)[:, 1]
    others = torch.tensor([[j for j in range(4) if j != c] for c in classes.tolist()])
    sides = anchors[classes], anchors[others]
    foreground, alone = (foreground_loss(embedded[0], *sides, q) for q in (queue, queue[:0]))
    background = background_loss(embedded[1], *sides)
    found = [losses.classes, losses.structure, foreground, background, losses.contrast,
             losses.total, alone]  # fmt: skip
    case.check(f"step{step}.losses", torch.stack(found))


def check_gradients(case: Case) -> None:
    gradients = {name: tensor.grad for name, tensor in case.model.named_parameters()}
    for name in golden.names(f"{case.name}/grad.*"):
        found = gradients[rename(name.partition("grad.")[2])]
        assert found is not None
        golden.check(name, found)
    idle = [name for name, grad in gradients.items() if grad is None and "encoder" not in name]
    idle = [name for name in idle if not name.startswith("teacher")]
    assert sorted({name.partition(".net")[0].partition(".fc")[0] for name in idle}) == [
        "l_fc1", "l_fc2", "l_fc3", "structure_adapters.0", "structure_adapters.1",
    ]  # fmt: skip


def check_changes(case: Case, step: int, loaded: dict[str, Tensor]) -> None:
    now = case.model.state_dict()
    for name in golden.names(f"{case.name}/step{step}.delta.*"):
        key = rename(name.partition("delta.")[2])
        golden.check(name, now[key] - loaded[key])
    for name in golden.names(f"{case.name}/step{step}.buffer.*"):
        golden.check(name, now[name.partition("buffer.")[2]])


def rename(name: str) -> str:
    return name.replace("l_fc4.", "l_fc.")


def test_counts_are_the_released_codes(case: Case) -> None:
    counts = case.model.count_parameters()
    assert (counts.marked, counts.learning) == (6_084_609, 2_714_625)
    if case.name == "224":
        assert counts.frozen == 85_798_656 + 1_579_008 + 13_151_424
