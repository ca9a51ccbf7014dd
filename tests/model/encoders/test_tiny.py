import hashlib
import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from wsiseg.errors import ConfigError, MissingDependencyError
from wsiseg.model.encoders import ENCODERS, Encoder, Entry, Teacher, load_encoder, load_teacher
from wsiseg.model.encoders.tiny import TinyEncoder, TinyTeacher

if TYPE_CHECKING:
    _encoder: type[Encoder] = TinyEncoder
    _teacher: type[Teacher] = TinyTeacher


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(0))


def test_pyramid_keeps_the_promise(images):
    encoder, teacher = load_encoder("tiny"), load_teacher("tiny")
    for maps, channels in (
        (encoder.pyramid(images), encoder.level_channels),
        (teacher.stages(images), teacher.stage_channels),
    ):
        assert [tuple(m.shape) for m in maps] == [
            (2, c, 96 // s, 64 // s) for c, s in zip(channels, encoder.level_strides, strict=True)
        ]
        assert all(bool(m.isfinite().all()) and not m.requires_grad for m in maps)


def test_flips_and_turns_pass_through(images):
    """`equivariant` is what lets training keep what it has seen."""
    for maps_of in (TinyEncoder().pyramid, TinyTeacher().stages):
        plain = maps_of(images)
        for change in (
            lambda m: m.flip(3),
            lambda m: m.flip(2),
            lambda m: torch.rot90(m, 1, (2, 3)),
        ):
            for got, one in zip(maps_of(change(images)), plain, strict=True):
                torch.testing.assert_close(got, change(one), rtol=1e-3, atol=1e-4)


def test_a_tile_does_not_depend_on_its_batch(images):
    one, many = (TinyEncoder().pyramid(x)[0][:1] for x in (images[:1], images))
    torch.testing.assert_close(one, many, rtol=1e-3, atol=1e-4)


def test_frozen_weights_are_those_of_this_identity():
    """A change of these makes every checkpoint worthless: give `identity` a new version then."""
    encoder = TinyEncoder()
    digest = hashlib.sha256(encoder.identity.encode())
    for name, tensor in sorted(encoder.named_buffers()):
        digest.update(
            name.encode() + np.round(tensor.double().numpy() * 1e4).astype(np.int64).tobytes()
        )
    assert encoder.identity == "tiny-1"
    assert digest.hexdigest()[:16] == "bba4cafeccd9d913"


def test_extreme_images_are_finite():
    for value in (0.0, 1.0, -3.0, 9.0):  # black, white, and what brightness makes of them
        plain = torch.full((1, 3, 32, 32), value)
        assert TinyEncoder().pyramid(plain)[0].isfinite().all()
        assert TinyEncoder().embed_image(plain).isfinite().all()


def test_embeddings_are_of_unit_length_and_tell_apart(images):
    encoder = TinyEncoder()
    texts = encoder.embed_text(["Tumor regions", "tumor REGIONS", "necrosis regions", "stroma"])
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(texts[0], texts[1])
    cosines = texts[0] @ texts[2:].T
    assert 0 < float(cosines[0]) < 0.95, "a shared word makes texts alike, not equal"
    assert abs(float(cosines[1])) < float(cosines[0])
    regions = encoder.embed_image(images)
    torch.testing.assert_close(regions.norm(dim=1), torch.ones(2))


def test_unknown_name_lists_the_known():
    with pytest.raises(ConfigError, match=r"encoder 'tini' is unknown; known are .*tiny"):
        load_encoder("tini")
    with pytest.raises(ConfigError, match="known are"):
        load_teacher("tini")


def test_a_missing_package_gives_the_install_line(monkeypatch):
    monkeypatch.setitem(ENCODERS, "far", Entry("no_such_package.module:A", "wsiseg[encoders]"))
    with pytest.raises(
        MissingDependencyError, match=r"needs no_such_package: pip install 'wsiseg\[encoders\]'"
    ):
        load_encoder("far")


def test_prediction_does_not_spoil_training():
    """Filters are kept between calls; made under inference mode they must still serve training."""
    encoder, images = TinyEncoder(), torch.rand(1, 3, 160, 160)
    with torch.inference_mode():
        encoder.pyramid(images)
    weight = torch.ones(1, 64, 1, 1, requires_grad=True)
    torch.nn.functional.conv2d(encoder.pyramid(images)[1], weight).sum().backward()
    assert weight.grad is not None
    regions = torch.rand(1, 3, 160, 160, requires_grad=True)
    encoder.embed_normalized(regions).sum().backward()
    assert regions.grad is not None


def test_levels_that_are_asked_for_are_those_of_the_whole() -> None:
    images = torch.rand(2, 3, 64, 64)
    makers = (TinyEncoder().pyramid, TinyTeacher().stages)
    for made, levels in itertools.product(makers, ((2,), (3, 0), ())):
        whole, some = made(images), made(images, levels)
        assert all(
            torch.equal(found, whole[level]) for level, found in zip(levels, some, strict=True)
        )
