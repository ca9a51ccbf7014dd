"""Where an output folder has corrections, the maps that they are about and the kept ones."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

from wsiseg.config import digest_of
from wsiseg.digests import hash_files
from wsiseg.store import SlideStore
from wsiseg.tissue import is_unused_edit

__all__ = [
    "CORRECTIONS",
    "SLIDES",
    "find_corrected",
    "find_maps",
    "find_slides",
    "is_output",
    "keep_corrected",
    "name_below",
    "name_in_run",
    "own_exports",
    "warn_of_unused_outlines",
]

_LOG = logging.getLogger(__name__)

CORRECTIONS = "corrections"
"""The subfolder of an output folder for exported corrections."""
SLIDES = "slides"
"""That of its stores."""
KEPT = ".maps"
"""Its subfolder for corrected maps that the output folder has replaced since."""
_WRITTEN = ("runs", "summary.csv", "geojson", "tissue")
_FORMS = (".geojson", ".geojson.gz", ".parts")
_HASH = 16
_KEPT_NAME = re.compile(rf"[0-9a-f]{{{_HASH}}}\.(geojson|geojson\.gz|parts)")
"""Beside them may lie maps of other slides: of ``one/two``, where this one is ``one``."""


def find_maps(path: Path, store: SlideStore) -> list[list[Path]]:
    """Find the maps that a file of corrections may be about, as the files of each.

    Kept ones come first, the earliest before the others, then that of the run, then that of the
    store's run.
    """
    found: dict[tuple[Path, ...], list[Path]] = {}
    for base in _places(path, store):
        for files in (_find_parts(base), *_find_kept(base)):
            found.setdefault(tuple(file.resolve() for file in files), files)
    return [files for files in found.values() if files]


def _places(path: Path, store: SlideStore) -> list[Path]:
    """List where the map may be, without extension: kept, in the run, in the store's run."""
    name = re.sub(r"(?i)\.(geo)?json(\.gz)?$", "", path.name)
    places = [path.parent / KEPT / name]
    for folder in path.parents:
        if folder.name == CORRECTIONS:
            below = path.relative_to(folder).parent / name
            places += [folder / KEPT / below, folder.parent / "geojson" / below]
    return [*places, *_own_places(store)]


def _own_places(store: SlideStore) -> list[Path]:
    """Return where `wsiseg annotate` writes the map of the store ``OUT/slides/NAME.zarr``."""
    slides = _find_slides(store)
    return [] if slides is None else [slides.parent / "geojson" / name_in_run(store)]


def find_slides(path: Path) -> Path | None:
    """Find the folder of stores, ``OUT/slides``, that `path` is or lies in.

    That is the nearest folder `slides` in what looks like an output folder (`is_output`), as slides
    may lie in folders of that name, too; else the nearest. None if there is none.
    """
    named = [one for one in (path, *path.parents) if one.name == SLIDES]
    return next((one for one in named if is_output(one.parent)), named[0] if named else None)


def is_output(folder: Path) -> bool:
    """Whether there is anything beside the stores that `wsiseg annotate` writes."""
    return any((folder / name).exists() for name in _WRITTEN)


def _find_slides(store: SlideStore) -> Path | None:
    return find_slides(store.path.absolute())


def name_in_run(store: SlideStore) -> str:
    """Return the name of a slide in an output folder: its path below ``slides``."""
    return name_below(_find_slides(store), store.path.absolute())


def name_below(slides: Path | None, store: Path) -> str:
    """Return the name of the slide of a store: its path below `slides`, if there is that."""
    path = store.with_suffix("")
    return path.name if slides is None else path.relative_to(slides).as_posix()


def find_corrected(path: Path, name: str, stores: Sequence[SlideStore]) -> int | None:
    """Return the number of the store whose map a file in ``OUT/corrections`` corrects.

    `name` is the file's without endings, which is the slide's name in the output folder: other
    slides of it may have that name too. None for files elsewhere.
    """
    path = path.absolute()
    for folder in path.parents:
        if folder.name == CORRECTIONS:
            store = folder.parent / SLIDES / path.relative_to(folder).with_name(f"{name}.zarr")
            return next((at for at, s in enumerate(stores) if s.path.absolute() == store), None)
    return None


def warn_of_unused_outlines(stores: Sequence[SlideStore]) -> None:
    """Warn of tissue outlines beside `stores` that were edited and not read since.

    They are no labels, and who edits one may wonder where it counts.
    """
    for store in stores:
        slides = _find_slides(store)
        if slides is None:
            continue
        outline = slides.parent / "tissue" / f"{name_in_run(store)}.geojson"
        if is_unused_edit(store, outline):
            _LOG.warning(
                "%s: was edited, which changes nothing yet: run the `wsiseg annotate` of its slide "
                "again, which redoes what the edit changes", outline,
            )  # fmt: skip


def own_exports(store: SlideStore) -> list[Path]:
    """Find the files of a store's map in an output folder."""
    return [part for base in _own_places(store) for part in _find_parts(base)]


def _find_parts(base: Path) -> list[Path]:
    """Find the files of a map: the newest of its plain, compressed and split forms."""
    files = [base.with_name(base.name + suffix) for suffix in _FORMS]
    files = sorted((p for p in files if p.exists()), key=lambda p: p.stat().st_mtime)
    return _list_files(files[-1]) if files else []


def _find_kept(base: Path) -> list[list[Path]]:
    """Find the maps that `keep_corrected` kept of a slide, if `base` is where it keeps them."""
    if KEPT not in base.parts or not base.is_dir():
        return []
    kept = [path for path in base.iterdir() if _KEPT_NAME.fullmatch(path.name)]
    ordered = sorted(kept, key=lambda path: (path.stat().st_mtime, path.name))
    return [_list_files(path) for path in ordered]


def _list_files(path: Path) -> list[Path]:
    """List the files of a map in one of its forms: itself, or its parts."""
    return sorted(path.glob("*.geojson.gz")) if path.is_dir() else [path]


def keep_corrected(root: Path, name: str) -> None:
    """Keep the map of a slide that is about to be made again, if a person corrected it.

    It is named after its content, so that each map that was corrected is kept, and once.

    Parameters
    ----------
    root, name
        The output folder, and the slide's name in it.
    """
    corrections = root / CORRECTIONS / f"{name}.geojson"
    if not corrections.exists():
        return
    for suffix in _FORMS:
        former = root / "geojson" / f"{name}{suffix}"
        if former.exists() and former.stat().st_mtime <= corrections.stat().st_mtime:
            kept = root / CORRECTIONS / KEPT / name / f"{_hash_files(former)}{suffix}"
            if not kept.exists():
                kept.parent.mkdir(parents=True, exist_ok=True)
                os.replace(former, kept)


def _hash_files(path: Path) -> str:
    """Return a short hash of the content of a map."""
    return digest_of(*hash_files(_list_files(path)))[:_HASH]
