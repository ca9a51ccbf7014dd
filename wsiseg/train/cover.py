"""How much of each tile lies in the annotations of each class: exact areas of polygons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from wsiseg.errors import GeoJsonError
from wsiseg.geometry import Box
from wsiseg.grid import TileGrid
from wsiseg.qupath import (
    Feature,
    Finding,
    describe_left_out,
    read_geojson,
    read_stamp,
    restore_outlines,
)

__all__ = ["ClassShapes", "read_class_shapes", "tile_cover"]

_REGION = "Region*"
"""QuPath's class for a region of interest."""

Affine = tuple[tuple[float, float], tuple[float, float]]
"""Origin ``(x, y)`` in level-0 px that the file calls (0, 0), and level-0 px a raster px."""


class ClassShapes(NamedTuple):
    """Annotations of one slide in raster pixels, overlaps of one class joined."""

    classes: tuple[Any, ...]
    """One shapely geometry a class, empty where there is none."""
    anything: Any
    """Their union."""
    notes: tuple[str, ...] = ()
    """A sentence for each kind of thing in the file that is no label and may be taken for one."""


def read_class_shapes(
    path: Path, classes: Sequence[str], place: Affine, problems: list[str],
    own: Sequence[Path] = (),
) -> ClassShapes:  # fmt: skip
    """Polygons of a GeoJSON file by class, in raster pixels.

    Polygons of the class ``Ignore*`` are cut out of the others. What has no class says nothing and
    is passed over; so does ``Region*``, with which QuPath marks where to look, and any other class
    whose name ends in ``*`` unless it is one of `classes`. Detections and cells, which nobody drew,
    are no labels either. The notes tell what was left out.

    Parameters
    ----------
    problems
        Takes in unknown classes, and a file that cannot be read.
    own
        Our own files of the slide, for what QuPath lost when it exported `path`.
    """
    left_out: list[Finding] = []
    try:
        features = read_geojson(path, left_out)
    except GeoJsonError as error:
        problems.append(str(error))
        features = []
    features = [feature for feature in features if _is_classified(feature)]
    features, restored = restore_outlines(features, list(_read_own(path, own, features)))
    drawn = [feature for feature in features if feature.object_type == "annotation"]
    ignored = [feature for feature in drawn if feature.is_ignored]
    named = [f for f in drawn if not f.is_ignored and not _is_passed_over(f, classes)]
    notes = tuple(_tell(drawn, len(features) - len(drawn), left_out, classes))
    if restored:
        notes += (f"{restored} outline(s) that QuPath exported in part are taken from {own[0]}",)
    unknown = sorted({str(f.class_name) for f in named} - set(classes))
    if unknown:
        problems.append(f"{path}: unknown class {unknown}; known are {', '.join(classes)}")
    hole = _join(ignored, place)
    shapes = [
        shapely.difference(_join([f for f in named if f.class_name == name], place), hole)
        for name in classes
    ]
    return ClassShapes(tuple(shapes), shapely.union_all(shapes), notes)


def _read_own(path: Path, own: Sequence[Path], features: Sequence[Feature]) -> Iterator[Feature]:
    """Those of our own regions that `features` bear the ids of."""
    ids = {feature.id for feature in features} - {None}
    for file in own if ids else ():
        if file.exists() and not file.samefile(path) and read_stamp(file) is not None:
            yield from (feature for feature in read_geojson(file) if feature.id in ids)


def _is_classified(feature: Feature) -> bool:
    shape = feature.geometry.geom_type in ("Polygon", "MultiPolygon")
    return feature.class_name is not None and shape


def _is_passed_over(feature: Feature, classes: Sequence[str]) -> bool:
    """Whether a class marks something else than tissue, as QuPath's names with ``*`` do."""
    name = str(feature.class_name)
    return name not in classes and name.partition(":")[0].strip().endswith("*")


def _tell(
    drawn: Sequence[Feature], n_detections: int, left_out: Sequence[Finding], classes: Sequence[str]
) -> Iterator[str]:
    """The notes of `ClassShapes`."""
    if left_out:
        yield describe_left_out(left_out)
    if n_detections:
        yield (
            f"{n_detections:,} detections or cells with a class are no labels, as nobody drew "
            f"them; those that you checked must be annotations (of wsiseg's own regions, export "
            f"with a higher --max-objects)"
        )
    marks = {str(f.class_name) for f in drawn if _is_passed_over(f, classes) and not f.is_ignored}
    if others := sorted(marks - {_REGION}):
        yield f"{others} are passed over, as their names end in '*'; only Ignore* is cut out"


def _join(features: Sequence[Feature], place: Affine) -> Any:
    origin, scale = (np.array(pair) for pair in place)
    shapes = [shapely.make_valid(feature.geometry) for feature in features]
    return shapely.transform(shapely.union_all(shapes), lambda points: (points + origin) / scale)


def tile_cover(shape: Any, grid: TileGrid) -> NDArray[np.float64]:
    """``(rows, cols)`` float64 in [0, 1]: the share of each tile's square that `shape` covers."""
    covered = np.zeros((grid.rows, grid.cols))
    parts = shapely.get_parts(shape)
    tree = shapely.STRtree(parts)
    for block in range(grid.n_blocks):
        tiles = np.array(list(grid.block_tiles(block))).reshape(-1, 2)
        if not len(tiles):
            continue
        boxes = [grid.tile_box(row, col) for row, col in tiles.tolist()]
        # First to the block, then to its tiles: an outline may have very many points.
        window = _rectangle(boxes[0], boxes[-1])
        near = shapely.intersection(parts[tree.query(window, predicate="intersects")], window)
        if len(near):
            squares = np.array([_rectangle(box, box) for box in boxes])
            inside = shapely.area(shapely.intersection(near[None], squares[:, None])).sum(1)
            covered[tuple(tiles.T)] = inside / grid.tile**2
    return covered


def _rectangle(first: Box, last: Box) -> Any:
    return shapely.box(first.x, first.y, last.right, last.bottom)
