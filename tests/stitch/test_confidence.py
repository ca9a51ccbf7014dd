"""Confidence is the model's own probability, calibrated where the checkpoint says how."""

import numpy as np
import pytest

from tests.stitch.test_stitch import PALETTE, PLAIN, REFINED, finish, make_store, whole
from wsiseg.annotations import BACKGROUND, UNSURE, Palette
from wsiseg.compute import SerialExecutor
from wsiseg.config import Config
from wsiseg.errors import ConfigError
from wsiseg.outline import outline_regions
from wsiseg.stitch import class_probabilities, stitch_labels


def stitch(store, config):
    stitch_labels(store.path, config, SerialExecutor())
    return whole(store)


def redo(store, palette, **settings):
    """The same CAMs under another palette, calibration or number of background channels."""
    every = slice(0, store.grid.rows), slice(0, store.grid.cols)
    cams, logits = store.read_cams(*every)
    store.create_cams(palette, 7, 7, **settings)
    n = store.grid.tiles_per_block
    for block in range(store.grid.n_blocks):
        row, col = divmod(block, store.grid.block_cols)
        part = (slice(row * n, (row + 1) * n), slice(col * n, (col + 1) * n))
        store.write_cams(block, cams[part], logits[part])
    return finish(store)


@pytest.mark.parametrize("config", [PLAIN, REFINED])
def test_confidence_is_the_probability_before_the_crf(tmp_path, config):
    config = config.model_copy(update={"stitch": config.stitch.model_copy(update={"smooth_um": 0})})
    store = make_store(tmp_path / "s.zarr")
    labels, confidence = stitch(store, config)
    p = class_probabilities(store, config.stitch, store.grid.box)
    shown = labels != BACKGROUND
    chosen = np.take_along_axis(p, np.where(shown, labels, 0)[None].astype(int), axis=0)[0]
    np.testing.assert_array_equal(confidence, np.where(shown, np.rint(chosen * 255), 0))
    if config is REFINED:
        assert (p[:-1].argmax(axis=0) != labels)[shown].any()  # the CRF did move borders


def test_what_no_class_is_probable_enough_for_is_unsure(tmp_path):
    store = make_store(tmp_path / "s.zarr")
    settings = {"refine": False, "smooth_um": 0, "min_confidence": 0.7}
    labels, confidence = stitch(store, Config.model_validate({"stitch": settings}))
    sure, _ = stitch(make_store(tmp_path / "t.zarr"), PLAIN.model_copy(
        update={"stitch": PLAIN.stitch.model_copy(update={"smooth_um": 0})}))  # fmt: skip
    unsure = labels == len(PALETTE)
    assert store.palette.names == (*PALETTE.names, UNSURE)
    assert 0 < unsure.sum() < (labels != BACKGROUND).sum()
    np.testing.assert_array_equal(labels == BACKGROUND, sure == BACKGROUND)
    assert confidence[unsure].max() < 0.7 * 255 <= confidence[labels < len(PALETTE)].min()
    np.testing.assert_array_equal(labels[labels < 4], sure[labels < 4])
    found = outline_regions(store.path, PLAIN, SerialExecutor())
    assert sum(r.area_px for r in found.regions if r.label == 4) == unsure.sum()


def test_probabilities_have_no_channel_of_doubt(tmp_path):
    store = make_store(tmp_path / "s.zarr")
    settings = {"refine": False, "min_confidence": 0.7, "probabilities": True}
    stitch(store, Config.model_validate({"stitch": settings}))
    assert store.has_probabilities
    assert len(store.read_probabilities(store.grid.box)) == len(PALETTE)


def test_a_model_that_has_a_class_of_that_name_is_refused(tmp_path):
    store = redo(make_store(tmp_path / "s.zarr"), Palette(
        (*PALETTE.names[:3], UNSURE), PALETTE.colors))  # fmt: skip
    with pytest.raises(ConfigError, match=r"min_confidence = 0\.5 .*set it to 0"):
        stitch(store, Config.model_validate({"stitch": {"min_confidence": 0.5}}))


def test_calibration_scales_and_shifts_what_is_compared(tmp_path):
    store = make_store(tmp_path / "s.zarr")
    config = Config.model_validate({"stitch": {"refine": False, "gate": "none"}})
    redo(store, PALETTE, calibration=[(1, 0)] * 4)
    same = class_probabilities(store, config.stitch, store.grid.box)
    before = class_probabilities(make_store(tmp_path / "t.zarr"), config.stitch, store.grid.box)
    np.testing.assert_array_equal(same, before)
    redo(store, PALETTE, calibration=[(0.5, 1), (0.5, 1), (0.5, 1), (0.5, -1)])
    softer = class_probabilities(store, config.stitch, store.grid.box)
    # The odds of two classes are the exponential of the difference of their logits.
    for other, shift in ((1, 0), (3, 2)):
        both = (before[[0, other]] > 1e-3).all(axis=0)
        odds, was = (p[0][both] / p[other][both] for p in (softer, before))
        np.testing.assert_allclose(odds, np.sqrt(was) * np.exp(shift), rtol=2e-3)


def test_kinds_of_background_compete_and_are_no_class(tmp_path):
    store = make_store(tmp_path / "s.zarr")
    config = Config.model_validate({"stitch": {"refine": False, "gate": "none"}})
    before = class_probabilities(store, config.stitch, store.grid.box)
    two = Palette(PALETTE.names[:2], PALETTE.colors[:2])
    redo(store, two, channels=4)
    after = class_probabilities(store, config.stitch, store.grid.box)
    assert after.shape[0] == 3
    np.testing.assert_array_equal(after[:2], before[:2])
    np.testing.assert_allclose(after[2], before[2:].sum(axis=0), atol=1e-6)
    gated = class_probabilities(store, PLAIN.stitch, store.grid.box)
    assert gated[2].max() > 0.99  # whatever is predicted, background may win
    labels, _ = stitch(store, PLAIN)
    assert set(np.unique(labels)) <= {0, 1, BACKGROUND}
    assert store.palette == two
