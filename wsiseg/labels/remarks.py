"""Remarks on labels: what was skipped, and what was drawn and teaches nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import shapely

from wsiseg.config import LabelConfig
from wsiseg.labels.corrections import name_in_run
from wsiseg.labels.layers import Layers, WindowLabels
from wsiseg.labels.mark import Drawn, Mark, classify
from wsiseg.labels.names import format_map
from wsiseg.store import SlideStore

__all__ = [
    "report_contradictions",
    "report_marks",
    "report_names",
    "report_outlying",
    "report_unseen",
]

_CHECKED = ("checked", "checked area")
"""Names, in lower case, that lack the asterisk of ``Checked*``."""
_SAME = 0.9
"""Intersection over union from which two areas are one that was drawn twice."""


def report_names(
    path: Path, drawn: Drawn, classes: Sequence[str], config: LabelConfig
) -> Iterator[str]:
    """Report names that may have been meant as classes and are none, or the reverse."""
    kinds = {classify(mark.name, config.map, classes) for mark in drawn.marks}
    starred = {name for kind, name in kinds if kind == "nothing" and name} - {"Region*"}
    if starred:
        yield (
            f"{path}: {sorted(starred)} are skipped, as their names end in '*'; only Ignore* "
            f"is cut out"
        )
    ignored = {name for kind, name in kinds if kind == "ignored" and "*" not in name} - {"Ignore"}
    if ignored:
        yield (
            f"{path}: {sorted(ignored)} are left out, as their names begin with Ignore; rename "
            f"what is a class with {format_map({min(ignored): '...'})}"
        )
    checked = {name for kind, name in kinds if kind == "class" and name.lower() in _CHECKED}
    if checked:
        yield (
            f"{path}: {sorted(checked)} are taken for classes; if these areas were checked, use "
            f"{format_map({min(checked): 'Checked*'})}"
        )


def report_marks(marks: Sequence[Mark], what: str) -> Iterator[str]:
    """Say of the first mark what happened to it, and to how many more."""
    if marks:
        more = len(marks) - 1
        yield f"{marks[0].where} {what}" + (f", as were {more} more" if more else "")


def report_unseen(
    store: SlideStore, layers: Layers, windows: WindowLabels, classes: Sequence[str]
) -> Iterator[str]:
    """Report classes that were drawn, but that no window shows."""
    for at, name in enumerate(classes):
        if (
            layers.classes[at].area
            and len(windows.labels)
            and not (windows.labels[:, at] == 1).any()
        ):
            yield (
                f"{store.path.stem}: {name} was drawn, but no window shows it: what was drawn lies "
                f"where no tissue was found (tissue/{name_in_run(store)}.geojson can be edited), "
                f"or covers too little of it (labels.class_fraction)"
            )


def report_outlying(
    store: SlideStore, marks: Sequence[Mark], windows: WindowLabels, config: LabelConfig
) -> Iterator[str]:
    """Report drawn areas in which no window lies, of classes that windows elsewhere show."""
    y, x = windows.corners.T
    tree = shapely.STRtree(shapely.box(x, y, x + store.grid.tile, y + store.grid.tile))
    areas = defaultdict[str, list[Mark]](list)
    for mark, name in _areas(marks, config):
        areas[name].append(mark)
    lost = []
    for own in areas.values():
        hits, _ = tree.query([mark.geometry for mark in own], "intersects")
        missed = [mark for at, mark in enumerate(own) if at not in hits]
        lost += missed if len(missed) < len(own) else []  # else the class itself is reported
    yield from report_marks(lost, "lies where no tissue was found, and teaches nothing")


def report_contradictions(marks: Sequence[Mark], config: LabelConfig) -> Iterator[str]:
    """Report areas that are drawn twice, with different classes.

    Areas that overlap otherwise are meant: an area may lie within another. So is what corrects
    another: it counts instead.
    """
    areas = list(_areas(marks, config))
    shapes = np.array([mark.geometry for mark, _ in areas], object)
    names, states = np.array([(name, mark.state) for mark, name in areas]).reshape(-1, 2).T
    sizes = shapely.area(shapes)
    first, second = shapely.STRtree(shapes).query(shapes)  # their boxes
    smaller, larger = np.sort([sizes[first], sizes[second]], axis=0)
    near = (first < second) & (smaller > _SAME * larger)
    near &= (names[first] != names[second]) & (states[first] == states[second])
    first, second = first[near], second[near]
    shared = shapely.area(shapely.intersection(shapes[first], shapes[second]))
    same = shared > _SAME * (sizes[first] + sizes[second] - shared)
    if same.any():
        known = areas[first[same][0]][0]
        what = f"covers what {known.where} gives another class: both are learned, so delete one"
        yield from report_marks([areas[at][0] for at in np.unique(second[same])], what)


def _areas(marks: Sequence[Mark], config: LabelConfig) -> Iterator[tuple[Mark, str]]:
    """Yield the areas that show a class, and its name."""
    for mark in marks:
        kind, name = classify(mark.name, config.map)
        if kind == "class" and mark.geometry.area and mark.state != "deleted":
            yield mark, name
