from __future__ import annotations

import numpy as np
import pytest
import torch

import wsiseg.model.crf.lattice as lattice_module
import wsiseg.model.crf.lattice_field as field
from tests.model.crf.cases import make_case
from wsiseg.config import CrfConfig
from wsiseg.model.crf import refine, refine_labels
from wsiseg.model.crf.blur import blur
from wsiseg.model.crf.lattice import Lattice, build_lattice, find_slot
from wsiseg.model.crf.numbers import number_points
from wsiseg.model.crf.order import link_neighbours, sort_keys
from wsiseg.model.crf.region import whole_region


def lattice_of(image: np.ndarray, most_points: int) -> Lattice | None:
    _, height, width = image.shape
    numbers = number_points(height, width, 10.0, 20.0)
    return build_lattice(image, whole_region(height, width).spans, numbers, most_points)


def image_of(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8)


def reference_simplices(image: np.ndarray, sxy: float, srgb: float) -> list[dict]:
    """For each pixel, strip order apart: {lattice point: barycentric weight}, as in the paper."""
    _, height, width = image.shape
    scale = np.sqrt(2 / 3) * 6 / np.sqrt(np.arange(1, 6) * np.arange(2, 7))
    out = []
    for y in range(height):
        for x in range(width):
            f = np.array([x / sxy, y / sxy, *(image[:, y, x] / srgb)]) * scale
            elevated = np.zeros(6)
            total = 0.0
            for i in range(5, 0, -1):
                elevated[i] = total - i * f[i - 1]
                total += f[i - 1]
            elevated[0] = total
            zero = 6 * np.floor(elevated / 6 + 0.5)
            rank = np.argsort(np.argsort(-(elevated - zero), kind="stable"))
            shift = int(zero.sum() / 6)
            rank = rank + shift
            zero = np.where(rank < 0, zero + 6, np.where(rank > 5, zero - 6, zero))
            rank = np.where(rank < 0, rank + 6, np.where(rank > 5, rank - 6, rank))
            barycentric = np.zeros(7)
            for i in range(6):
                v = (elevated[i] - zero[i]) / 6
                barycentric[5 - rank[i]] += v
                barycentric[6 - rank[i]] -= v
            barycentric[0] += 1 + barycentric[6]
            points = {}
            for k in range(6):
                point = zero + np.where(rank <= 5 - k, k, k - 6)
                points[tuple(point.astype(int))] = barycentric[k]
            out.append(points)
    return out


def reference_filter(pixels: list[dict]) -> np.ndarray:
    """`(N, N)`: what a value at one pixel becomes at another, points found by their coordinates."""
    names = {name: i for i, name in enumerate(sorted(set().union(*pixels)))}
    splat = np.zeros((len(names), len(pixels)))
    for pixel, points in enumerate(pixels):
        for name, weight in points.items():
            splat[names[name], pixel] = weight
    value = splat.copy()
    for axis in range(6):
        before = value.copy()
        for name, i in names.items():
            for way in (1, -1):
                other = tuple(c + way * (1 - 6 * (k == axis)) for k, c in enumerate(name))
                if other in names:
                    value[i] = value[i] + 0.5 * before[names[other]]
    return np.asarray(splat.T @ value)


def test_the_filter_is_the_one_of_the_paper(monkeypatch):
    image = image_of(8, 9) // 3
    pixels = reference_simplices(image, 10.0, 20.0)
    expected = reference_filter(pixels)
    # Without the norm, `weight` holds the plain barycentric weights.
    monkeypatch.setattr(
        lattice_module, "_fold_norm", lambda _, __, near: np.zeros(near.shape[1] + 1, np.float32)
    )
    lattice = lattice_of(image, 10**6)
    assert lattice.points == len(set().union(*pixels))
    lanes = len(pixels)
    value = np.zeros((lattice.points + 1, lanes), np.float32)
    for i in range(6):
        np.add.at(value, (lattice.corner[:, i], np.arange(lanes)), lattice.weight[:, i])
    flat = value.reshape(-1)
    blur(flat, np.zeros_like(flat), lattice.near, lattice.rows, lanes)
    found = np.einsum("pi,pil->pl", lattice.weight, flat.reshape(value.shape)[lattice.corner])
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 600), (300, 5), (64, 300)])
def test_every_point_is_used_and_every_neighbour_mutual(height, width):
    lattice = lattice_of(image_of(height, width), 10**7)
    assert np.array_equal(np.unique(lattice.corner), np.arange(lattice.points))
    for axis in range(6):
        one, two = lattice.near[axis].T
        known = np.flatnonzero(one < lattice.points)
        assert np.array_equal(two[one[known]], known)


@pytest.mark.parametrize("bits", [1, 12, 37])
def test_keys_are_sorted_and_neighbours_are_one_step_on(bits: int) -> None:
    keys = np.random.default_rng(bits).integers(2**bits, size=4000)
    keys = np.random.default_rng(0).permutation(np.unique(keys))
    ordered, order = sort_keys(keys.copy(), bits)
    assert np.array_equal(ordered, np.sort(keys))
    assert np.array_equal(keys[order], ordered)
    step = np.array([1, 3, -2, 5, -4, 2**25], np.int64)
    near = np.empty((6, len(keys), 2), np.int32)
    link_neighbours(ordered, step, near)
    at = {key: i for i, key in enumerate(ordered.tolist())}
    for axis, one in enumerate(step.tolist()):
        for way, shift in enumerate((one, -one)):
            expected = [at.get(key + shift, len(keys)) for key in at]
            assert near[axis, :, way].tolist() == expected


def test_a_crowded_table_grows_and_finds_every_point() -> None:
    image = image_of(40, 700, seed=3)
    lattice = lattice_of(image, 10**7)
    held, point = lattice.table
    assert lattice.points > 5 / 8 * 2**16  # the table that the pixels alone would ask for
    taken = held >= 0
    assert np.array_equal(np.sort(point[taken]), np.arange(lattice.points))
    assert np.array_equal(np.argsort(held[taken]), np.argsort(point[taken]))
    for key in held[taken][::997]:
        assert held[find_slot(key, held, number_points(40, 700, 10.0, 20.0).bits)] == key


def test_blur_spreads_to_neighbours_and_keeps_the_empty_point_empty():
    lattice = lattice_of(image_of(20, 20) // 8, 10**6)
    value = np.zeros((lattice.points + 1) * 16, np.float32)
    value[: lattice.points * 16] = np.random.default_rng(0).random(lattice.points * 16)
    expected = value.reshape(-1, 16).copy()
    for axis in range(6):
        sides = expected[lattice.near[axis, :, 0]] + expected[lattice.near[axis, :, 1]]
        expected[:-1] += 0.5 * sides
    blur(value, np.zeros_like(value), lattice.near, lattice.rows, 16)
    np.testing.assert_allclose(value.reshape(-1, 16), expected, rtol=1e-5)
    assert not value[-16:].any()


def test_the_row_sums_of_the_normalised_kernel_are_near_one():
    _, image = make_case(64, 64, 3, 1)
    lattice = lattice_of(image[0].numpy(), 10**6)
    value = np.zeros((lattice.points + 1) * 8, np.float32)
    for i in range(6):
        np.add.at(value, lattice.corner[:, i] * 8, lattice.weight[:, i])
    blur(value, np.zeros_like(value), lattice.near, lattice.rows, 8)
    row = (lattice.weight * value[lattice.corner * 8]).sum(1)
    assert row.mean() == pytest.approx(1, abs=0.05)


def test_a_lattice_over_the_bound_is_refused_early():
    image = image_of(64, 600)
    assert lattice_of(image, 1000) is None
    assert lattice_of(image, 10**6) is not None


def test_halves_agree_with_the_whole(monkeypatch):
    probabilities, image = make_case(200, 264, 4, 2, cell=20)
    config = CrfConfig(backend="numba")
    whole = refine(probabilities, image, config)
    most = lattice_of(image[0].numpy(), 10**7).points - 1
    monkeypatch.setattr(field, "_most_points", lambda pixels, classes: most)
    halves = refine(probabilities, image, config)
    assert not torch.equal(halves, whole)
    assert float((halves.argmax(1) != whole.argmax(1)).float().mean()) <= 0.002
    assert torch.equal(refine_labels(probabilities, image, config), halves.argmax(1))


def test_the_result_is_the_same_on_any_number_of_threads():
    cases = [make_case(72, 300, 9, seed) for seed in range(4)]
    probabilities = torch.cat([case[0] for case in cases])
    image = torch.cat([case[1] for case in cases])
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            results.append(refine(probabilities, image, CrfConfig(backend="numba")))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_a_mirrored_image_gives_the_mirrored_result():
    """Wider than a strip, so that the strips' order changes, too."""
    probabilities, image = make_case(32, 520, 3, 4)
    config = CrfConfig(backend="numba")
    q = refine(probabilities, image, config)
    mirrored = refine(probabilities.flip(3), image.flip(3), config).flip(3)
    # Mirrored, the pixels lie elsewhere in the lattice's cells: the same up to its accuracy.
    assert float((mirrored.argmax(1) != q.argmax(1)).float().mean()) <= 0.02
