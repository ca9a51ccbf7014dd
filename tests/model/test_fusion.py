"""A finer CAM: fused levels begin as the coarsest, overlapping windows are true looks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from wsiseg.model.construct import ConStruct
from wsiseg.model.encoders import load_encoder
from wsiseg.model.fusion import TopDown, overlapped_cams

PROMPTS = ("one", "two", "three")


def make(**options) -> ConStruct:
    torch.manual_seed(0)
    return ConStruct(load_encoder("tiny"), PROMPTS, **options).eval()


def test_untrained_fusion_is_the_coarsest_map_enlarged():
    maps = [torch.rand(2, 5, 8, 8), torch.rand(2, 7, 4, 4), torch.rand(2, 7, 2, 2)]
    fused = TopDown([5, 7, 7])(maps)
    wanted = F.interpolate(F.interpolate(maps[2], (4, 4), mode="bilinear"), (8, 8), mode="bilinear")
    torch.testing.assert_close(fused, wanted)


def test_a_lateral_adds_its_level():
    fusion, maps = TopDown([2, 3]), [torch.rand(1, 2, 4, 4), torch.rand(1, 3, 2, 2)]
    torch.nn.init.ones_(fusion.laterals[0].weight)
    grown = F.interpolate(maps[1], (4, 4), mode="bilinear")
    torch.testing.assert_close(fusion(maps), grown + maps[0].sum(1, keepdim=True))


@pytest.mark.parametrize(("levels", "stride"), [((0,), 4), ((2,), 16), ((1, 2), 8), ((3, 0, 2), 4)])
def test_the_cam_has_the_grid_of_its_finest_level(levels, stride):
    model, images = make(cam_levels=levels), torch.rand(2, 3, 64, 64)
    assert model(images).cams.shape == (2, 3, 64 // stride, 64 // stride)
    assert model.cam_stride == stride
    assert model.levels_for(guided=False) == set(levels)
    used = {int(name) for name in model.structure_adapters}
    assert used >= set(levels)


def test_the_encoders_own_level_is_the_default_to_the_bit():
    images = torch.rand(1, 3, 64, 64)
    own, same = make(), make(cam_levels=(load_encoder("tiny").cam_level,))
    assert own.state_dict().keys() == same.state_dict().keys()
    assert torch.equal(own(images).cams, same(images).cams)


def test_fused_levels_learn():
    model = make(cam_levels=(1, 2)).train()
    model(torch.rand(2, 3, 64, 64)).logits.sum().backward()
    assert model.fusion.laterals[0].weight.grad.abs().max() > 0
    counts, own = model.count_parameters(), make(cam_levels=(1,)).count_parameters()
    added = [*model.fusion.parameters(), *model.structure_adapters["2"].parameters()]
    assert counts.learning - own.learning == sum(p.numel() for p in added)


def test_overlapping_windows_look_where_their_cells_are():
    """Each fine cell is the mean of a window about its own centre: held against slices."""
    stride, images = 8, torch.rand(2, 3, 32, 32)
    found = overlapped_cams(lambda x: F.avg_pool2d(x, stride), images, stride)
    assert found.shape == (2, 3, 8, 8)
    wide = F.pad(images, (2, 2, 2, 2), mode="replicate")
    for row in range(8):
        for column in range(8):
            top, left = row * 4, column * 4  # the cell's middle less half a window, padded by 2
            window = wide[:, :, top : top + 8, left : left + 8]
            torch.testing.assert_close(found[:, :, row, column], window.mean((2, 3)))


def test_a_constant_image_has_a_constant_cam():
    images = torch.full((1, 3, 32, 32), 0.3)
    found = overlapped_cams(lambda x: F.avg_pool2d(x, 16), images, 16)
    torch.testing.assert_close(found, torch.full((1, 3, 4, 4), 0.3))
