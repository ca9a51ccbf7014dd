"""Which classes a tile may show, by its neighbours and its slide instead of by itself alone.

A slide that nobody labelled has no true image labels, by which the paper's tables let classes
through (the oracle). Here a class enters a tile where its probability, averaged with those around
it, is high, or fairly high and joined to such a tile (hysteresis, as in Canny 1986); how probable
it is there weighs it against the others, as a prior does.
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

REACH = 1.5
"""Tile sides within which others are neighbours: on a grid without overlap, the eight around."""
_ROUNDS, _CLOSE = 500, 1e-9
_LEAST = 1e-6
"""No probability is nearer to 0 or 1: nothing that was seen so seldom is certain."""
_SAME = 1e-9

Floats = NDArray[np.float64]


class SlideContext(NamedTuple):
    """What the tiles of one slide may show."""

    weights: Floats
    """``(N, K)`` in [0, 1]: 0 where a class is not let through; of those that are in a tile, the
    most probable has 1."""
    shares: Floats
    """``(K,)`` share of the tiles that show each class, as `estimate_shares` has it."""


def weigh_context(
    logits: NDArray[np.floating], places: Floats, config: ContextConfig
) -> SlideContext:
    """Weigh the classes of every tile of one slide.

    Parameters
    ----------
    logits
        ``(N, K)`` class logits: a class shows where their sigmoid is high.
    places
        ``(N, 2)`` of the tiles, in tile sides.

    Returns
    -------
    The same for the same tiles, in whatever order they were made.
    """
    shown = _sigmoid(logits.astype(np.float64))
    shares = estimate_shares(shown)
    shown = _shift(shown, shares, config.slide_prior)
    near = _find_pairs(places, REACH)
    smooth = spread_places(shown, places, near, config.neighbours)
    passed = join_weak(smooth, _beside(places, near), config.low, config.high)
    weights = np.where(passed, smooth**config.sharpness, 0)
    most = weights.max(axis=1, keepdims=True, initial=0)
    return SlideContext(
        np.divide(weights, most, where=most > 0, out=np.zeros_like(weights)), shares
    )


def estimate_shares(shown: Floats, trained: float = 0.5) -> Floats:
    """``(K,)`` share of places that show each class, by expectation-maximisation.

    Saerens, Latinne and Decaestecker (2002), "Adjusting the outputs of a classifier to new a priori
    probabilities", for each class against its absence, as several show in one place: the share
    that makes the outputs most probable, if the model was trained on a share of `trained`.

    Parameters
    ----------
    shown
        ``(N, K)`` probabilities that a class shows.
    """
    if not len(shown):
        return np.full(shown.shape[1], trained)
    known = shown.clip(_LEAST, 1 - _LEAST)
    yes, no = known / trained, (1 - known) / (1 - trained)
    shares = known.mean(axis=0)
    for _ in range(_ROUNDS):
        given = shares * yes
        found = (given / (given + (1 - shares) * no)).mean(axis=0).clip(_LEAST, 1 - _LEAST)
        moved, shares = np.abs(found - shares).max(), found
        if moved < _CLOSE:
            break
    return np.asarray(shares)


def _shift(shown: Floats, shares: Floats, strength: float) -> Floats:
    """Probabilities under the slide's own shares; `strength` 0 leaves them as they are."""
    if not strength:
        return shown
    known = shown.clip(_LEAST, 1 - _LEAST)
    return _sigmoid(np.log(known / (1 - known)) + strength * np.log(shares / (1 - shares)))


def spread_places(values: Floats, places: Floats, near: NDArray[np.intp], weight: float) -> Floats:
    """Values ``(N, K)``, each averaged with the mean of its neighbours, which counts `weight`.

    A neighbour at distance d, in tile sides, counts ``2^(-d^2)`` in that mean. What has none stays
    as it is, and so do values that are alike everywhere.
    """
    count = len(values)
    if not weight or not len(near):
        return values
    apart = ((places[near[:, 0]] - places[near[:, 1]]) ** 2).sum(axis=1)
    near, mass = np.concatenate([near, near[:, ::-1]]), np.tile(2.0**-apart, 2)
    around: csr_array = coo_array((mass, (near[:, 0], near[:, 1])), (count, count)).tocsr()
    around.sort_indices()  # so that sums are taken in one order
    total = around @ np.ones((count, 1))
    mean = np.divide(around @ values, total, where=total > 0, out=values.copy())
    return np.asarray(values + weight / (1 + weight) * (mean - values))


def join_weak(
    values: Floats, beside: NDArray[np.intp], low: float, high: float
) -> NDArray[np.bool_]:
    """Where values ``(N, K)`` reach `high`, or reach `low` and are joined to such a place.

    `beside` ``(M, 2)`` are the pairs of places that join, class by class, through places that reach
    `low` all.
    """
    weak, strong = values >= low, values >= high
    if low >= high:
        return strong
    passed = np.zeros_like(weak)
    for k in range(values.shape[1]):
        joined = beside[weak[beside[:, 0], k] & weak[beside[:, 1], k]]
        links = coo_array(
            (np.ones(len(joined), bool), (joined[:, 0], joined[:, 1])), (len(values),) * 2
        )
        _, group = connected_components(links, directed=False)
        passed[:, k] = weak[:, k] & np.isin(group, group[strong[:, k]])
    return passed


def _find_pairs(places: Floats, reach: float) -> NDArray[np.intp]:
    """``(M, 2)`` pairs of places at most `reach` apart, none at the very same place; in order."""
    if len(places) < 2:
        return np.empty((0, 2), np.intp)
    pairs = KDTree(places).query_pairs(reach + _SAME, output_type="ndarray")
    apart = np.abs(places[pairs[:, 0]] - places[pairs[:, 1]]).max(axis=1)
    pairs = pairs[apart > _SAME]
    return np.asarray(pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))])


def _beside(places: Floats, near: NDArray[np.intp]) -> NDArray[np.intp]:
    """Those pairs whose tiles touch, if only at a corner."""
    apart = np.abs(places[near[:, 0]] - places[near[:, 1]]).max(axis=1, initial=0)
    return np.asarray(near[apart <= 1 + _SAME])


def _sigmoid(values: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * values)))
