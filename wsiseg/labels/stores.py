"""Find stores, and resolve the names by which files and tables refer to them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsiseg.config import LabelConfig
from wsiseg.errors import DataError, StoreError
from wsiseg.store import SlideStore
from wsiseg.tissue import tile_fractions

__all__ = ["Names", "find_stores", "find_tissue", "map_classes", "open_stores"]

_SAME_MPP = 0.05  # relative tolerance: slides of one scanner differ slightly


def find_stores(paths: Sequence[str | Path]) -> list[Path]:
    """Find the stores among `paths`, in folders of stores, or in output folders, sorted.

    Raises
    ------
    DataError
        If a path is none of these.
    """
    stores: list[Path] = []
    for path in map(Path, paths):
        inside = [path] if path.suffix == ".zarr" else list(_walk(path))
        if not path.exists() or not inside:
            raise DataError(f"{path}: is neither a .zarr store nor a folder of them")
        stores += inside
    return list(dict.fromkeys(stores))


def _walk(folder: Path) -> Iterable[Path]:
    """Yield stores below a folder; in an output folder, only those of its slides."""
    folder = folder / "slides" if (folder / "slides").is_dir() else folder
    for parent, folders, _ in os.walk(folder):
        stores = sorted(name for name in folders if name.endswith(".zarr"))
        folders[:] = sorted(set(folders) - set(stores))
        yield from (Path(parent, name) for name in stores)


def map_classes(stores: Sequence[SlideStore]) -> set[str]:
    """Return the classes of the maps in stores; stores that are not predicted have none."""
    names: set[str] = set()
    for store in stores:
        with suppress(StoreError):
            names.update(store.cam_palette.names)
    return names


def open_stores(paths: Sequence[Path], problems: list[str]) -> list[SlideStore]:
    """Open the readable stores, and check that they share one tile size and µm/px."""
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
    """Return ``(rows, cols)`` bool: which tiles contain enough tissue."""
    mask, mask_mpp, _ = store.read_tissue()
    fractions = tile_fractions(mask, mask_mpp, store.grid, store.mpp)
    return np.asarray((fractions >= config.tissue_fraction) & (fractions > 0))


class Names:
    """Names of stores: the store's own and its slide's, with or without extension.

    A slide's full path always matches. Otherwise the name is compared; among slides of the same
    name, the parent folder decides.

    Parameters
    ----------
    problems
        Receives a message about stores whose own names and folders do not distinguish them.
    """

    def __init__(self, stores: Sequence[SlideStore], problems: list[str]) -> None:
        self._stores = stores
        self._by_name: dict[str, list[int]] = {}
        for at, store in enumerate(stores):
            slide = str(store.slide["name"])
            for name in {*_own_names(store), slide.casefold(), Path(slide).stem.casefold()}:
                self._by_name.setdefault(name, []).append(at)
        for name, alike in self._by_name.items():
            matches = [at for at in alike if name in _own_names(stores[at])]
            folders = {stores[at].path.parent.name for at in matches}
            if len(folders) < len(matches):
                first, second = (stores[at].path for at in matches[:2])
                problems.append(f"{second}: has the same name as {first}: {name!r}; rename one")

    def find(self, name: str, folders: Sequence[str] = ()) -> int | None:
        """Return the number of the store with this name or path; None if it is not exactly one."""
        matches = self._candidates(name, folders)
        return matches[0] if len(matches) == 1 else None

    def explain(self, name: str) -> str:
        """Say why `find` found no store."""
        matches = [str(self._stores[at].path) for at in self._candidates(name)]
        if matches:
            return f"{name!r} is the name of {' and '.join(matches)}; give the slide's full path"
        listed = [store.path.stem for store in self._stores[:8]]
        more = ", ..." if len(self._stores) > 8 else ""
        return f"no store of slide {name!r}; there are {', '.join(listed)}{more}"

    def _candidates(self, name: str, folders: Sequence[str] = ()) -> list[int]:
        path = Path(name)
        exact = [at for at, s in enumerate(self._stores) if s.slide.get("path") == name]
        matches = exact or self._by_name.get(path.name.casefold(), [])
        near = [*folders, *path.parent.parts][-1:]
        close = [at for at in matches if self._stores[at].path.parent.name in near]
        return close if len(matches) > 1 and close else matches


def _own_names(store: SlideStore) -> tuple[str, str]:
    return store.path.name.casefold(), store.path.stem.casefold()
