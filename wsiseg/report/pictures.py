"""The pictures and figures of a slide's page in the report, as small files.

All come from the coarse levels of the store. ``facts.json`` describes them, and contains nothing
that changes from run to run, so that the same map gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsiseg.annotations import BACKGROUND, Annotations, Palette, Region
from wsiseg.atomic import open_atomic, write_picture
from wsiseg.errors import StoreError
from wsiseg.geometry import Box
from wsiseg.report.colors import choose_safe_colors, scale_colors, to_hex
from wsiseg.report.overlay import choose_factor, sample_level, shrink_image, shrink_labels
from wsiseg.report.scores import read_scores
from wsiseg.shrink import shrink_mean
from wsiseg.store import SlideStore
from wsiseg.tissue import sample_mask

__all__ = ["BINS", "FACTS", "write_pictures"]

FACTS = "facts.json"
BINS = 20
"""Bins of the histogram of confidence, each 1/20 wide."""
_LONGEST = 1200  # pixels of the page's large picture, at most
_SHRINK = 4  # the thumbnail, relative to that
_PLACES = 6  # regions listed for review
_PLACE_MM2 = 0.01  # smaller regions are listed only if there are no others
_SCREEN = 1000  # pixels that a region should fill in the viewer
_INK = (20, 20, 20)

_Rgb = tuple[int, int, int]


def write_pictures(
    store: SlideStore, folder: Path, annotations: Annotations, made: Mapping[str, Any]
) -> None:
    """Write the pictures of a stitched slide and the facts for its page into `folder`.

    `made` is plain JSON about what made the map: version, settings, model.
    """
    factor = choose_factor(store, _LONGEST)
    image, labels = shrink_image(store, factor), shrink_labels(store, factor)
    confidence = sample_level(store, store.read_confidence, factor)
    kind, scores = read_scores(store, factor)
    palette = store.palette
    folder.mkdir(parents=True, exist_ok=True)
    _save_photo(folder / "slide.jpg", image)
    _save_photo(folder / "thumbnail.jpg", shrink_mean(image, _SHRINK))
    for name, colors in (("map", palette.colors), ("safe", choose_safe_colors(palette.names))):
        _save_labels(folder / f"{name}.png", labels, colors)
        small = labels[_SHRINK // 2 :: _SHRINK, _SHRINK // 2 :: _SHRINK]
        _save_labels(folder / f"{name}_thumbnail.png", small if small.size else labels, colors)
    _save_scores(folder / "confidence.png", np.where(labels == BACKGROUND, 0, confidence))
    for number, score in enumerate(scores):
        _save_scores(folder / f"score_{number}.png", score)
    outline = _draw_tissue(store, factor, labels.shape)
    if outline is not None:
        _save_labels(folder / "tissue.png", outline, [_INK])
    facts = {
        **made,
        "slide": {k: v for k, v in store.slide.items() if k not in ("path", "notes")},
        "raster": {"mpp": store.mpp, "width": store.grid.width, "height": store.grid.height},
        "pixels": [image.shape[1], image.shape[0]],
        "classes": _describe_classes(palette),
        "tissue": outline is not None,
        "scores": kind,
        "score_classes": list(palette.names[: len(scores)]),
        "histogram": _count(labels, confidence, len(palette), (store.mpp * factor) ** 2 / 1e6),
        "steps": {step: _digest(store, step) for step in ("tile", "predict", "stitch")},
        "whole": _place(0, 0, store.grid.width, store.grid.height, store.mpp),
        "places": _find_places(annotations),
    }
    with open_atomic(folder / FACTS) as file:
        file.write(json.dumps(facts, indent=1, sort_keys=True).encode())


def _save_photo(path: Path, pixels: NDArray[np.uint8]) -> None:
    write_picture(Image.fromarray(pixels), path, "JPEG", quality=82)


def _save_labels(path: Path, labels: NDArray[np.uint8], colors: Any) -> None:
    """Save labels as a palette PNG, transparent where there is no label."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(colors)] = colors
    _save_indexed(path, labels, table, BACKGROUND)


def _save_scores(path: Path, values: NDArray[np.uint8]) -> None:
    """Save values in 255ths on the report's colour scale, transparent where they are 0."""
    _save_indexed(path, values, scale_colors(), 0)


def _save_indexed(
    path: Path, values: NDArray[np.uint8], table: NDArray[np.uint8], clear: int
) -> None:
    image = Image.fromarray(np.ascontiguousarray(values, np.uint8)).convert("L")
    image = image.copy()
    image.putpalette(table.tobytes())
    write_picture(image, path, transparency=clear)


def _draw_tissue(
    store: SlideStore, factor: int, shape: tuple[int, ...]
) -> NDArray[np.uint8] | None:
    """Return ``(H, W)`` uint8: 0 along the border of the tissue, `BACKGROUND` elsewhere."""
    try:
        mask, mpp, _ = store.read_tissue()
    except StoreError:
        return None
    inside = sample_mask(mask, mpp, Box(0, 0, shape[1], shape[0]), store.mpp * factor)
    padded = np.pad(inside, 1)
    core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.where(inside & ~core, 0, BACKGROUND).astype(np.uint8)


def _describe_classes(palette: Palette) -> list[dict[str, str]]:
    safe = choose_safe_colors(palette.names)
    return [
        {"name": name, "color": to_hex(color), "safe": to_hex(safe_color)}
        for name, color, safe_color in zip(palette.names, palette.colors, safe, strict=True)
    ]


def _count(
    labels: NDArray[np.uint8], confidence: NDArray[np.uint8], count: int, pixel_mm2: float
) -> list[list[float]]:
    """Return mm² by class and confidence, `BINS` values per class."""
    bins = np.minimum(confidence.astype(np.intp) * BINS // 255, BINS - 1)
    mapped = labels < count
    cells = np.bincount(labels[mapped] * BINS + bins[mapped], minlength=count * BINS)
    return [[round(n * pixel_mm2, 6) for n in row] for row in cells.reshape(count, BINS).tolist()]


def _find_places(annotations: Annotations) -> list[dict[str, Any]]:
    """List the regions with the lowest confidence among those that are large enough to matter."""
    pixel = annotations.mpp**2 / 1e6
    regions = annotations.regions
    large = [region for region in regions if region.area_px * pixel >= _PLACE_MM2]
    large = large or sorted(regions, key=lambda region: -region.area_px)[:_PLACES]
    unsure = sorted(large, key=lambda region: (region.confidence, -region.area_px))[:_PLACES]
    return [_describe_place(region, annotations, pixel) for region in unsure]


def _describe_place(region: Region, annotations: Annotations, pixel: float) -> dict[str, Any]:
    x, y = (float(v) for v in region.exterior.min(axis=0))
    right, bottom = (float(v) for v in region.exterior.max(axis=0))
    return {
        "class": annotations.palette.names[region.label],
        "mm2": round(region.area_px * pixel, 6),
        "confidence": round(region.confidence, 4),
        **_place(x, y, right - x, bottom - y, annotations.mpp, margin=1.5),
    }


def _place(
    x: float, y: float, width: float, height: float, mpp: float, margin: float = 1.0
) -> dict[str, float]:
    """Return centre (µm) and scale (µm per screen pixel) that show a box in the viewer."""
    return {
        "x": round((x + width / 2) * mpp, 1),
        "y": round((y + height / 2) * mpp, 1),
        "um": float(f"{max(width, height, 1) * margin * mpp / _SCREEN:.4g}"),
    }


def _digest(store: SlideStore, step: str) -> str:
    try:
        return store.finished(step)
    except StoreError:
        return ""
