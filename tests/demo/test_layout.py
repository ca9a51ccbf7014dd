from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt, label, map_coordinates

from wsiseg.annotations import BACKGROUND
from wsiseg.demo.layout import (
    IMMUNE,
    NECROSIS,
    STROMA,
    TUMOR,
    Truth,
    _draw_labels,
    _ridge,
    plan_layout,
)
from wsiseg.errors import DataError, GeometryError
from wsiseg.geometry import Size


def plan(width: int, height: int, seed: int, tissue: bool = True) -> Truth:
    return plan_layout(Size(width, height), np.random.default_rng(seed), tissue).truth


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [(3072, 2560), (6000, 4500), (1024, 1024)])
def test_every_class_has_its_share(size: tuple[int, int], seed: int) -> None:
    labels = plan(*size, seed).labels
    shares = np.bincount(labels[labels != BACKGROUND], minlength=4) / labels.size
    assert len(shares) == 4
    assert shares.min() > 0.02
    assert 0.3 < (labels == BACKGROUND).mean() < 0.55


def test_rare_classes_have_the_share_that_is_asked_for() -> None:
    rng = np.random.default_rng(1)
    labels = plan_layout(Size(3072, 2560), rng, rare=0.03).truth.labels
    shares = np.bincount(labels[labels != BACKGROUND], minlength=4) / (labels != BACKGROUND).sum()
    assert 0.015 < shares[IMMUNE] < 0.04
    assert 0.015 < shares[NECROSIS] < 0.04
    for rare in (0, 0.31, float("nan")):
        with pytest.raises(GeometryError, match=r"rare is .*; it must be above 0 and at most 0\.3"):
            plan_layout(Size(512, 512), rng, rare=rare)


@pytest.mark.parametrize("seed", range(3))
def test_holes_and_thin_strands(seed: int) -> None:
    labels = plan(8000, 6000, seed).labels
    pieces, count = label(labels == BACKGROUND)
    outside = set(np.concatenate([pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]]).tolist())
    areas = np.bincount(pieces.ravel(), minlength=count + 1) * 0.25
    holes = [area for piece, area in enumerate(areas) if piece and piece not in outside]
    assert max(holes) > 10_000  # µm²: the smallest hole that tissue detection leaves open
    # Strands: stroma that a disc of 30 µm radius does not fit into, with tumour close by.
    stroma = labels[::4, ::4] == STROMA
    core = distance_transform_edt(stroma) * 2 > 30
    thin = stroma & (distance_transform_edt(~core) * 2 > 45)
    near_tumour = distance_transform_edt(labels[::4, ::4] != TUMOR) * 2 < 60
    assert (thin & near_tumour).sum() * 4 > 5_000  # µm²


def test_ridge_is_as_wide_as_asked() -> None:
    slope = np.tile(np.arange(-50, 50, dtype=np.float32) * 0.3, (20, 1))
    inside = _ridge(slope, np.full_like(slope, 20.0)) > 0
    assert np.abs(inside.sum(axis=1) * 4.0 - 40).max() <= 4


def test_labels_equal_interpolated_fields() -> None:
    fields = np.random.default_rng(0).standard_normal((5, 9, 11)).astype(np.float32)
    labels = np.zeros((50, 70), np.uint8)
    _draw_labels(fields, 8.0, labels)
    at = np.meshgrid((np.arange(50) + 0.5) / 8, (np.arange(70) + 0.5) / 8, indexing="ij")
    smooth = np.stack([map_coordinates(field, at, order=1) for field in fields])
    first = np.where((smooth > 0).any(axis=0), (smooth > 0).argmax(axis=0), 3)
    wanted = np.array([255, 3, 2, 1, 0], np.uint8)[first]
    unsure = np.abs(smooth).min(axis=0) < 1e-4
    assert unsure.mean() < 0.01
    assert (labels == wanted)[~unsure].all()


def test_blank_glass_and_raster_size() -> None:
    blank = plan(1025, 770, 0, tissue=False)
    assert blank.labels.shape == (385, 513)
    assert (blank.labels == BACKGROUND).all()


def test_too_small() -> None:
    with pytest.raises(GeometryError, match=r"255 x 900 px is too small .* at least 256 px"):
        plan(255, 900, 0)


def test_truth_comes_back(tmp_path: Path) -> None:
    truth = plan(512, 512, 5)
    again = Truth.load(truth.save(tmp_path / "t.npz"))
    np.testing.assert_array_equal(again.labels, truth.labels)
    assert (again.names, again.mpp) == (truth.names, 0.5)


@pytest.mark.parametrize("content", [None, b"", b"text", b"PK\x03\x04cut"])
def test_no_truth(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "t.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"t\.npz: is not the truth"):
        Truth.load(path)
