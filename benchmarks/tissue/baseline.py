"""A baseline of stain statistics and local binary patterns, with the best classifier per class."""

from __future__ import annotations

import numpy as np
from scores import average_precision
from skimage.color import rgb2hed
from skimage.feature import local_binary_pattern
from sklearn.base import clone
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

INNER = 3


def describe(pixels: np.ndarray) -> np.ndarray:
    """Return features ``(N, D)``: moments and quantiles of stains and colours, LBP histograms."""
    return np.stack([_describe(image) for image in pixels])


def _describe(image: np.ndarray) -> np.ndarray:
    half = image.reshape(112, 2, 112, 2, 3).mean((1, 3)).astype(np.uint8)
    hed = rgb2hed(half)
    planes = np.concatenate([hed, half / 255], axis=2).reshape(-1, 6)
    facts = [planes.mean(0), planes.std(0), *np.quantile(planes, (0.05, 0.25, 0.5, 0.75, 0.95), 0)]
    for plane in (hed[..., 0], hed[..., 1]):
        levels = np.clip((plane - plane.min()) / (np.ptp(plane) + 1e-9) * 255, 0, 255)
        for radius in (1, 2, 4):
            codes = local_binary_pattern(levels.astype(np.uint8), 8, radius, "uniform")
            facts.append(np.bincount(codes.astype(int).ravel(), minlength=10) / codes.size)
    return np.concatenate(facts)


def candidates() -> list[object]:
    """Return classifiers and settings, from which each class takes the best."""
    regressions = [
        make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=300, class_weight=w))
        for c in (0.003, 0.03) for w in (None, "balanced")
    ]  # fmt: skip
    forest = ExtraTreesClassifier(150, min_samples_leaf=3, max_features=0.2, random_state=0)
    return [*regressions, forest]


def fit_and_ask(
    known: np.ndarray, labels: np.ndarray, slides: np.ndarray, asked: np.ndarray
) -> np.ndarray:
    """Predict probabilities ``(M, K)``; settings are chosen within the known tiles, by slide."""
    columns = []
    for k in range(labels.shape[1]):
        truth, best = labels[:, k].astype(int), (-1.0, None)
        for model in candidates():
            inner = np.full(len(truth), truth.mean())
            for learned, unseen in GroupKFold(INNER).split(known, truth, slides):
                inner[unseen] = fit_one(model, known[learned], truth[learned], known[unseen])
            best = max(best, (average_precision(truth, inner), model), key=lambda b: b[0])
        columns.append(fit_one(best[1], known, truth, asked))
    return np.stack(columns, 1)


def fit_one(model: object, known: np.ndarray, truth: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Predict probabilities ``(M,)`` of one class; constant if all or no known tiles show it."""
    if truth.min() == truth.max():
        return np.full(len(asked), float(truth[0]))
    return clone(model).fit(known, truth).predict_proba(asked)[:, 1]
