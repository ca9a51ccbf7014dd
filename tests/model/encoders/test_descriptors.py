"""Averages by small matrices, against pooling."""

import pytest
import torch
import torch.nn.functional as F

from wsiseg.model.encoders.descriptors import Descriptors, mean_around


@pytest.mark.parametrize("size", [(3, 5), (14, 14), (18, 40)])
def test_a_mean_around_leaves_out_what_is_beyond_the_map(size):
    maps = torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(0))
    wanted = F.avg_pool2d(maps, 7, 1, 3, count_include_pad=False)
    torch.testing.assert_close(mean_around(maps, 3), wanted, rtol=1e-5, atol=1e-6)


def test_descriptors_turn_with_the_image():
    describe = Descriptors()
    images = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    turned = describe(images.rot90(1, (2, 3))).rot90(-1, (2, 3))
    torch.testing.assert_close(turned, describe(images), rtol=1e-4, atol=1e-4)
