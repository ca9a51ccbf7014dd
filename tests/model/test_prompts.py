from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.model.plain_prompts import plain_cams, plain_softmax, plain_texts, softmax
from tests.model.test_prompt_file import TWO
from tests.model.towers import Towers
from wsiseg.annotations import Palette
from wsiseg.errors import ConfigError
from wsiseg.model.prompt_file import PromptSet
from wsiseg.model.prompts import PromptSource, embed_prompts

PROMPTS = PromptSet.model_validate(TWO)


def make_source(palette: Palette = PROMPTS.palette, **options: Any) -> PromptSource:
    """Windows of 32 px, patches of 8; four channels."""
    encoder = Towers()
    texts = embed_prompts(encoder, PROMPTS)
    return PromptSource(encoder, palette, texts, name="towers", **options)


def images(side: int, count: int = 2) -> torch.Tensor:
    return torch.rand((count, 3, side, side), generator=torch.Generator().manual_seed(1))


def test_texts_are_unit_means_of_unit_embeddings() -> None:
    encoder = Towers()
    wanted = plain_texts(PROMPTS.texts(), lambda text: encoder.embed_text([text])[0])
    found = embed_prompts(encoder, PROMPTS)
    assert (found.shape, found.dtype) == ((4, 5), torch.float32)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("side", "options", "cell"),
    [
        (32, {}, 32),
        (96, {}, 32),
        (64, {"stride": 16}, 16),
        (32, {"features": "patch"}, 8),
        (64, {"stride": 8, "features": "patch"}, 8),
    ],
)
def test_windows_give_what_the_plain_computation_gives(
    side: int, options: dict[str, Any], cell: int
) -> None:
    source, batch, encoder = make_source(**options), images(side), Towers()

    def encode(crop: torch.Tensor) -> torch.Tensor:
        if options.get("features") == "patch":
            return encoder.embed_patches(crop[None])[0]
        return encoder.embed_image(crop[None])[0][:, None, None]

    texts = plain_texts(PROMPTS.texts(), lambda text: encoder.embed_text([text])[0])
    wanted = plain_cams(batch, encode, texts, 20.0, 32, options.get("stride", 32), cell)
    found = source.cams(batch)
    assert source.stride == cell
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    np.testing.assert_allclose(softmax(found), plain_softmax(wanted), atol=1e-4)


def test_windows_of_another_side_are_resized_to_the_encoders() -> None:
    source = make_source(window=64, features="patch")
    assert (source.stride, source.sides.least) == (16, 64)
    smooth = torch.linspace(0.2, 0.8, 32).expand(1, 3, 32, 32)
    large = torch.nn.functional.interpolate(smooth, (64, 64), mode="bicubic", align_corners=False)
    small = make_source(features="patch").cams(smooth)
    np.testing.assert_allclose(source.cams(large), small, atol=0.3)


def test_a_class_shows_as_far_as_its_greatest_probability_in_a_cell() -> None:
    cams = make_source(features="patch").cams(images(32))
    found = torch.sigmoid(make_source().pool(cams))
    np.testing.assert_allclose(found, softmax(cams).max((2, 3)), atol=1e-5)
    sure = make_source().pool(torch.tensor([500.0, 0, 0, 0]).reshape(1, 4, 1, 1))
    assert sure.isfinite().all()


def test_temperature_divides() -> None:
    batch = images(32)
    torch.testing.assert_close(
        make_source(scale=1 / 0.1).cams(batch) * 2, make_source().cams(batch)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 13}, "prompt_stride 13 does not divide the window of 32 px, .* is 16"),
        ({"stride": 33}, "prompt_stride 33 does not divide the window of 32 px, .* is 32"),
        ({"window": 30, "features": "patch"}, "prompt_window must be a multiple of 4"),
        ({"stride": 4, "features": "patch"}, "every 4 px do not fall on whole cells"),
    ],
)
def test_windows_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_source(**options)


def test_sides_are_a_window_and_whole_strides_more() -> None:
    sides = make_source(stride=16).sides
    assert [side for side in range(1, 70) if sides.fits(side)] == [32, 48, 64]
    assert sides.nearest(1) == 32
    assert str(sides) == "multiples of 16 px from 32 px on"
