"""Decide which classes a tile may show from its neighbours and its slide, not from it alone.

The paper's tables let classes through by true image labels (the oracle), which a new slide does not
have. Here a class is let through in a tile where its probability, averaged with the neighbours', is
high, or fairly high and connected to such a tile (hysteresis, as in Canny 1986). That probability
then weighs the class against the others, as a prior does.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from wsiseg.config import ContextConfig

__all__ = ["SlideContext", "estimate_shares", "join_weak", "spread_places", "weigh_context"]

_REACH = 1.5
"""Largest distance of neighbours in tile sides: without overlap, the eight tiles around one."""
_MAX_ITERATIONS, _CONVERGED = 500, 1e-9
_MIN_PROBABILITY = 1e-6
"""Probabilities keep this distance from 0 and 1: a finite sample makes nothing certain."""
_SAME = 1e-9  # tile sides within which positions are equal

Floats = NDArray[np.float64]


class SlideContext(NamedTuple):
    """The classes that the tiles of one slide may show."""

    weights: Floats
    """``(N, K)`` in [0, 1]: 0 where a class is not let through; 1 for the most probable class of
    those let through in a tile."""
    shares: Floats
    """``(K,)`` share of the tiles that show each class, from `estimate_shares`."""


def weigh_context(
    logits: NDArray[np.floating], places: Floats, config: ContextConfig
) -> SlideContext:
    """Weigh the classes of every tile of one slide.

    Parameters
    ----------
    logits
        ``(N, K)`` class logits; their sigmoid is the probability that a class shows.
    places
        ``(N, 2)`` positions of the tiles, in tile sides.

    Returns
    -------
    The same values for the same tiles, whatever the order in which they were predicted.
    """
    probabilities = _sigmoid(logits.astype(np.float64))
    shares = estimate_shares(probabilities)
    probabilities = _shift(probabilities, shares, config.slide_prior)
    pairs = _find_pairs(places, _REACH)
    smooth = spread_places(probabilities, places, pairs, config.neighbours)
    passed = join_weak(smooth, _select_touching(places, pairs), config.low, config.high)
    weights = np.where(passed, smooth**config.sharpness, 0)
    largest = weights.max(axis=1, keepdims=True, initial=0)
    return SlideContext(
        np.divide(weights, largest, where=largest > 0, out=np.zeros_like(weights)), shares
    )


def estimate_shares(probabilities: Floats, trained: float = 0.5) -> Floats:
    """Estimate the share of places that show each class, ``(K,)``, by expectation-maximisation.

    Saerens, Latinne and Decaestecker (2002), "Adjusting the outputs of a classifier to new a priori
    probabilities", for each class against its absence, as one place may show several: the share
    that makes the outputs most probable for a model that was trained on a share of `trained`.

    Parameters
    ----------
    probabilities
        ``(N, K)`` probabilities that a class shows.
    """
    if not len(probabilities):
        return np.full(probabilities.shape[1], trained)
    probabilities = _clip(probabilities)
    present, absent = probabilities / trained, (1 - probabilities) / (1 - trained)
    shares = probabilities.mean(axis=0)
    for _ in range(_MAX_ITERATIONS):
        joint = shares * present
        updated = _clip((joint / (joint + (1 - shares) * absent)).mean(axis=0))
        change, shares = np.abs(updated - shares).max(), updated
        if change < _CONVERGED:
            break
    return np.asarray(shares)


def _shift(probabilities: Floats, shares: Floats, strength: float) -> Floats:
    """Adjust probabilities to the slide's own shares; `strength` 0 leaves them unchanged."""
    if not strength:
        return probabilities
    clipped = _clip(probabilities)
    return _sigmoid(np.log(clipped / (1 - clipped)) + strength * np.log(shares / (1 - shares)))


def _clip(probabilities: Floats) -> Floats:
    return probabilities.clip(_MIN_PROBABILITY, 1 - _MIN_PROBABILITY)


def spread_places(values: Floats, places: Floats, pairs: NDArray[np.intp], weight: float) -> Floats:
    """Average values ``(N, K)`` with the mean of their neighbours, which has weight `weight`.

    In that mean, a neighbour at distance d, in tile sides, has weight ``2^(-d^2)``. Values without
    neighbours do not change, nor do values that are equal everywhere.
    """
    count = len(values)
    if not weight or not len(pairs):
        return values
    squared = ((places[pairs[:, 0]] - places[pairs[:, 1]]) ** 2).sum(axis=1)
    pairs, weights = np.concatenate([pairs, pairs[:, ::-1]]), np.tile(2.0**-squared, 2)
    matrix: csr_array = coo_array((weights, (pairs[:, 0], pairs[:, 1])), (count, count)).tocsr()
    matrix.sort_indices()  # fixes the order of the sums
    total = matrix @ np.ones((count, 1))
    mean = np.divide(matrix @ values, total, where=total > 0, out=values.copy())
    return np.asarray(values + weight / (1 + weight) * (mean - values))


def join_weak(
    values: Floats, touching: NDArray[np.intp], low: float, high: float
) -> NDArray[np.bool_]:
    """Return where values ``(N, K)`` reach `high`, or reach `low` and are connected to such places.

    `touching` ``(M, 2)`` holds the pairs of places that are connected where both reach `low`, for
    each class separately.
    """
    weak, strong = values >= low, values >= high
    if low >= high:
        return strong
    passed = np.zeros_like(weak)
    for k in range(values.shape[1]):
        links = touching[weak[touching[:, 0], k] & weak[touching[:, 1], k]]
        graph = coo_array(
            (np.ones(len(links), bool), (links[:, 0], links[:, 1])), (len(values),) * 2
        )
        _, group = connected_components(graph, directed=False)
        passed[:, k] = weak[:, k] & np.isin(group, group[strong[:, k]])
    return passed


def _find_pairs(places: Floats, reach: float) -> NDArray[np.intp]:
    """Find pairs ``(M, 2)`` of distinct places at most `reach` apart, sorted."""
    if len(places) < 2:
        return np.empty((0, 2), np.intp)
    pairs = KDTree(places).query_pairs(reach + _SAME, output_type="ndarray")
    distances = np.abs(places[pairs[:, 0]] - places[pairs[:, 1]]).max(axis=1)
    pairs = pairs[distances > _SAME]
    return np.asarray(pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))])


def _select_touching(places: Floats, pairs: NDArray[np.intp]) -> NDArray[np.intp]:
    """Select the pairs whose tiles touch, if only at a corner."""
    distances = np.abs(places[pairs[:, 0]] - places[pairs[:, 1]]).max(axis=1, initial=0)
    return np.asarray(pairs[distances <= 1 + _SAME])


def _sigmoid(values: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * values)))
