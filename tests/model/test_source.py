"""The promise `CamSource`: every source keeps it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.model.segment.networks import make_segmenter
from tests.model.test_prompts import make_source
from wsiseg.annotations import Palette
from wsiseg.model.checkpoint import CheckpointInfo, read_info
from wsiseg.model.construct import ConStruct
from wsiseg.model.encoders import load_encoder
from wsiseg.model.source import CamSource, Sides
from wsiseg.model.trained import TrainedModel, load_trained

SOURCES: dict[str, Callable[[], CamSource]] = {
    "trained": lambda: load_trained("tiny"),
    "window": make_source,
    "overlapping windows": lambda: make_source(stride=8),
    "patch": lambda: make_source(features="patch"),
    "lite network": lambda: make_segmenter("lite"),
    "small network": lambda: make_segmenter("small"),
    "segformer": lambda: make_segmenter("segformer-b0"),
}


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest) -> CamSource:
    return SOURCES[request.param]()


def test_cams_have_a_cell_a_stride_and_a_channel_a_kind(source: CamSource) -> None:
    side = source.sides.nearest(64)
    cams = source.cams(torch.rand(2, 3, side, side))
    cells = side // source.stride
    assert cams.shape == (2, source.channels, cells, cells)
    assert cams.dtype == torch.float32
    seen = source.look(torch.rand(2, 3, side, side))
    assert seen.shape[1] >= source.channels
    assert (seen.shape[0], *seen.shape[2:]) == (2, cells, cells)
    pooled = source.pool(seen)
    assert (pooled.shape, pooled.dtype) == ((2, source.channels), torch.float32)
    assert cams.isfinite().all()
    assert pooled.isfinite().all()


def test_images_of_a_batch_do_not_see_each_other(source: CamSource) -> None:
    side = source.sides.nearest(32)
    images = torch.rand(2, 3, side, side)
    with torch.inference_mode():
        torch.testing.assert_close(source.cams(images)[1:], source.cams(images[1:]))


def test_what_it_sees_begins_with_its_cams(source: CamSource) -> None:
    side = source.sides.nearest(64)
    images = torch.rand(1, 3, side, side)
    with torch.inference_mode():
        assert torch.equal(source.look(images)[:, : source.channels], source.cams(images))


def test_facts_fit_each_other(source: CamSource) -> None:
    assert isinstance(source.palette, Palette)
    assert source.channels >= len(source.palette) > 0
    assert source.sides.least % source.stride == source.sides.step % source.stride == 0
    assert source.device == torch.device("cpu")
    assert len(source.background) in (0, source.channels - len(source.palette))
    assert len(source.mean) == 3
    assert source.std is None or len(source.std) == 3
    assert source.name
    assert source.mpp is None or source.mpp > 0
    assert source.tile is None or source.sides.fits(source.tile)
    with source.evaluating():
        pass


def test_a_trained_model_is_what_its_checkpoint_says() -> None:
    source, info = load_trained("tiny"), read_info("tiny")
    assert (source.palette, source.mpp, source.tile) == (info.palette, info.mpp, info.tile)
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        output = source.model(images)
        assert torch.equal(source.cams(images), output.cams)
        assert torch.equal(source.pool(output.cams), output.logits)


def test_evaluating_gives_the_mode_back() -> None:
    source = load_trained("tiny")
    source.model.train()
    with source.evaluating():
        assert not source.model.training
    assert source.model.training


class Fixed:
    """An encoder for images of one size, as vision transformers are."""

    image_size = 224

    def __init__(self) -> None:
        self._tiny = load_encoder("tiny")

    def __getattr__(self, name: str) -> object:
        return getattr(self._tiny, name)


def test_an_encoder_of_one_size_takes_no_other() -> None:
    info: CheckpointInfo = read_info("tiny")
    model = ConStruct(Fixed(), torch.zeros(4, load_encoder("tiny").embedding_dim))  # type: ignore[arg-type]  # by __getattr__
    assert TrainedModel(model, info).sides == Sides(224, 0)


@pytest.mark.parametrize(
    ("sides", "text", "nearest"),
    [
        (Sides(224, 0), "exactly 224 px", 224),
        (Sides(32, 32), "multiples of 32 px", 96),
        (Sides(224, 56), "multiples of 56 px from 224 px on", 224),
        (Sides(100, 40), "100 px or 40 px more, twice 40 px more ...", 100),
    ],
)
def test_sides_in_words(sides: Sides, text: str, nearest: int) -> None:
    assert str(sides) == text
    assert sides.nearest(90) == nearest
    assert sides.fits(nearest)
    assert not sides.fits(90)
