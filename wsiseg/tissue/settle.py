"""Which tissue mask a store gets: the one that a person drew, else the one that is detected."""

from __future__ import annotations

import hashlib
from pathlib import Path

from wsiseg.config import Config, digest_of
from wsiseg.slide import Slide
from wsiseg.store import SlideStore
from wsiseg.tissue.detect import detect_tissue

__all__ = ["settle_tissue"]

_VERSION = 2
"""Of the detection; a change of it redoes every mask."""


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
    detection = _digest_detection(slide, config)
    if outline is None:
        _settle_detected(slide, store, config, detection)
        return
    from wsiseg.tissue.outline import Place, read_detection, read_mask, write_mask  # loads shapely

    place = Place(slide, config.tissue.mpp, _origin(slide, config))
    stamp = read_detection(outline) if outline.is_file() else None
    if stamp == "":
        edited = digest_of("edited tissue", detection, _hash(outline))
        if store.tissue_digest != edited:
            mask, note = read_mask(outline, place)
            store.write_tissue(mask, config.tissue.mpp, edited, note)
        return
    _settle_detected(slide, store, config, detection)
    if stamp != detection:
        write_mask(store.read_tissue()[0], place, detection, outline)


def _settle_detected(slide: Slide, store: SlideStore, config: Config, detection: str) -> None:
    if store.tissue_digest != detection:
        mask = detect_tissue(slide, config.tissue)
        store.write_damage("tissue", detection, slide.damaged)
        store.write_tissue(mask, config.tissue.mpp, detection)


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest_detection(slide: Slide, config: Config) -> str:
    how = config.tissue.model_dump(mode="json", exclude={"min_fraction"})
    reader = [slide.reader, config.slide.scaled_decode]
    reader += ["blank"] if config.slide.damaged == "blank" else []
    reader += [config.slide.white_level] if config.slide.white_level else []
    facts = [slide.identity, list(slide.mpp), list(_origin(slide, config)), reader]
    return digest_of("tissue", _VERSION, how, facts)


def _origin(slide: Slide, config: Config) -> tuple[int, int]:
    return slide.bounds[:2] if config.export.origin == "qupath" else (0, 0)
