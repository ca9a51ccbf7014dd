from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.model.crf.dense import normalized_kernel
from wsiseg.model.crf.coarse_grid import coarse_axis, filter_grid
from wsiseg.model.crf.smoothness import Smoothness


def dense(values: np.ndarray, sxy: float) -> np.ndarray:
    """`(C, H, W)` by the whole matrix."""
    classes, height, width = values.shape
    place = np.stack(np.mgrid[:height, :width], -1).reshape(-1, 2) / sxy
    out = values.reshape(classes, -1) @ normalized_kernel(place)
    return np.asarray(out.reshape(classes, height, width))


@pytest.mark.parametrize("sxy", [0.7, 3.0, 15.0])
def test_matrix_products_are_the_normalised_gaussian(sxy):
    values = np.random.default_rng(0).random((2, 31, 44))
    found = Smoothness(31, 44, sxy, torch.device("cpu"))(torch.from_numpy(values).float()[None])
    np.testing.assert_allclose(found[0].numpy(), dense(values, sxy), rtol=2e-3)


def test_strips_of_a_long_axis_equal_one_product():
    values = torch.rand(1, 2, 3, 1100)
    smooth = Smoothness(3, 1100, 5.0, torch.device("cpu"))
    whole = (values @ smooth.columns).transpose(2, 3) @ smooth.rows
    assert torch.allclose(smooth(values), whole.transpose(2, 3), atol=1e-6)


@pytest.mark.parametrize(("sxy", "cells"), [(2.0, 44), (7.0, 22), (15.0, 11), (40.0, 6)])
def test_the_coarse_grid_is_the_normalised_gaussian(sxy, cells):
    height, width, lanes = 31, 44, 8
    values = np.random.default_rng(0).random((lanes, height, width))
    down, across = coarse_axis(height, sxy), coarse_axis(width, sxy)
    assert across.cells == cells + 2
    norm = down.norm[:, None] * across.norm[None]
    grid = np.zeros((down.cells, across.cells, lanes), np.float32)
    where = np.broadcast_arrays(down.cell[:, None], across.cell[None])
    np.add.at(grid, tuple(where), (norm * values).transpose(1, 2, 0))
    flat = grid.reshape(-1)
    filter_grid(flat, np.zeros_like(flat), down.cells, across.cells, lanes, down.taps, across.taps)
    grid = flat.reshape(grid.shape)

    def between(axis, cells):
        upper = np.minimum(axis.left + 1, cells - 1)
        matrix = np.zeros((len(axis.left), cells))
        matrix[np.arange(len(axis.left)), axis.left] += 1 - axis.share
        matrix[np.arange(len(axis.left)), upper] += axis.share
        return matrix

    found = np.einsum(
        "yi,xj,ijc->cyx", between(down, down.cells), between(across, across.cells), grid
    )
    np.testing.assert_allclose(norm * found, dense(values, sxy), rtol=0.03)
