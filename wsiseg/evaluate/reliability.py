"""Whether confidence can be trusted: of labels with 80 % confidence, are 80 % right?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = ["Reliability", "draw_reliability", "measure_reliability"]

BINS = 15
_SIDE, _EDGE = 360, 56
_INK, _PALE, _BAR, _GAP = (32, 36, 42), (170, 176, 184), (70, 120, 180), (214, 90, 70)


@dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy, in bins of equal width."""

    counts: NDArray[np.int64]
    """``(bins,)``."""
    confidence: NDArray[np.float64]
    """``(bins,)`` mean confidence; NaN in an empty bin."""
    accuracy: NDArray[np.float64]
    """``(bins,)`` share of right labels; NaN in an empty bin."""

    @property
    def ece(self) -> float:
        """Expected calibration error: the mean gap, bins weighted by their counts."""
        gaps = np.abs(self.confidence - self.accuracy)
        total = self.counts.sum()
        return float(np.nansum(gaps * self.counts) / total) if total else float("nan")

    def __add__(self, other: Reliability) -> Reliability:
        """Pool both tables."""
        counts = self.counts + other.counts
        parts = [
            np.nan_to_num(getattr(self, name)) * self.counts
            + np.nan_to_num(getattr(other, name)) * other.counts
            for name in ("confidence", "accuracy")
        ]
        with np.errstate(invalid="ignore"):
            return Reliability(counts, *(part / counts for part in parts))


def measure_reliability(
    confidence: NDArray[np.floating], right: NDArray[np.bool_], bins: int = BINS
) -> Reliability:
    """Compute the table of Naeini et al. (2015) and Guo et al. (2017).

    Parameters
    ----------
    confidence
        ``(N,)`` in [0, 1].
    right
        ``(N,)``: whether each label was right.
    """
    index = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    counts = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(index, confidence.astype(np.float64), bins) / counts
        share = np.bincount(index, right.astype(np.float64), bins) / counts
    return Reliability(counts, mean, share)


def draw_reliability(reliability: Reliability, title: str) -> Image.Image:
    """Draw the diagram: a bar per bin, as high as its accuracy; on the diagonal, both agree."""
    page = Image.new("RGB", (_SIDE + 2 * _EDGE, _SIDE + 2 * _EDGE), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(14)
    bins = len(reliability.counts)

    def at(x: float, y: float) -> tuple[float, float]:
        return _EDGE + x * _SIDE, _EDGE + (1 - y) * _SIDE

    for number in np.flatnonzero(reliability.counts):
        left, right = (number + 0.08) / bins, (number + 0.92) / bins
        height, confidence = reliability.accuracy[number], reliability.confidence[number]
        pen.rectangle([at(left, height), at(right, 0)], fill=_BAR)
        low, high = sorted((height, confidence))
        pen.rectangle([at(left, high), at(right, low)], outline=_GAP, width=2)
    pen.line([at(0, 0), at(1, 1)], fill=_PALE, width=2)
    pen.rectangle([at(0, 1), at(1, 0)], outline=_INK)
    for tick in (0, 0.5, 1):
        pen.text(at(tick, -0.02), f"{tick:g}", fill=_INK, font=font, anchor="ma")
        pen.text(at(-0.02, tick), f"{tick:g}", fill=_INK, font=font, anchor="rm")
    pen.text(
        (_EDGE + _SIDE / 2, _SIDE + 2 * _EDGE - 8), "confidence", fill=_INK, font=font, anchor="ms"
    )
    heading = f"{title}   ECE {reliability.ece:.3f}"
    pen.text((_EDGE, 18), heading, fill=_INK, font=font)
    return page
