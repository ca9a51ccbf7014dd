"""Corrections that the page orders: each is applied, saved and described."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import shapely

from wsiseg.annotations import Palette
from wsiseg.errors import DataError
from wsiseg.view.answers import describe_feature
from wsiseg.view.corrections import Change
from wsiseg.view.earlier import Earlier
from wsiseg.view.features import (
    CHECKED,
    IGNORED,
    Feature,
    check_new_class,
    extend_palette,
    make_area,
    make_feature,
    rename_area,
)
from wsiseg.view.library import OutdatedMapError, Shown
from wsiseg.view.regions import Region

__all__ = ["correct"]


def correct(
    shown: Shown, order: Any, earlier: Earlier, *, outdated: bool = False
) -> dict[str, Any]:
    """Apply and save a correction from the page, and return what changed.

    Parameters
    ----------
    earlier
        Whose corrections may be kept.
    outdated
        Whether the page shows a map that was replaced: drawn areas are saved, of its classes, too.

    Raises
    ------
    DataError
        If the order is malformed, or names a class or region that does not exist.
    OutdatedMapError
        If it is about a map that was replaced, or a region of it.
    """
    return {**_describe(shown, _apply(shown, order, earlier, outdated)), "outdated": outdated}


def _apply(shown: Shown, order: Any, earlier: Earlier, outdated: bool) -> Change:
    action = order.get("action") if isinstance(order, dict) else None
    if outdated and action in ("reclassify", "delete"):
        raise OutdatedMapError("the map was made again, and is shown anew; choose its region")
    if outdated and action == "check":
        raise OutdatedMapError("the map was made again, and is shown anew; check that one")
    if outdated and action == "draw":
        order = {**order, "new": True}
    if action == "undo":
        return shown.corrections.undo(str(order.get("change")))
    if action == "remove":
        return shown.corrections.remove(str(order.get("id")))
    if action == "rename":
        return _rename(shown, order)
    if action == "keep":
        return shown.corrections.add(earlier.copies(shown, _ids_of(order)))
    makers: dict[str, Callable[[Shown, dict[str, Any]], Feature]] = {
        "reclassify": _reclassify, "delete": _delete, "draw": _draw, "check": _check,
    }  # fmt: skip
    if not isinstance(action, str) or action not in makers:
        raise DataError(f"no action is named {str(action)[:40]!r}")
    return shown.corrections.put(makers[action](shown, order))


def _describe(shown: Shown, change: Change) -> dict[str, Any]:
    edits = [
        {"id": one, "feature": None if after is None else describe_feature(shown, after)}
        for one, _, after in change.edits
    ]
    return {"edits": edits, "change": change.id, "was": change.was, "version": change.version}


def _rename(shown: Shown, order: dict[str, Any]) -> Change:
    name = _class_of(shown, order)
    palette = _palette_for(shown, name)
    return shown.corrections.update(
        str(order.get("id")), lambda area: rename_area(area, name, palette)
    )


def _reclassify(shown: Shown, order: dict[str, Any]) -> Feature:
    region, name = _region_of(shown, order), _class_of(shown, order)
    shape, palette = shown.regions.geometry(region.index), _palette_for(shown, name)
    return make_feature("reclassified", shape, name, palette, region.id, region.class_name)


def _delete(shown: Shown, order: dict[str, Any]) -> Feature:
    region = _region_of(shown, order)
    shape = shown.regions.geometry(region.index)
    return make_feature("deleted", shape, IGNORED, _palette_of(shown), region.id, region.class_name)


def _draw(shown: Shown, order: dict[str, Any]) -> Feature:
    name = _class_of(shown, order)
    return make_feature("drawn", _area_of(shown, order), name, _palette_for(shown, name))


def _check(shown: Shown, order: dict[str, Any]) -> Feature:
    area = _area_of(shown, order)
    if not shown.scene.labelled:
        raise DataError("there is no map that could be right: draw areas, or wait for the map")
    digest = shown.regions.facts.get("labels")
    return make_feature("checked", area, CHECKED, _palette_of(shown), of_map=digest)


def _palette_of(shown: Shown) -> Palette:
    return shown.scene.palette.classes


def _palette_for(shown: Shown, name: str) -> Palette:
    """Return the palette for a correction of class `name`, which the map may not have."""
    palette = _palette_of(shown)
    if name in palette.names:
        return palette
    return extend_palette(palette, shown.corrections.features())


def _class_of(shown: Shown, order: dict[str, Any]) -> str:
    palette, name = _palette_of(shown), order.get("class")
    if name in palette.names:
        return str(name)
    if order.get("new") is True:
        return check_new_class(name, palette)
    raise DataError(f"no class is named {str(name)[:80]!r}; there are {list(palette.names)}")


def _region_of(shown: Shown, order: dict[str, Any]) -> Region:
    region = shown.regions.find(str(order.get("region")))
    if region is None:
        raise DataError("no region has that id; the map may have changed: load it again")
    return region


def _ids_of(order: dict[str, Any]) -> list[str]:
    ids = order.get("ids")
    if not isinstance(ids, list) or not ids or not all(isinstance(one, str) for one in ids):
        raise DataError("give the ids of the earlier corrections to keep")
    return ids


def _area_of(shown: Shown, order: dict[str, Any]) -> shapely.Geometry:
    scene = shown.scene
    shape = make_area(order.get("points"), (scene.size.width, scene.size.height))
    return shapely.transform(shape, lambda at: np.column_stack(shown.to_file(at[:, 0], at[:, 1])))
