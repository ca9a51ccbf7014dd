import numpy as np
import pytest

from wsiseg.config import ContextConfig
from wsiseg.context import estimate_shares, join_weak, spread_places, weigh_context

PLAIN = ContextConfig(neighbours=0, sharpness=0)


def grid(rows, cols):
    return np.argwhere(np.ones((rows, cols), bool)).astype(float)


def pairs(places, reach):
    apart = np.abs(places[:, None] - places[None]).max(2)
    return np.argwhere(np.triu((apart <= reach) & (apart > 0)))


def logit(p):
    return np.log(p / (1 - np.asarray(p)))


@pytest.mark.parametrize("trained", [0.5, 0.3])
def test_shares_are_recovered_from_a_classifier_trained_on_others(trained):
    random = np.random.default_rng(0)
    truth = np.array([0.02, 0.2, 0.7])
    shows = random.random((20_000, 3)) < truth
    seen = random.normal(np.where(shows, 1, -1), 1)
    # What is seen is 1 or -1 with variance 1: the ratio of likelihoods is exp(2 seen).
    shown = 1 / (1 + np.exp(-(2 * seen + logit(trained))))
    np.testing.assert_allclose(estimate_shares(shown, trained), truth, atol=0.015)
    assert np.abs(shown.mean(0) - truth).max() > 0.05  # it is not the mean that tells


def test_shares_of_a_sure_classifier_are_its_counts():
    shown = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    np.testing.assert_allclose(estimate_shares(shown), [0.75, 0.25], atol=1e-4)
    assert estimate_shares(np.empty((0, 2))).tolist() == [0.5, 0.5]


def test_hysteresis_on_a_small_grid():
    values = np.array(
        [
            [0.9, 0.3, 0.1, 0.3],
            [0.1, 0.1, 0.3, 0.1],
            [0.3, 0.1, 0.1, 0.1],
        ]
    )
    passed = join_weak(values.reshape(-1, 1), pairs(grid(3, 4), 1), 0.2, 0.5)
    wanted = [[1, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]]  # joined over corners; the last is alone
    assert passed.reshape(3, 4).astype(int).tolist() == wanted


def test_classes_do_not_join_each_other():
    values = np.array([[0.9, 0.1], [0.3, 0.3]])
    passed = join_weak(values, pairs(grid(1, 2), 1), 0.2, 0.5)
    assert passed.tolist() == [[True, False], [True, False]]


def test_what_is_alike_everywhere_stays_so_and_what_is_alone_too():
    places = grid(5, 6)
    alike = np.full((30, 2), 0.37)
    np.testing.assert_array_equal(spread_places(alike, places, pairs(places, 1), 0.5), alike)
    values = np.random.default_rng(1).random((3, 2))
    far = np.array([[0.0, 0], [9, 0], [0, 9]])
    near = np.array([[0, 1]])[:0]
    np.testing.assert_array_equal(spread_places(values, far, near, 0.5), values)


def test_neighbours_count_by_their_distance():
    values = np.array([[1.0], [0], [0], [0]])
    places = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    found = spread_places(values, places, pairs(places, 1), 1.0)
    # Of the one diagonally: a half as much as beside, in a mean of 1/2 + 1/2 + 1/4.
    np.testing.assert_allclose(found[:, 0], [0.5, 0.2, 0.2, 0.1])


def test_without_neighbours_and_weights_it_is_the_threshold():
    logits = np.random.default_rng(2).normal(0, 2, (40, 3))
    config = PLAIN.model_copy(update={"low": 0.3, "high": 0.3})
    found = weigh_context(logits, grid(5, 8), config)
    np.testing.assert_array_equal(found.weights, logits >= logit(0.3))


def test_the_order_of_tiles_does_not_matter_nor_their_corner():
    random = np.random.default_rng(3)
    logits, places = random.normal(0, 2, (48, 4)), grid(6, 8) / 2  # overlapping tiles
    order = random.permutation(48)
    one = weigh_context(logits, places, ContextConfig(slide_prior=1.0))
    other = weigh_context(logits[order], places[order] + 100, ContextConfig(slide_prior=1.0))
    np.testing.assert_allclose(one.weights[order], other.weights, atol=1e-12)
    assert (one.weights.max(1)[one.weights.any(1)] == 1).all()


def test_a_lone_doubtful_tile_loses_its_class_and_one_beside_sure_ones_gets_it():
    logits = np.full((5, 5, 2), -4.0)
    logits[..., 0] = 3
    logits[0, 0, 1] = logit(0.3)  # by itself over 0.25
    logits[3:, 3:, 1] = 4
    logits[3, 3, 1] = logit(0.12)  # by itself under it
    around = ContextConfig(neighbours=0.5, low=0.15, high=0.3)
    found = weigh_context(logits.reshape(25, 2), grid(5, 5), around).weights
    passed = found.reshape(5, 5, 2)[..., 1] > 0
    assert passed[3, 3]
    assert not passed[0, 0]


def test_a_rare_class_is_doubted_under_the_slides_own_share():
    logits = np.full((100, 1), -3.0)
    logits[7] = 0.0
    plain, shifted = (
        weigh_context(logits, grid(10, 10), PLAIN.model_copy(update={"slide_prior": share}))
        for share in (0.0, 1.0)
    )
    assert plain.weights[7] == 1
    assert shifted.weights[7] == 0
    assert shifted.shares[0] < 0.05


def test_one_tile_and_none():
    config = ContextConfig()
    one = weigh_context(np.array([[2.0, -9]]), np.zeros((1, 2)), config)
    assert one.weights.tolist() == [[1, 0]]
    assert weigh_context(np.empty((0, 3)), np.empty((0, 2)), config).weights.shape == (0, 3)


def test_thresholds_in_the_wrong_order_are_refused():
    with pytest.raises(ValueError, match=r"low = 0.5 is above high = 0.2; lower it"):
        ContextConfig(low=0.5)
