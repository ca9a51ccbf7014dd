"""Give a store its tissue mask: the one that the user drew, else the detected one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from wsiseg.config import Config, digest_of
from wsiseg.digests import hash_file
from wsiseg.slide import Slide
from wsiseg.store import SlideStore
from wsiseg.tissue.detect import detect_tissue

__all__ = ["draw_tissue", "is_drawn", "is_unused_edit", "settle_tissue"]

_LOG = logging.getLogger(__name__)

_VERSION = 2
"""Version of the detection; a change redoes every mask."""


def settle_tissue(
    slide: Slide, store: SlideStore, config: Config, outline: Path | None = None,
    *, draw: bool = True,
) -> None:  # fmt: skip
    """Ensure that `store` holds the slide's tissue mask: drawn by the user, else detected.

    With an `outline` (``.geojson``), the detected mask is also written there for QuPath; without
    `draw`, that is left to `draw_tissue`. A file that is not as wsiseg wrote it is the user's: it
    is read and never overwritten, and its polygons are the mask (no smallest area applies).
    Polygons of class ``Ignore*``, or another that begins with Ignore, are cut out of the others.
    Broken ones are left out, as the log and the store's `tissue_note` report. Delete the file to
    have the tissue detected again.

    Raises
    ------
    GeoJsonError
        If the user's file cannot be read, or all its features are broken.
    SlideReadError
        If the slide's pixels cannot be read.
    """
    detection = _digest_detection(slide, config)
    if outline is None or not is_drawn(outline):
        _settle_detected(slide, store, config, detection)
        if outline is not None and draw:
            draw_tissue(store, config, outline)
        return
    from wsiseg.tissue.outline import Place, read_mask  # loads shapely

    drawn = hash_file(outline)
    _LOG.info(
        "%s: the tissue is what %s says, which was edited; delete that file to have it found again",
        store.slide["name"], outline,
    )  # fmt: skip
    edited = digest_of("edited tissue", detection, drawn)
    if (store.tissue_digest, store.tissue_outline) != (edited, drawn):
        place = Place(slide, config.tissue.mpp, _origin(slide.bounds, config))
        mask, note = read_mask(outline, place)
        store.write_tissue(mask, config.tissue.mpp, edited, note, drawn)


def draw_tissue(store: SlideStore, config: Config, outline: Path) -> None:
    """Write a detected mask to `outline`, unless the file shows it already or is the user's."""
    if _stamp(outline) not in ("", store.tissue_digest):
        from wsiseg.tissue.outline import write_mask  # loads shapely

        write_mask(store, _origin(store.slide["bounds"], config), outline)


def is_drawn(outline: Path) -> bool:
    """Whether a file is not as wsiseg wrote it, so that it is the user's."""
    return _stamp(outline) == ""


def is_unused_edit(store: SlideStore, outline: Path) -> bool:
    """Whether the user edited `outline` and the store's mask was not read from it as it is."""
    return is_drawn(outline) and store.tissue_outline != hash_file(outline)


def _stamp(outline: Path) -> str | None:
    """Return the digest of the detection in a file; empty if it is the user's, None if missing."""
    if not outline.is_file():
        return None
    from wsiseg.tissue.outline import read_detection  # loads shapely

    return read_detection(outline)


def _settle_detected(slide: Slide, store: SlideStore, config: Config, detection: str) -> None:
    if store.tissue_digest != detection:
        mask = detect_tissue(slide, config.tissue)
        store.write_damage("tissue", detection, slide.damaged)
        store.write_tissue(mask, config.tissue.mpp, detection)


def _digest_detection(slide: Slide, config: Config) -> str:
    settings = config.tissue.model_dump(mode="json", exclude={"min_fraction"})
    reader = [slide.reader, config.slide.scaled_decode]
    reader += ["blank"] if config.slide.damaged == "blank" else []
    reader += [config.slide.white_level] if config.slide.white_level else []
    facts = [slide.identity, list(slide.mpp), list(_origin(slide.bounds, config)), reader]
    return digest_of("tissue", _VERSION, settings, facts)


def _origin(bounds: Sequence[int], config: Config) -> tuple[int, int]:
    return (bounds[0], bounds[1]) if config.export.origin == "qupath" else (0, 0)
