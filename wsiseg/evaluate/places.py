"""The protocol `slide`: gate a patch's classes by the patches around it on its slide."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from wsiseg.cases import Place
from wsiseg.config import EvaluateConfig
from wsiseg.context import weigh_context
from wsiseg.errors import DataError
from wsiseg.evaluate.patches import MaskedPatches

__all__ = ["check_places", "find_pitch", "weigh_by_slide"]


def check_places(patches: MaskedPatches) -> None:
    """Refuse patches whose positions on their slides are unknown.

    Raises
    ------
    DataError
        If no two patches have different positions on one slide.
    """
    if find_pitch(patches.places) is None:
        raise DataError(
            f"{patches.folder}: protocol slide needs the positions of patches, and no two names "
            f"of one slide give different ones, as SLIDE_x448_y224.png does; leave it out"
        )


def find_pitch(places: Iterable[Place | None]) -> float | None:
    """Return the smallest distance of two patches of a slide, along either axis; None if none."""
    least = np.inf
    for at in _group(places).values():
        points = np.unique([(one.across, one.down) for _, one in at], axis=0)
        if len(points) > 1:
            nearest = np.asarray(KDTree(points).query(points, k=2, p=np.inf)[0])
            least = min(least, nearest[:, 1].min())
    return float(least) if np.isfinite(least) else None


def weigh_by_slide(
    logits: NDArray[np.floating], patches: MaskedPatches, config: EvaluateConfig
) -> NDArray[np.float32]:
    """Weigh classes slide by slide: ``(N, K)`` class logits to ``(N, K)`` weights of each patch.

    A patch without a known position is gated by itself.
    """
    weights = np.zeros(logits.shape, np.float32)
    pitch = config.pitch or find_pitch(patches.places) or 1.0
    for at in _group(patches.places).values():
        numbers = [number for number, _ in at]
        points = np.array([(one.across, one.down) for _, one in at]) / pitch
        weights[numbers] = weigh_context(logits[numbers], points, config.context).weights
    for number, place in enumerate(patches.places):
        if place is None:
            alone = weigh_context(logits[[number]], np.zeros((1, 2)), config.context)
            weights[number] = alone.weights[0]
    return weights


def _group(places: Iterable[Place | None]) -> dict[str, list[tuple[int, Place]]]:
    """Group the indices and places of patches by slide."""
    slides: dict[str, list[tuple[int, Place]]] = defaultdict(list)
    for number, place in enumerate(places):
        if place is not None:
            slides[place.slide].append((number, place))
    return slides
