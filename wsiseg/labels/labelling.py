"""Turn label files of many slides into labelled tiles, and collect all problems on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from wsiseg.config import LabelConfig, check_class_names
from wsiseg.errors import ConfigError, DataError
from wsiseg.labels.corrections import warn_of_unused_outlines
from wsiseg.labels.cover import place_of, to_raster
from wsiseg.labels.layers import (
    Layers,
    WindowLabels,
    gather_windows,
    label_windows,
    stack_layers,
)
from wsiseg.labels.manifest import read_manifest
from wsiseg.labels.mark import Mark, classify
from wsiseg.labels.names import find_lookalikes, format_map
from wsiseg.labels.placement import CELLS, intersect
from wsiseg.labels.remarks import (
    report_contradictions,
    report_marks,
    report_names,
    report_outlying,
    report_unseen,
)
from wsiseg.labels.resolve import LabelFile, LabelFiles, list_marks, resolve_files
from wsiseg.labels.sources import Sources, read_sources
from wsiseg.labels.stores import Names, find_stores, find_tissue, map_classes, open_stores
from wsiseg.labels.tile_table import name_tile_classes, read_tile_table
from wsiseg.store import SlideStore

__all__ = ["Labelling", "SlideLabels", "label_slides"]

_SAME_MPP = 0.05


@dataclass(frozen=True)
class SlideLabels:
    """One labelled slide."""

    store: SlideStore
    files: tuple[Path, ...]
    found: WindowLabels
    layers: Layers
    regions: tuple[int, ...]
    """Number of marks of each class."""
    patient: str
    """From the manifest; may be empty."""
    split: str = ""
    """``train`` or ``test``, from the manifest; may be empty."""

    @property
    def area_mm2(self) -> tuple[float, ...]:
        """Marked area of each class on the slide, overlaps counted once."""
        unit = (self.store.mpp / 1000) ** 2
        return tuple(float(shape.area) * unit for shape in self.layers.classes)


@dataclass(frozen=True)
class Labelling:
    """The labels of a set of slides from a set of label files."""

    classes: tuple[str, ...]
    stores: tuple[SlideStore, ...]
    slides: tuple[SlideLabels, ...]
    """The labelled slides."""
    unmatched: tuple[str, ...]
    """Files, and slides in tables, without a store."""
    unlabelled: tuple[Path, ...]
    """Stores without labels."""
    lookalikes: tuple[tuple[str, ...], ...]
    """Groups of class names that are probably one class; the name to keep first."""
    problems: tuple[str, ...]
    """Errors to correct first."""
    notes: tuple[str, ...]
    """What was skipped, and other remarks."""

    def advise(self) -> list[str]:
        """Say for each group of lookalikes how to merge them, or keep them apart; one line each."""
        return [
            f"{', '.join(map(repr, group))} look like one class: make them one with "
            f"{format_map(dict.fromkeys(group[1:], group[0]))}, or keep them apart with "
            f"{format_map({name: name for name in group})}"
            for group in self.lookalikes
        ]


def label_slides(
    labels: str | Path | Sequence[str | Path],
    stores: Sequence[str | Path],
    classes: Sequence[str] | None = None,
    config: LabelConfig | None = None,
    *,
    manifest: str | Path | None = None,
    known: Sequence[str] | None = None,
    maps: bool = False,
) -> Labelling:
    """Turn annotations of any supported kind into labels of tiles.

    Parameters
    ----------
    labels
        Files, or folders of them: GeoJSON as QuPath writes it, and corrections of our maps; XML of
        ImageScope or ASAP; tables ``slide,x,y,class`` or ``slide,x,y,width,height,class``; tables
        of tiles. Files are named after their slides, or assigned by the manifest.
    stores
        ``.zarr`` stores, folders of them, or output folders.
    classes
        In label order. None for all that the files name, in alphabetical order; a table with one
        column per class names all its columns of 0 and 1.
    config
        What counts as labelled; None for the defaults.
    manifest
        Table ``slide[,labels][,patient][,split]``.
    known
        Class names that are not typing errors; `classes` if not given.
    maps
        Whether neither are those of the stores' maps.

    Raises
    ------
    ConfigError
        If a class is blank or given twice.
    DataError
        If there is no store or no label file at all. Other errors are in `Labelling.problems`.
    """
    try:
        check_class_names(classes or ())
    except ValueError as error:
        given = ", ".join(classes or ())
        raise ConfigError(
            f"classes = {given}: {error}; give each class once, by its name"
        ) from error
    config = config or LabelConfig()
    paths = [Path(labels)] if isinstance(labels, str | Path) else [Path(one) for one in labels]
    problems: list[str] = []
    opened = open_stores(find_stores(stores), problems)
    warn_of_unused_outlines(opened)
    names = Names(opened, problems)
    assigned = None if manifest is None else read_manifest(manifest, names)
    paths += [] if assigned is None else list(assigned.labels)
    sources = read_sources(paths, opened, names, assigned)
    problems += sources.problems
    notes: list[str] = []
    files = resolve_files(sources, opened, config, problems, notes)
    counts = _count_names(files, classes or (), config)
    if classes is None:
        counts.update(_name_listed(sources))
    order = tuple(sorted(counts)) if classes is None else tuple(classes)
    problems += _check_names(files, order, config)
    tissue = [find_tissue(store, config) for store in opened]
    listed = _read_tables(sources, opened, names, tissue, order, config, problems)
    slides = []
    for at, store in enumerate(opened):
        drawn = files.get(at, [])
        if not drawn and at not in listed:
            continue
        slide = _label_slide(
            store, drawn, listed.get(at), tissue[at], order, config, problems, notes
        )
        if assigned:
            patient, split = assigned.patients.get(at, ""), assigned.splits.get(at, "")
            slide = replace(slide, patient=patient, split=split)
        slides.append(slide)
    expected = {*((classes or ()) if known is None else known), *config.map.values()}
    expected |= _name_mapped(files, config)
    if maps:
        expected |= map_classes(opened)
    labelled = {slide.store.path for slide in slides}
    return Labelling(
        classes=order, stores=tuple(opened), slides=tuple(slides),
        unmatched=tuple(sources.unmatched),
        unlabelled=tuple(store.path for store in opened if store.path not in labelled),
        lookalikes=tuple(find_lookalikes({**dict.fromkeys(expected, 0), **counts}, expected)),
        problems=tuple(problems), notes=tuple(notes),
    )  # fmt: skip


def _label_slide(
    store: SlideStore, drawn: Sequence[LabelFile], listed: WindowLabels | None,
    tissue: NDArray[np.bool_], classes: Sequence[str], config: LabelConfig, problems: list[str],
    notes: list[str],
) -> SlideLabels:  # fmt: skip
    """Label the tiles of one slide from its drawings and tables; add to `problems` and `notes`."""
    before = len(problems)
    marks = _place_marks(store, drawn, classes, config, problems, notes)
    counted = _of_classes(marks, classes, config)
    layers = stack_layers(counted, classes, config.map)
    windows = label_windows(layers, store.grid, tissue, config)
    if drawn and not len(windows.labels) and len(problems) == before:
        problems.append(
            f"{drawn[0].path}: no tissue of {store.path.stem} is annotated"
            + "".join(f"; {note}" for file in drawn for note in file.drawn.notes)
        )
    notes += report_unseen(store, layers, windows, classes)
    notes += report_outlying(store, counted, windows, config)
    notes += report_contradictions(counted, config)
    counts = Counter(classify(mark.name, config.map)[1] for mark in marks)
    return SlideLabels(
        store, tuple(file.path for file in drawn), _merge(windows, listed, store), layers,
        tuple(counts[name] for name in classes), patient="",
    )  # fmt: skip


# -- classes -------------------------------------------------------------------------------------


def _count_names(files: LabelFiles, classes: Sequence[str], config: LabelConfig) -> Counter[str]:
    """Count how often each class is named, by people or our maps, after the mapping."""
    counts = Counter[str]()
    for mark in list_marks(files):
        kind, name = classify(mark.name, config.map, classes)
        counts[name] += kind == "class"
    return +counts


def _name_mapped(files: LabelFiles, config: LabelConfig) -> set[str]:
    """Return the classes that have their names from our maps, which makes no typing errors."""
    states = ("checked", "deleted")
    kinds = (classify(m.name, config.map) for m in list_marks(files) if m.state in states)
    return {name for kind, name in kinds if kind == "class"}


def _name_listed(sources: Sources) -> Iterator[str]:
    """Yield the classes that tables of tiles name."""
    for path in sources.tables:
        # Invalid tables are reported when they are read.
        with suppress(DataError):
            yield from name_tile_classes(path)


def _check_names(files: LabelFiles, classes: Sequence[str], config: LabelConfig) -> list[str]:
    """Report classes in files that are none of `classes`; those of our maps may be."""
    problems = []
    for of_slide in files.values():
        for path, drawn, _ in of_slide:
            kinds = [classify(mark.name, config.map, classes) for mark in drawn.marks]
            unknown = sorted({name for kind, name in kinds if kind == "class"} - set(classes))
            if unknown:
                problems.append(
                    f"{path}: unknown class {unknown}; known are {', '.join(classes)}; rename it "
                    f"with {format_map({unknown[0]: '...'})} or leave it out with "
                    f"{format_map({unknown[0]: ''})}"
                )
    return problems


def _of_classes(marks: Sequence[Mark], classes: Sequence[str], config: LabelConfig) -> list[Mark]:
    kinds = [(mark, *classify(mark.name, config.map, classes)) for mark in marks]
    return [mark for mark, kind, name in kinds if kind != "class" or name in classes]


# -- places --------------------------------------------------------------------------------------


def _place_marks(
    store: SlideStore, drawn: Sequence[LabelFile], classes: Sequence[str],
    config: LabelConfig, problems: list[str], notes: list[str],
) -> list[Mark]:  # fmt: skip
    """Return what a slide's files mark on it in raster pixels."""
    placed: list[Mark] = []
    for path, one, marks in drawn:
        notes += [*one.notes, *report_names(path, one, classes, config)]
        mpp = float(store.slide["mpp"][0])
        if one.mpp is not None and abs(one.mpp / mpp - 1) > _SAME_MPP:
            problems.append(
                f"{path}: was drawn at {one.mpp:g} µm/px, the slide has {mpp:g}: it belongs to "
                f"another slide or magnification"
            )
            continue
        if one.size is not None and (other := _check_size(one.size, store)):
            problems.append(f"{path}: {other}")
            continue
        place = place_of(store, config, one.origin)
        moved = [replace(mark, geometry=to_raster(mark.geometry, place)) for mark in marks]
        placed += _keep_inside(path, moved, store, problems, notes)
    return placed


def _keep_inside(
    path: Path, marks: Sequence[Mark], store: SlideStore, problems: list[str], notes: list[str]
) -> list[Mark]:
    """Return the parts of marks that lie on the slide, in raster pixels; report the others."""
    width, height = store.grid.width, store.grid.height
    frame, near = shapely.box(0, 0, width, height), shapely.box(-1, -1, width + 1, height + 1)
    parts = [(mark, _cut(mark.geometry, frame)) for mark in marks]
    inside = [replace(mark, geometry=part) for mark, part in parts if not part.is_empty]
    if marks and not inside:
        problems.append(
            f"{path}: all {len(marks)} labels lie outside the slide: they belong to "
            f"another slide, or use another magnification or origin (labels.origin)"
        )
        return []
    outside = [mark for mark, part in parts if part.is_empty]
    across = [m for m, part in parts if not part.is_empty and not near.covers(m.geometry)]
    notes += report_marks(outside, "lies outside the slide and was skipped")
    notes += report_marks(across, "reaches beyond the slide and was cut there")
    return inside


def _cut(shape: BaseGeometry, frame: BaseGeometry) -> BaseGeometry:
    """Cut an area or points to a frame; empty if they lie outside or only touch it."""
    if frame.covers(shape):
        return shape
    if "Point" in shape.geom_type:
        return shapely.intersection(shape, frame)
    return cast(BaseGeometry, intersect(shapely.make_valid(shape), frame))


def _check_size(drawn: tuple[float, float], store: SlideStore) -> str:
    """Report an image of the slide's proportions in another size; cropped images are accepted."""
    width, height = store.slide["bounds"][2:]
    across, down = drawn[0] / width, drawn[1] / height
    if abs(across / down - 1) > _SAME_MPP or abs(across - 1) <= _SAME_MPP:
        return ""
    return (
        f"was drawn on an image of {drawn[0]:g} x {drawn[1]:g} px, the slide has {width:g} x "
        f"{height:g}: it has another magnification; open the same file in QuPath"
    )


# -- tables of tiles -----------------------------------------------------------------------------


def _read_tables(
    sources: Sources, stores: Sequence[SlideStore], names: Names,
    tissue: Sequence[NDArray[np.bool_]], classes: Sequence[str], config: LabelConfig,
    problems: list[str],
) -> dict[int, WindowLabels]:  # fmt: skip
    """Read the tiles that tables label, by number of the store."""
    rows: dict[int, list[tuple[tuple[int, int], tuple[int, ...]]]] = {}
    for path in sources.tables:
        try:
            for at, tile, label in read_tile_table(
                path, stores, names, tissue, classes, config, problems
            ):
                rows.setdefault(at, []).append((tile, label))
        except DataError as error:
            problems.append(str(error))
    whole = np.ones((CELLS, CELLS), bool)
    return {
        at: gather_windows(
            [
                ((box.y, box.x), label, 1, whole, False)
                for box, label in ((stores[at].grid.tile_box(*t), label) for t, label in tiles)
            ],
            len(classes),
        )
        for at, tiles in rows.items()
    }


def _merge(drawn: WindowLabels, listed: WindowLabels | None, store: SlideStore) -> WindowLabels:
    """Merge both; drawn labels take precedence over a table's label of the same tile."""
    if listed is None or not len(drawn.labels):
        return drawn if listed is None else listed
    taken = drawn.tiles(store.grid)
    places = (listed.corners // store.grid.stride).tolist()
    is_new = np.array([tuple(tile) not in taken for tile in places], bool)
    return WindowLabels(
        np.concatenate([drawn.corners, listed.corners[is_new]]),
        np.concatenate([drawn.labels, listed.labels[is_new]]),
        np.concatenate([drawn.weights, listed.weights[is_new]]),
        np.concatenate([drawn.known, listed.known[is_new]]),
        np.concatenate([drawn.corrected, listed.corrected[is_new]]),
    )
