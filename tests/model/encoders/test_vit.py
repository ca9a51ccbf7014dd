from __future__ import annotations

import pytest
import torch

from wsiseg.errors import ConfigError, GeometryError
from wsiseg.model.encoders.vit import (
    build_pyramid,
    check_images,
    normalize,
    pyramid_strides,
    tap_blocks,
)


@pytest.mark.parametrize(
    ("depth", "blocks"), [(12, [2, 5, 8, 11]), (24, [5, 11, 17, 23]), (10, [1, 4, 6, 9])]
)
def test_taps_end_each_quarter(depth: int, blocks: list[int]) -> None:
    assert tap_blocks(depth) == blocks


def test_pyramid_of_constants_is_constant_at_four_sizes() -> None:
    taps = [torch.full((2, 3, 14, 14), float(level)) for level in range(4)]
    for level, (found, side) in enumerate(zip(build_pyramid(taps), (56, 28, 14, 7), strict=True)):
        assert torch.equal(found, torch.full((2, 3, side, side), float(level)))


def test_the_coarsest_level_is_the_mean_of_four_cells() -> None:
    taps = [torch.rand(1, 2, 4, 4) for _ in range(4)]
    wanted = taps[3].unflatten(3, (2, 2)).unflatten(2, (2, 2)).mean((3, 5))
    torch.testing.assert_close(build_pyramid(taps)[3], wanted)


@pytest.mark.parametrize(("patch", "size"), [(16, 224), (16, 448), (8, 224), (32, 256)])
def test_strides_divide_the_image(patch: int, size: int) -> None:
    strides = pyramid_strides(patch, size)
    assert strides == (patch / 4, patch / 2, patch, patch * 2)
    assert all(size % stride == 0 for stride in strides)


@pytest.mark.parametrize(
    ("patch", "size", "works"), [(15, 240, "240 or 270"), (32, 224, "192 or 256"),
                                 (16, 240, "224 or 256"), (14, 518, "504 or 532")],
)  # fmt: skip
def test_patches_without_a_whole_pyramid_are_refused(patch: int, size: int, works: str) -> None:
    with pytest.raises(
        ConfigError, match=f"patches of {patch} px on images of {size} px .*{works}"
    ):
        pyramid_strides(patch, size)


def test_patches_of_14_px_have_two_levels_of_half_a_patch() -> None:
    strides = pyramid_strides(14, 224)
    assert strides == (7, 7, 14, 28)
    taps = [torch.full((1, 2, 16, 16), float(level)) for level in range(4)]
    for level, (maps, stride) in enumerate(
        zip(build_pyramid(taps, patch=14), strides, strict=True)
    ):
        assert torch.equal(maps, torch.full((1, 2, 224 // stride, 224 // stride), float(level)))


@pytest.mark.parametrize("shape", [(1, 3, 224, 448), (3, 224, 224), (1, 4, 224, 224)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(GeometryError, match=r"CONCH takes images \(B, 3, 224, 224\), not \("):
        check_images(torch.zeros(shape), 224, "CONCH")


def test_normalize_takes_off_the_mean_of_each_channel() -> None:
    images = torch.tensor([0.2, 0.4, 0.6])[:, None, None].expand(1, 3, 2, 2)
    found = normalize(images, (0.1, 0.4, 1.0), (0.1, 1.0, 0.2))
    torch.testing.assert_close(found[0, :, 0, 0], torch.tensor([1.0, 0.0, -2.0]))


def test_one_level_is_that_of_the_whole() -> None:
    taps = [torch.rand(1, 2, 14, 14) for _ in range(4)]
    for level, wanted in enumerate(build_pyramid(taps)):
        assert torch.equal(build_pyramid(taps, [level])[0], wanted)
