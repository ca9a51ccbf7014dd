"""Which stores there are, and what a file or a table may call each of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsiseg.config import LabelConfig
from wsiseg.errors import DataError, StoreError
from wsiseg.store import SlideStore
from wsiseg.tissue import tile_fractions

__all__ = ["Names", "find_stores", "find_tissue", "open_stores"]

_SAME_MPP = 0.05  # stores may differ by this share: a scanner's px are seldom exactly alike


def find_stores(paths: Sequence[str | Path]) -> list[Path]:
    """The stores among `paths`, in folders of them, or in output folders, in order of name.

    Raises
    ------
    DataError
        If a path is none of these.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        inside = [path] if path.suffix == ".zarr" else list(_walk(path))
        if not path.exists() or not inside:
            raise DataError(f"{path}: is neither a .zarr store nor a folder of them")
        found += inside
    return list(dict.fromkeys(found))


def _walk(folder: Path) -> Iterable[Path]:
    """Stores below a folder; of an output folder, only those of its slides."""
    folder = folder / "slides" if (folder / "slides").is_dir() else folder
    for parent, folders, _ in os.walk(folder):
        stores = sorted(name for name in folders if name.endswith(".zarr"))
        folders[:] = sorted(set(folders) - set(stores))
        yield from (Path(parent, name) for name in stores)


def open_stores(paths: Sequence[Path], problems: list[str]) -> list[SlideStore]:
    """The stores that can be read; all have one tile size and one µm/px."""
    opened: list[SlideStore] = []
    for path in paths:
        try:
            store = SlideStore(path)
            store.finished("tile")
        except StoreError as error:
            problems.append(str(error))
            continue
        first = opened[0] if opened else store
        if store.grid.tile != first.grid.tile or abs(store.mpp / first.mpp - 1) > _SAME_MPP:
            problems.append(
                f"{path}: has tiles of {store.grid.tile} px at {store.mpp:g} µm/px, {first.path} "
                f"of {first.grid.tile} px at {first.mpp:g}; tile all slides alike"
            )
        opened.append(store)
    return opened


def find_tissue(store: SlideStore, config: LabelConfig) -> NDArray[np.bool_]:
    """``(rows, cols)``: which tiles hold enough tissue."""
    mask, mask_mpp, _ = store.read_tissue()
    fractions = tile_fractions(mask, mask_mpp, store.grid, store.mpp)
    return np.asarray((fractions >= config.tissue_fraction) & (fractions > 0))


class Names:
    """What each of several stores may be called: its name, its slide's, with extension or without.

    A path is right if it is the slide's own; else its name counts, and the folders that it has in
    common with a store decide between slides of one name.

    Parameters
    ----------
    problems
        Takes in two stores that even their folders do not tell apart.
    """

    def __init__(self, stores: Sequence[SlideStore], problems: list[str]) -> None:
        self._stores = stores
        self._known: dict[str, list[int]] = {}
        for at, store in enumerate(stores):
            slide = str(store.slide["name"])
            for name in {store.path.name, store.path.stem, slide, Path(slide).stem}:
                self._known.setdefault(name.casefold(), []).append(at)
        for name, several in self._known.items():
            folders = {stores[at].path.parent.name for at in several}
            if len(folders) < len(several):
                first, second = (stores[at].path for at in several[:2])
                problems.append(f"{second}: and {first} are both {name!r}")

    def find(self, name: str, folders: Sequence[str] = ()) -> int | None:
        """Number of the store of a slide's name or path; None if there is none, or several."""
        several = self._candidates(name, folders)
        return several[0] if len(several) == 1 else None

    def explain(self, name: str) -> str:
        """Why `find` found none."""
        several = [str(self._stores[at].path) for at in self._candidates(name)]
        if several:
            return f"{name!r} is the name of {' and '.join(several)}; give the slide's whole path"
        listed = [store.path.stem for store in self._stores[:8]]
        more = ", ..." if len(self._stores) > 8 else ""
        return f"no store of slide {name!r}; there are {', '.join(listed)}{more}"

    def _candidates(self, name: str, folders: Sequence[str] = ()) -> list[int]:
        path = Path(name)
        exact = [at for at, s in enumerate(self._stores) if s.slide.get("path") == name]
        several = exact or self._known.get(path.name.casefold(), [])
        near = [*folders, *path.parent.parts][-1:]
        close = [at for at in several if self._stores[at].path.parent.name in near]
        return close if len(several) > 1 and close else several
