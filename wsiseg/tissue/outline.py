"""The tissue mask as an outline that the user may edit, and back."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray

from wsiseg.annotations import BACKGROUND, Annotations, Palette
from wsiseg.config import Config, digest_of
from wsiseg.errors import GeoJsonError
from wsiseg.geometry import Size
from wsiseg.qupath import (
    Finding,
    describe_left_out,
    read_geojson,
    read_stamp,
    write_geojson,
)
from wsiseg.slide import Slide
from wsiseg.store import SlideStore
from wsiseg.tissue.detect import detect_tissue
from wsiseg.trace import trace_regions

__all__ = ["settle_tissue"]

_LOG = logging.getLogger(__name__)

Mask = NDArray[np.bool_]

_VERSION = 2
"""Of the detection; a change of it redoes every mask."""
_PALETTE = Palette(("Tissue",), ((120, 120, 120),))


def settle_tissue(
    slide: Slide, store: SlideStore, config: Config, outline: Path | None = None
) -> None:
    """See that `store` holds the slide's tissue mask: drawn by the user, else detected.

    With an `outline` (``.geojson``), the detected mask is also written there for QuPath. If that
    file is not as wsiseg wrote it, it is the user's: it is read, never overwritten, and its
    polygons are the mask as they stand (no smallest area). Polygons of the class ``Ignore*`` are
    cut out of the others. A broken one is left out, which the log and the store's `tissue_note`
    tell. Delete the file to have the tissue detected again.

    Raises
    ------
    GeoJsonError
        If the user's file cannot be read, or all its features are broken.
    SlideReadError
        If the slide's pixels cannot be read.
    """
    mpp, detection = config.tissue.mpp, _digest_detection(slide, config)
    stamp = _read_stamp(outline) if outline is not None and outline.is_file() else None
    if outline is not None and stamp == "":
        edited = digest_of("edited tissue", detection, _hash(outline.read_bytes()))
        if store.tissue_digest != edited:
            mask, note = _read_outline(outline, slide, config)
            store.write_tissue(mask, mpp, edited, note)
        return
    if store.tissue_digest != detection:
        mask = detect_tissue(slide, config.tissue)
        store.write_damage("tissue", detection, slide.damaged)
        store.write_tissue(mask, mpp, detection)
    if outline is not None and stamp != detection:
        _write_outline(store.read_tissue()[0], slide, config, detection, outline)


def _digest_detection(slide: Slide, config: Config) -> str:
    how = config.tissue.model_dump(mode="json", exclude={"min_fraction"})
    reader = [slide.reader, config.slide.scaled_decode]
    reader += ["blank"] if config.slide.damaged == "blank" else []
    reader += [config.slide.white_level] if config.slide.white_level else []
    facts = [slide.identity, list(slide.mpp), list(_origin(slide, config)), reader]
    return digest_of("tissue", _VERSION, how, facts)


def _origin(slide: Slide, config: Config) -> tuple[int, int]:
    return slide.bounds[:2] if config.export.origin == "qupath" else (0, 0)


def _scale(slide: Slide, config: Config) -> tuple[float, float]:
    return config.tissue.mpp / slide.mpp.x, config.tissue.mpp / slide.mpp.y


def _write_outline(mask: Mask, slide: Slide, config: Config, detection: str, path: Path) -> None:
    labels = np.where(mask, 0, BACKGROUND).astype(np.uint8)
    annotations = Annotations(
        slide=slide.path.name,
        palette=_PALETTE,
        regions=tuple(trace_regions(labels)),
        scale=_scale(slide, config),
        mpp=config.tissue.mpp,
        origin=_origin(slide, config),
        provenance={"tissue": detection},
        locked=False,  # it is there to be edited
    )
    write_geojson(annotations, path)


def _read_stamp(path: Path) -> str:
    """The digest of the detection that `path` shows; empty if its features are not as we wrote."""
    return str((read_stamp(path) or {}).get("tissue", ""))


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read_outline(path: Path, slide: Slide, config: Config) -> tuple[Mask, str]:
    """The mask ``(h, w)`` of the polygons in `path`, and what of it was left out.

    The mask is set where they hold a pixel's centre.
    """
    left_out: list[Finding] = []
    features = read_geojson(path, left_out)
    note = describe_left_out(left_out)
    if note and not features:
        raise GeoJsonError(f"{path}: {note}")
    if note:
        note = f"tissue outline {path.name}: {note}"
        _LOG.warning("%s: %s", slide.path.name, note)
    origin, scale = np.array(_origin(slide, config)), np.array(_scale(slide, config))
    size = slide.raster_size(config.tissue.mpp)
    tissue, ignored = np.zeros((2, size.height, size.width), bool)
    for feature in features:
        target = ignored if feature.is_ignored else tissue
        for part in shapely.get_parts(feature.geometry):
            if isinstance(part, shapely.Polygon):
                rings = [
                    (shapely.get_coordinates(ring) + origin) / scale
                    for ring in shapely.get_rings(part)
                ]
                _fill(target, rings, size)
    return tissue & ~ignored, note


def _fill(mask: Mask, rings: list[NDArray[np.float64]], size: Size) -> None:
    """Set the pixels of `mask` whose centres lie inside an odd number of `rings` ``(n, 2)`` x, y.

    Every row is crossed at its centres: each edge toggles all pixels to the right of it.
    """
    start = np.concatenate([ring[:-1] for ring in rings])
    stop = np.concatenate([ring[1:] for ring in rings])
    ends = np.sort(np.stack([start[:, 1], stop[:, 1]]), axis=0)
    low, high = np.clip(np.ceil(ends - 0.5), 0, size.height).astype(np.int64)
    edge = np.repeat(np.arange(len(low)), high - low)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(high - low) - high, high - low)
    if not len(row):
        return
    slope = (stop[edge, 0] - start[edge, 0]) / (stop[edge, 1] - start[edge, 1])
    x = start[edge, 0] + (row + 0.5 - start[edge, 1]) * slope
    col = np.clip(np.ceil(x - 0.5), 0, size.width).astype(np.int64)
    top, left = int(row.min()), int(col.min())
    height, width = int(row.max()) + 1 - top, int(col.max()) + 1 - left
    toggles = np.bincount((row - top) * width + col - left, minlength=height * width)
    inside = np.cumsum(toggles.reshape(height, width), axis=1) % 2 == 1
    mask[top : top + height, left : left + width] |= inside[:, : size.width - left]
