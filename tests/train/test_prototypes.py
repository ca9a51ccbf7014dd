"""What prototypes begin as: clusters of labelled patches, beside texts or alone; kept apart."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from wsiseg.config import TrainConfig
from wsiseg.errors import ConfigError, DataError
from wsiseg.learn.start import extend_config, start_from
from wsiseg.model.checkpoint import load_checkpoint, read_info
from wsiseg.model.construct import ConStruct
from wsiseg.model.encoders import load_encoder
from wsiseg.model.losses import diversity_loss
from wsiseg.model.trained import load_trained
from wsiseg.train import Patches, describe_training, train_model
from wsiseg.train.prototypes import begin_as_images, cluster, image_prototypes
from wsiseg.train.setup import make_model

CONFIG = TrainConfig(
    classes=("A", "B"), epochs=2, batch_size=4, device="cpu", struct_weight=0.0, contrast_weight=0.0
)


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    """Ten reddish patches of A, ten bluish ones of B, and two that show both."""
    folder, random = tmp_path_factory.mktemp("patches"), np.random.default_rng(0)
    labels = np.array([[1, 0]] * 10 + [[0, 1]] * 10 + [[1, 1]] * 2, np.float32)
    for number, (a, b) in enumerate(labels):
        coarse = random.integers(0, 60, (8, 8, 3))
        coarse[:, :, 0] += int(120 * a)
        coarse[:, :, 2] += int(120 * b)
        image = Image.fromarray(coarse.astype(np.uint8).repeat(8, 0).repeat(8, 1))
        image.save(folder / f"{number:02}.png")
    return Patches(tuple(sorted(folder.iterdir())), labels, 64)


def embed(patches, which):
    images = torch.from_numpy(patches.read(which)).permute(0, 3, 1, 2) / 255
    return load_encoder("tiny").embed_image(images)


def begun(patches, **changes) -> ConStruct:
    config = CONFIG.model_copy(update=changes)
    model = make_model(config)
    begin_as_images(model, patches, config)
    return model


def test_one_prototype_is_the_mean_of_the_pure_patches_without_what_all_share(patches):
    bank = begun(patches, prototypes="images").prototypes.detach()
    parts = [F.normalize(embed(patches, w).mean(0), dim=0) for w in (range(10), range(10, 20))]
    wanted = F.normalize(torch.stack(parts) - torch.stack(parts).mean(0), dim=1)
    torch.testing.assert_close(bank, wanted, atol=1e-4, rtol=0)
    assert F.cosine_similarity(*parts, dim=0) > 0 > F.cosine_similarity(*bank, dim=0)


def test_one_class_begins_as_its_patches_look(patches):
    one = Patches(patches.paths, patches.labels[:, :1], 64)
    bank = begun(one, prototypes="images", classes=("A",)).prototypes.detach()
    shown = np.flatnonzero(patches.labels[:, 0] == 1)
    torch.testing.assert_close(bank[0], F.normalize(embed(patches, shown).mean(0), dim=0))


def test_mixed_patches_serve_where_pure_ones_are_too_few(patches):
    few = Patches(patches.paths[10:], patches.labels[10:], 64)  # A shows in the mixed ones only
    found = image_prototypes(make_model(CONFIG), few, 0, 1, CONFIG.seed)
    wanted = F.normalize(embed(patches, [20, 21]).mean(0), dim=0)
    torch.testing.assert_close(found[0], wanted)


def test_both_keeps_the_texts_and_adds_images(patches):
    text = begun(patches, prototypes="text").prototypes.detach()
    bank = begun(patches, prototypes="both").prototypes.detach().view(2, 2, -1)
    images = begun(patches, prototypes="images").prototypes.detach()
    assert torch.equal(bank[:, 1], images)
    # SPREAD keeps equal texts apart; the text row stays near its text.
    assert (F.cosine_similarity(bank[:, 0], text, dim=1) > 0.99).all()
    three = begun(patches, prototypes="both", prototypes_per_class=3)
    assert three.prototypes.shape == (12, 128)
    assert three(torch.rand(1, 3, 64, 64)).cosines.shape[1:3] == (2, 6)


def test_auto_is_text_where_there_are_texts(patches):
    auto, text = begun(patches), begun(patches, prototypes="text")
    assert torch.equal(auto.prototypes, text.prototypes)


def test_a_class_that_no_patch_shows_cannot_begin_as_images(patches):
    config = CONFIG.model_copy(update={"classes": ("A", "B", "C"), "prototypes": "images"})
    labels = np.column_stack([patches.labels, np.zeros(len(patches), np.float32)])
    with pytest.raises(DataError, match=r"no patch shows 'C', .*set prototypes to text or random"):
        begin_as_images(make_model(config), Patches(patches.paths, labels, 64), config)


def test_clusters_find_what_lies_together():
    random = torch.Generator().manual_seed(1)
    centres = F.normalize(torch.randn(3, 16, generator=random), dim=1)
    sizes = (30, 20, 10)
    points = torch.cat([
        centre + 0.05 * torch.randn(count, 16, generator=random)
        for centre, count in zip(centres, sizes, strict=True)
    ])  # fmt: skip
    found = cluster(points, 3, seed=0)
    assert (F.cosine_similarity(found, centres, dim=1) > 0.99).all(), "the largest first"
    assert torch.equal(found, cluster(points, 3, seed=0))
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))


def test_fewer_patches_than_clusters_still_give_distinct_prototypes():
    points = F.normalize(torch.rand(2, 8), dim=1)
    found = cluster(points.repeat(3, 1), 4, seed=0)
    assert found.shape == (4, 8)
    assert torch.cdist(found, found).fill_diagonal_(9).min() > 1e-3


@pytest.mark.parametrize("kind", ["images", "both"])
def test_a_checkpoint_of_several_kinds_loads_and_goes_on(kind, patches, tmp_path):
    config = CONFIG.model_copy(
        update={"prototypes": kind, "prototypes_per_class": 2, "diversity_weight": 0.5,
                "cam_levels": (1, 2), "cam_overlap": 2},
    )  # fmt: skip
    out = train_model(patches, config, tmp_path / "m.safetensors")
    rows = 4 if kind == "both" else 2
    info = read_info(out)
    assert (info.prototypes_per_class, info.cam_levels, info.cam_overlap) == (rows, (1, 2), 2)
    model, _ = load_checkpoint(out)
    source = load_trained(out)
    images = torch.rand(1, 3, 64, 64)
    assert model(images).cams.shape == (1, 2, 8, 8)
    assert source.stride == 4
    assert source.cams(images).shape == (1, 2, 16, 16)
    wanted = extend_config(str(out), ["A", "B", "C"], {"epochs": 1})
    labels = np.column_stack([patches.labels, patches.labels[:, 0]])
    begun = start_from(str(out), make_model(wanted), Patches(patches.paths, labels, 64), wanted)
    assert begun["prototypes"].shape == (3 * rows, 128)
    assert torch.equal(begun["prototypes"][: 2 * rows], model.prototypes)


def test_an_encoder_without_texts_refuses_them():
    options = {"encoder": "timm", "encoder_options": {"model": "uni2-h"}}
    with pytest.raises(ConfigError, match=r"'timm' has no text tower, .* set prototypes to images"):
        describe_training(None, TrainConfig(**options, prototypes="text"))  # type: ignore[arg-type]


def test_a_quarter_of_an_odd_cell_is_refused(patches):
    class Odd(type(load_encoder("tiny"))):
        level_strides = (4, 14, 16, 32)

    from wsiseg.model import encoders

    encoders.ENCODERS["odd"] = encoders.Entry(f"{__name__}:Odd", teacher="tiny")
    globals()["Odd"] = Odd
    try:
        with pytest.raises(ConfigError, match="a cell of level 1 of encoder 'odd' is 14 px"):
            make_model(CONFIG.model_copy(update={"encoder": "odd", "cam_overlap": 2}))
    finally:
        del encoders.ENCODERS["odd"]


# -- kept apart ---------------------------------------------------------------------------------


def plain_diversity(cosines, labels):
    """The definition, image by image and pair by pair."""
    total = 0.0
    for maps, shown in zip(cosines, labels, strict=True):
        best = maps.amax(1).flatten(1)
        best[shown == 0] = -np.inf
        found = []
        for at in range(len(maps)):
            cells = (best.argmax(0) == at).numpy()
            if not shown[at] or cells.sum() < 3:
                continue
            rows = maps[at].flatten(1)[:, cells].numpy().astype(float)
            alike = np.corrcoef(rows) ** 2
            count = len(rows)
            found.append((alike.sum() - count) / (count * (count - 1)))
        total += np.mean(found) if found else 0.0
    return total / len(cosines)


def test_diversity_is_the_squared_correlation_within_the_region():
    torch.manual_seed(0)
    cosines, labels = torch.rand(4, 3, 3, 6, 6), torch.tensor([[1, 1, 0], [0, 1, 0], [1, 1, 1.0],
                                                               [0, 0, 0]])  # fmt: skip
    wanted = plain_diversity(cosines.clone(), labels)
    assert diversity_loss(cosines, labels).item() == pytest.approx(wanted, rel=1e-4)


def test_equal_prototypes_cost_most_and_opposite_ones_as_much():
    maps = torch.rand(1, 1, 1, 5, 5)
    for second in (maps, -maps):
        loss = diversity_loss(torch.cat([maps, second], 2), torch.ones(1, 1))
        assert loss.item() == pytest.approx(1, rel=1e-4)


def test_training_with_the_term_ends_with_prototypes_less_alike(patches, tmp_path):
    found = []
    for weight in (0.0, 20.0):
        config = CONFIG.model_copy(
            update={"prototypes": "images", "prototypes_per_class": 3, "diversity_weight": weight,
                    "epochs": 12, "learning_rate": 0.01},
        )  # fmt: skip
        out = train_model(patches, config, tmp_path / f"{weight}.safetensors")
        model, _ = load_checkpoint(out)
        images = torch.from_numpy(patches.read(range(len(patches)))).permute(0, 3, 1, 2) / 255
        with torch.inference_mode():
            cosines = model(images).cosines
        found.append(diversity_loss(cosines, torch.from_numpy(patches.labels)).item())
        with (tmp_path / f"{weight}.safetensors.csv").open() as table:
            first = next(csv.DictReader(table))
        assert (float(first["diversity"]) > 0) == (weight > 0)
    assert found[1] < 0.7 * found[0]
