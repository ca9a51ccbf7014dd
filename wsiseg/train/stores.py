"""Tiles of slides as training data: stores, and labels from a table or from annotations."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from wsiseg.cases import find_case
from wsiseg.config import LabelConfig, digest_of
from wsiseg.errors import DataError, StoreError
from wsiseg.store import SlideStore
from wsiseg.table import to_number
from wsiseg.tissue import tile_fractions
from wsiseg.train.cover import Affine, read_class_shapes, tile_cover
from wsiseg.train.labels import (
    Label,
    LabelRow,
    SeenLabels,
    gather_labels,
    read_label_table,
    refuse,
)

__all__ = ["StoreTiles", "find_stores", "load_tiles"]

_LOG = logging.getLogger(__name__)

_KEYS = [(name, *place) for name in ("slide", "store") for place in (("row", "col"), ("x", "y"))]
_GEOJSON = (".geojson", ".json", ".geojson.gz", ".json.gz")
_SAME_MPP = 0.05  # stores may differ by this share: a scanner's px are seldom exactly alike

_Tile = tuple[int, int]
_Labelled = tuple[tuple[int, int, int], Label]
"""Number of the store, row and column of the tile; and its label."""


@dataclass(frozen=True)
class StoreTiles:
    """Tiles of one or more stores; keeps the promise `PatchSource`."""

    stores: tuple[SlideStore, ...]
    tiles: NDArray[np.int64]
    """``(N, 3)`` int64: number of the store, tile row, tile column."""
    labels: NDArray[np.float32]
    """``(N, K)`` float32: 1 where the class shows, else 0."""

    def __len__(self) -> int:
        return len(self.tiles)

    @property
    def side(self) -> int:
        """Side of every tile in pixels."""
        return self.stores[0].grid.tile

    @property
    def mpp(self) -> float:
        """µm/px of the tiles; the median where the stores differ a little."""
        return median(store.mpp for store in self.stores)

    @cached_property
    def identity(self) -> str:
        """Hash of the stores' pixels, the tiles and their labels."""
        pixels = [store.finished("tile") for store in self.stores]
        return digest_of(pixels, self.tiles.tolist(), self.labels.tolist())

    @property
    def cases(self) -> list[str]:
        """The patient of a TCGA slide, else the slide."""
        slides = [str(store.slide["name"]) for store in self.stores]
        known = [find_case(name) or Path(name).stem for name in slides]
        return [known[store] for store in self.tiles[:, 0].tolist()]

    def name(self, index: int) -> str:
        """Slide, row and column."""
        store, row, col = self.tiles[index].tolist()
        return f"{self.stores[store].path.stem} tile ({row}, {col})"

    def read(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """``(B, side, side, 3)`` uint8 RGB, read from the stores as they are asked for."""
        chosen = self.tiles[list(indices)]
        side = self.side
        out = np.empty((len(chosen), side, side, 3), np.uint8)
        for at in np.unique(chosen[:, 0]):
            mine = chosen[:, 0] == at
            out[mine] = self.stores[at].read_tiles([(row, col) for row, col in chosen[mine, 1:]])
        return out


def find_stores(paths: Sequence[str | Path]) -> list[Path]:
    """The stores among `paths`, and those in folders of them, in order of name.

    Raises
    ------
    DataError
        If a path is neither.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        inside = [path] if path.suffix == ".zarr" else sorted(path.glob("*.zarr"))
        if not path.exists() or not inside:
            raise DataError(f"{path}: is neither a .zarr store nor a folder of them")
        found += inside
    return found


def load_tiles(
    stores: Sequence[str | Path],
    labels: str | Path,
    classes: Sequence[str],
    config: LabelConfig | None = None,
) -> StoreTiles:
    """Label the tiles of stores, and check everything before training starts.

    Parameters
    ----------
    stores
        ``.zarr`` stores, or folders of them.
    labels
        A table with the columns ``slide`` (or ``store``), then ``row,col`` of the tile or ``x,y``
        of a level-0 pixel in it (as QuPath shows it, unless ``config.origin`` says otherwise), then
        one 0/1 column a class or ``labels`` of class names separated by ``;``. Or QuPath's
        annotations: a GeoJSON file for one store, or a folder with ``<store>.geojson`` for each
        (or ``<store>.edited.geojson``, as `wsiseg annotate` names what somebody edited).
        A tile shows a class if its polygons cover ``config.class_fraction`` of it, and is used if
        polygons of any class cover ``config.annotated_fraction``. What a file holds that is no
        label, as detections and broken features, is told in the log.
    classes
        Class names in label order.
    config
        What is said above; None for the defaults.

    Raises
    ------
    DataError
        If anything is wrong; lists every problem: stores that are unfinished or unlike each other,
        unknown slides or classes, tiles outside or without tissue, tiles given twice, classes that
        no tile shows.
    """
    labels, config, problems = Path(labels), config or LabelConfig(), list[str]()
    if not labels.exists():
        raise DataError(f"{labels}: does not exist; give a CSV, a GeoJSON file or a folder of them")
    drawn = labels.is_dir() or labels.name.lower().endswith(_GEOJSON)
    read = _read_annotations if drawn else _read_table
    opened = _open_stores(find_stores(stores), problems)
    found = list(read(labels, opened, classes, config, problems))
    marks = gather_labels([label for _, label in found], classes, problems, "tile")
    refuse(labels, problems, "labels or stores")
    places = np.array([place for place, _ in found], np.int64).reshape(-1, 3)
    return StoreTiles(tuple(opened), places, marks)


def _open_stores(paths: Sequence[Path], problems: list[str]) -> list[SlideStore]:
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


def _tissue(store: SlideStore, config: LabelConfig) -> NDArray[np.bool_]:
    """``(rows, cols)``: which tiles hold enough tissue."""
    mask, mask_mpp, _ = store.read_tissue()
    fractions = tile_fractions(mask, mask_mpp, store.grid, store.mpp)
    return np.asarray((fractions >= config.tissue_fraction) & (fractions > 0))


def _place(store: SlideStore, config: LabelConfig) -> Affine:
    origin = store.slide["bounds"][:2] if config.origin == "qupath" else (0, 0)
    x, y = store.slide["mpp"]
    return (origin[0], origin[1]), (store.mpp / x, store.mpp / y)


# -- tables --------------------------------------------------------------------------------------


def _read_table(
    path: Path,
    stores: Sequence[SlideStore],
    classes: Sequence[str],
    config: LabelConfig,
    problems: list[str],
) -> Iterator[_Labelled]:
    known = _name_stores(stores, problems)
    tissue = [_tissue(store, config) for store in stores]
    seen = SeenLabels()
    for row in read_label_table(path, _KEYS, classes, problems):
        named = row.keys.get("slide", row.keys.get("store", ""))
        if named not in known:
            listed = ", ".join(store.path.stem for store in stores[:8])
            problems.append(f"{row.where}: no store of slide {named!r}; there are {listed}")
            continue
        at = known[named]
        tile = _find_tile(row, stores[at], config, problems)
        if tile is None:
            continue
        place = (at, *tile)
        if not tissue[at][tile]:
            problems.append(f"{row.where}: tile {tile} of {named} holds no tissue")
        elif seen.add(place, row, f"tile {tile} of {named}", problems):
            yield place, row.label


def _name_stores(stores: Sequence[SlideStore], problems: list[str]) -> dict[str, int]:
    """What a table may call each store: its name, its slide's, either without the extension."""
    known: dict[str, int] = {}
    for at, store in enumerate(stores):
        slide = str(store.slide["name"])
        for name in {store.path.name, store.path.stem, slide, Path(slide).stem}:
            if known.setdefault(name, at) != at:
                problems.append(f"{store.path}: and {stores[known[name]].path} are both {name!r}")
    return known


def _find_tile(
    row: LabelRow, store: SlideStore, config: LabelConfig, problems: list[str]
) -> _Tile | None:
    """The tile that a line names; where tiles overlap, the last that begins before the point."""
    grid, by_index = store.grid, "row" in row.keys
    names = ("row", "col") if by_index else ("x", "y")
    first, second = (to_number(row.keys[name], row.separator) for name in names)
    if by_index and first.is_integer() and second.is_integer():
        place = (first, second)
    elif not by_index and np.isfinite((first, second)).all():
        origin, scale = _place(store, config)
        x, y = ((v + o) / s for v, o, s in zip((first, second), origin, scale, strict=True))
        inside = 0 <= x < grid.width and 0 <= y < grid.height
        # The last tiles may hold points beyond their stride.
        place = (min(y // grid.stride, grid.rows - 1), min(x // grid.stride, grid.cols - 1))
        place = place if inside else (-1, -1)
    else:
        kind = "whole numbers" if by_index else "numbers"
        given = ", ".join(f"{name} = {row.keys[name]!r}" for name in names)
        problems.append(f"{row.where}: {given} are not {kind}")
        return None
    if not (0 <= place[0] < grid.rows and 0 <= place[1] < grid.cols):
        given = ", ".join(f"{name} = {row.keys[name]}" for name in names)
        problems.append(
            f"{row.where}: {given} is outside {store.path.stem}, which has {grid.rows} rows and "
            f"{grid.cols} columns of tiles"
        )
        return None
    return int(place[0]), int(place[1])


# -- annotations ---------------------------------------------------------------------------------


def _read_annotations(
    path: Path,
    stores: Sequence[SlideStore],
    classes: Sequence[str],
    config: LabelConfig,
    problems: list[str],
) -> Iterator[_Labelled]:
    for at, file in _match_files(path, stores, problems):
        store = stores[at]
        own = _own_exports(store.path)
        shapes = read_class_shapes(file, classes, _place(store, config), problems, own)
        used = tile_cover(shapes.anything, store.grid) >= config.annotated_fraction
        used &= _tissue(store, config)
        cover = np.stack([tile_cover(shape, store.grid) for shape in shapes.classes], 2)
        shown = cover >= config.class_fraction
        for note in shapes.notes:
            _LOG.warning("%s: %s", file, note)
        if not used.any():
            problems.append(
                f"{file}: no tile with tissue of {store.path.stem} is annotated over "
                f"{config.annotated_fraction:g} of its area (annotated_fraction)"
                + "".join(f"; {note}" for note in shapes.notes)
            )
        for row, col in np.argwhere(used & shown.any(2)).tolist():
            yield (at, row, col), tuple(shown[row, col].astype(int).tolist())


def _own_exports(path: Path) -> list[Path]:
    """Where `wsiseg annotate` wrote the regions of the store ``OUT/slides/NAME.zarr``."""
    slides = next((parent for parent in path.absolute().parents if parent.name == "slides"), None)
    if slides is None:
        return []
    base = slides.parent / "geojson" / path.absolute().relative_to(slides).with_suffix("")
    files = [base.with_name(base.name + suffix) for suffix in (".geojson", ".geojson.gz")]
    parts = base.with_name(base.name + ".parts")
    return [file for file in files if file.exists()] + sorted(parts.glob("*.geojson.gz"))


def _find_file(folder: Path, name: str) -> Path | None:
    """The annotations of one store: those that somebody edited before those of a run."""
    mark = re.compile(re.escape(name) + r"\.edited(\d*)\.(geo)?json(\.gz)?")
    edited = [(int(found[1] or 1), path) for path in folder.iterdir()
              if (found := mark.fullmatch(path.name))]  # fmt: skip
    files = [folder / (name + suffix) for suffix in _GEOJSON]
    written = next((file for file in files if file.is_file()), None)
    if not edited:
        return written
    latest = max(edited)[1]
    if written is not None:
        _LOG.info("%s: taken for labels, not %s", latest, written.name)
    return latest


def _match_files(
    path: Path, stores: Sequence[SlideStore], problems: list[str]
) -> Iterator[tuple[int, Path]]:
    """Number of each store, and its file of annotations."""
    if path.is_file() and len(stores) > 1:
        problems.append(
            f"is one file for {len(stores)} stores; give a folder with <store>.geojson for each"
        )
    elif path.is_file():
        yield 0, path
    else:
        for at, store in enumerate(stores):
            name = store.path.stem
            file = _find_file(path, name)
            if file is None:
                problems.append(
                    f"{store.path}: has no {name}{_GEOJSON[0]}; name annotated stores only"
                )
            else:
                yield at, file
