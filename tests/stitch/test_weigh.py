import numpy as np
import pytest

from tests.stitch.test_stitch import PLAIN, make_store
from wsiseg.config import Config
from wsiseg.geometry import Box
from wsiseg.stitch import _place, class_probabilities
from wsiseg.stitch.blend import blend_cams
from wsiseg.stitch.weigh import _exp, pick_confidence, pick_labels, weigh_labels
from wsiseg.tissue import sample_tissue


def weigh_slowly(store, config, box):
    """The formula on whole arrays in float64, all the slide's tiles at hand."""
    cams, logits = store.read_cams(slice(0, store.grid.rows), slice(0, store.grid.cols))
    known = np.isfinite(logits[..., :1])
    allowed = 1 / (1 + np.exp(-logits)) >= config.gate_threshold
    gates = np.where(known, allowed | (config.gate == "none"), np.nan).astype(np.float32)
    gates = np.concatenate([gates, gates.max(axis=-1, keepdims=True)], axis=-1)
    field, reached = blend_cams(store.grid, box, (0, 0), cams.astype(np.float32))
    gate, _ = blend_cams(store.grid, box, (0, 0), gates[..., None, None])
    weight = gate[:-1] * np.exp(field.astype(float))
    total = weight.sum(axis=0)
    tissue = reached & sample_tissue(store, box) & (total > 0)
    classes = gate[-1] * weight / np.where(total > 0, total, 1)
    return np.where(tissue, np.concatenate([classes, 1 - gate[-1:]]), [[[0]]] * 4 + [[[1]]])


@pytest.mark.parametrize("stride", [224, 112, 56])
@pytest.mark.parametrize("gate", ["predicted", "none"])
def test_rows_in_cache_equal_whole_arrays(tmp_path, stride, gate):
    store = make_store(tmp_path / "s.zarr", 448, stride, size=(700, 500))
    config = Config.model_validate({"stitch": {"gate": gate}}).stitch
    box = Box(100, 80, 333, 420)
    found = class_probabilities(store, config, box)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, weigh_slowly(store, config, box), atol=2e-5)


def test_a_box_equals_the_crop_of_the_whole_bit_by_bit(tmp_path):
    store = make_store(tmp_path / "s.zarr", 448, 112, size=(700, 500))
    whole = class_probabilities(store, PLAIN.stitch, store.grid.box)
    box = Box(130, 101, 200, 317)
    part = class_probabilities(store, PLAIN.stitch, box)
    np.testing.assert_array_equal(part, whole[(slice(None), *box.slices())])


def test_exp_is_exp():
    x = -np.concatenate([np.linspace(0, 80, 5001), np.logspace(-9, 1, 500)]).astype(np.float32)
    got = x.copy()
    _exp(got, np.empty(x.size, np.int32))
    np.testing.assert_allclose(got, np.exp(x.astype(float)), rtol=3e-7)


def test_winner_shares_and_confidence_are_numpys():
    p = np.random.default_rng(0).integers(0, 6, (5, 40, 300)).astype(np.float32) / 5
    possible = np.random.default_rng(1).random((40, 300)) < 0.8
    winner, shares, _ = pick_labels(p, possible)
    np.testing.assert_array_equal(winner, np.where(possible, p.argmax(axis=0), 4))
    np.testing.assert_array_equal(shares, np.rint(p[:4] * 255) * possible)
    chosen = np.take_along_axis(p, winner[None].astype(int), axis=0)[0]
    background = winner == 4
    expected = np.where(background, 0, np.rint(chosen * 255))
    labels = np.where(background, np.uint8(255), winner)
    np.testing.assert_array_equal(pick_confidence(shares, labels), expected)


def test_the_confidence_of_unsure_is_the_best_share():
    shares = np.random.default_rng(0).integers(0, 255, (3, 8, 9)).astype(np.uint8)
    unsure = np.full((8, 9), 3, np.uint8)
    np.testing.assert_array_equal(pick_confidence(shares, unsure), shares.max(axis=0))


@pytest.mark.parametrize("stride", [224, 112])
def test_weighing_and_picking_at_once_is_one_after_the_other(tmp_path, stride):
    store = make_store(tmp_path / "s.zarr", 448, stride, size=(700, 900))
    box = Box(30, 100, 800, 500)
    placed, tissue = _place(store, PLAIN.stitch, box), sample_tissue(store, box)
    probabilities = class_probabilities(store, PLAIN.stitch, box)
    expected = pick_labels(probabilities, probabilities[-1] < 1)
    for one, other in zip(weigh_labels(*placed, tissue, 4), expected, strict=True):
        np.testing.assert_array_equal(one, other)
