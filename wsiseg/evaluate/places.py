"""Which classes patches may show by those around them on their slide: the protocol `slide`."""

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
    """Refuse patches of which none has neighbours that anybody knows of.

    Raises
    ------
    DataError
        If no two patches have different places on one slide.
    """
    if find_pitch(patches.places) is None:
        raise DataError(
            f"{patches.folder}: protocol slide needs to know where patches lie, and no two names "
            f"of one slide tell different places, as SLIDE_x448_y224.png does; leave it out"
        )


def find_pitch(places: Iterable[Place | None]) -> float | None:
    """The smallest distance between two patches of a slide, along either axis; None without any."""
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
    """``(N, K)`` weights of the classes in each patch, of class logits ``(N, K)``, slide by slide.

    A patch of which no place is known stands alone.
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
    """Numbers and places of the patches of each slide."""
    slides: dict[str, list[tuple[int, Place]]] = defaultdict(list)
    for number, place in enumerate(places):
        if place is not None:
            slides[place.slide].append((number, place))
    return slides
