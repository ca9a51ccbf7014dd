"""Convert batches of GeoJSON geometries to shapely, and report what is wrong with each.

Coordinates are rounded to `DECIMALS`, as QuPath does, before anything is checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import shapely
import shapely.geometry
from numpy.typing import NDArray
from shapely.errors import ShapelyError

from wsiseg.errors import GeoJsonError
from wsiseg.qupath.form.document import GEOMETRY_TYPES

__all__ = [
    "DECIMALS",
    "LARGEST",
    "Problem",
    "are_flat",
    "build_polygons",
    "build_shapes",
    "judge_polygons",
    "mend_shape",
    "ring_array",
]

DECIMALS = 2
"""QuPath snaps coordinates to 0.01 px since 0.6."""


LARGEST = 1e9
"""Largest coordinate in px: far beyond any slide, yet products of coordinates stay finite."""
_SIZE_ADVICE = f"a coordinate is not a number, or beyond {LARGEST:.0e} px"
_EMPTY = "is empty, as QuPath 0.5 writes a rectangle without area; it loads as an empty object"


class Problem(NamedTuple):
    """One broken geometry rule."""

    which: int
    """Index of the geometry in its batch."""
    rule: str
    message: str


def build_polygons(
    points: NDArray[Any], ring_starts: NDArray[np.intp], ring_polygon: NDArray[np.intp]
) -> NDArray[np.object_]:
    """Build polygons from their rings in one call.

    Parameters
    ----------
    points : ``(N, 2)`` x, y of all rings, one after the other, each closed.
    ring_starts : ``(R,)`` index of each ring's first point.
    ring_polygon : ``(R,)`` the polygon of each ring, ascending; its first ring is the shell.
    """
    if len(ring_starts) == 0:
        return np.empty(0, object)
    rings = np.append(ring_starts, len(points))
    shells = np.flatnonzero(np.diff(ring_polygon, prepend=-1))
    # One call with ragged arrays is more than twice as fast as rings, then polygons.
    polygons: NDArray[np.object_] = shapely.from_ragged_array(
        shapely.GeometryType.POLYGON,
        np.ascontiguousarray(points, np.float64),
        (rings, np.append(shells, len(ring_starts))),
    )
    return polygons


def judge_polygons(polygons: NDArray[np.object_]) -> Iterator[Problem]:
    """Yield what QuPath would reject or drop among polygons with rounded coordinates."""
    flat = are_flat(polygons)
    for index in np.flatnonzero(flat):
        yield Problem(int(index), "zero-area", "has no area; QuPath makes an empty object of it")
    for index in np.flatnonzero(~flat & ~shapely.is_valid(polygons)):
        reason = str(shapely.is_valid_reason(polygons[index]))
        rule, advice = _explain(reason)
        yield Problem(int(index), rule, f"{advice} ({reason})")


def are_flat(polygons: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Return which shells enclose no area; lobes count, even if their signed areas cancel."""
    shells = shapely.polygons(shapely.get_exterior_ring(polygons))
    flat: NDArray[np.bool_] = shapely.area(shells) == 0
    lobes = shapely.make_valid(shells[flat], method="structure", keep_collapsed=False)
    flat[flat] = shapely.area(lobes) == 0
    return flat


def _explain(reason: str) -> tuple[str, str]:
    if reason.startswith("Self-intersection"):
        return "ring-crossing", "its outline crosses itself"
    if reason.startswith("Ring Self-intersection"):
        return "ring-touching", "its outline touches itself; QuPath cleans this"
    if reason.startswith("Hole lies outside"):
        return "hole-outside", "a hole lies outside its shell"
    return "invalid", "its rings do not form a polygon"


def mend_shape(shape: Any, grid: float = 10.0**-DECIMALS) -> list[Any]:
    """Make an invalid shape valid: return non-overlapping polygons on a grid.

    Raises
    ------
    GeoJsonError
        If no grid gives valid polygons.
    """
    whole = shapely.make_valid(shape, method="structure", keep_collapsed=False)
    for step in (grid, 10 * grid, 100 * grid):
        snapped = shapely.get_parts(shapely.set_precision(whole, step))
        parts = [part for part in snapped if part.geom_type == "Polygon" and part.area > 0]
        if not parts:
            return []  # nothing with an area
        rounded = list(shapely.transform(parts, lambda points: np.round(points, DECIMALS) + 0.0))
        if shapely.is_valid(shapely.multipolygons(rounded)):
            return rounded
    raise GeoJsonError(f"an outline cannot be made valid on a grid of {grid} px: {shape}")


def build_shapes(
    geometries: Sequence[dict[str, Any]],
) -> tuple[NDArray[np.object_], list[Problem]]:
    """Build shapely geometries, ``None`` where that fails, and list every broken rule.

    `geometries` are GeoJSON objects of any type; polygons of all of them are built together.
    """
    shapes = np.full(len(geometries), None, object)
    problems: list[Problem] = []
    batch = _Batch(problems)
    for index, geometry in enumerate(geometries):
        kind = geometry.get("type")
        if kind == "Polygon":
            batch.add(index, [geometry.get("coordinates")])
        elif kind == "MultiPolygon":
            batch.add_parts(index, geometry.get("coordinates"))
        elif kind in GEOMETRY_TYPES:
            shapes[index] = _build_simple(index, geometry, problems)
        else:
            problems.append(Problem(index, "geometry-type", _type_advice(kind)))
    batch.build(shapes, {i for i, g in enumerate(geometries) if g.get("type") == "MultiPolygon"})
    return shapes, sorted(problems)


def _type_advice(kind: Any) -> str:
    if kind == "GeometryCollection":
        return "is a GeometryCollection, which QuPath refuses since 0.6; write its parts separately"
    return f"has the geometry type {kind!r}; QuPath takes {', '.join(GEOMETRY_TYPES)}"


def _build_simple(index: int, geometry: dict[str, Any], problems: list[Problem]) -> Any:
    try:
        shape = shapely.geometry.shape(geometry)
        points = shapely.get_coordinates(shape)
    except (ArithmeticError, LookupError, TypeError, ValueError, ShapelyError) as error:
        problems.append(Problem(index, "coordinates", f"its coordinates are malformed ({error})"))
        return None
    if not (np.abs(points) <= LARGEST).all():
        problems.append(Problem(index, "coordinates", _SIZE_ADVICE))
        return None
    return shape


class _Batch:
    """Polygon parts of many geometries, collected to build them in one call."""

    def __init__(self, problems: list[Problem]) -> None:
        self._problems = problems
        self._rings: list[NDArray[np.float64]] = []
        self._ring_part: list[int] = []
        self._part_owner: list[int] = []

    def add_parts(self, index: int, parts: Any) -> None:
        """Add the parts of one MultiPolygon."""
        if not isinstance(parts, list) or not parts:
            self._refuse(index, "coordinates", "a MultiPolygon needs a list of polygons")
            return
        if len(parts) == 1:
            message = "is a MultiPolygon of one part, which crashes QuPath 0.5.1; write a Polygon"
            self._refuse(index, "one-part", message)
        self.add(index, parts)

    def add(self, index: int, parts: list[Any]) -> None:
        """Add the polygons of one geometry, unless one is malformed."""
        arrays: list[list[NDArray[np.float64]]] = []
        if all(part == [[]] for part in parts):
            self._refuse(index, "zero-area", _EMPTY)
            return
        for part in parts:
            if not isinstance(part, list) or not part:
                self._refuse(index, "coordinates", "a polygon needs a list of rings")
                return
            rings = [points for ring in part if (points := ring_array(ring)) is not None]
            if len(rings) < len(part):
                self._refuse(index, "coordinates", "a ring is not a list of [x, y] numbers")
                return
            arrays.append(rings)
        for rings in arrays:
            self._rings += rings
            self._ring_part += [len(self._part_owner)] * len(rings)
            self._part_owner.append(index)

    def build(self, shapes: NDArray[np.object_], multiple: set[int]) -> None:
        """Fill `shapes` with the polygons, and record what is wrong with them."""
        bad_owners = self._judge_rings()
        if not self._rings:
            return
        owners, parts = np.array(self._part_owner), np.array(self._ring_part)
        is_good = ~np.isin(owners[parts], list(bad_owners))
        rings = [ring for ring, keep in zip(self._rings, is_good, strict=True) if keep]
        if not rings:
            return
        used, renumbered = np.unique(parts[is_good], return_inverse=True)
        points = np.round(np.concatenate(rings), DECIMALS)
        lengths = np.array([len(ring) for ring in rings])
        polygons = build_polygons(points, np.cumsum(lengths) - lengths, renumbered)
        owner = owners[used]
        for problem in judge_polygons(polygons):
            self._refuse(int(owner[problem.which]), problem.rule, problem.message)
        single = ~np.isin(owner, list(multiple))
        shapes[owner[single]] = polygons[single]
        self._join_parts(shapes, polygons[~single], owner[~single])

    def _join_parts(
        self, shapes: NDArray[np.object_], parts: NDArray[np.object_], owner: NDArray[np.intp]
    ) -> None:
        if not len(parts):
            return
        owners, numbers = np.unique(owner, return_inverse=True)
        joined = shapely.multipolygons(parts, indices=numbers)
        shapes[owners] = joined
        broken = np.zeros(len(owners), bool)
        broken[numbers[~shapely.is_valid(parts)]] = True  # already reported for each part
        for index in np.flatnonzero(~broken & ~shapely.is_valid(joined)):
            reason = shapely.is_valid_reason(joined[index])
            self._refuse(int(owners[index]), "parts-overlap", f"its parts overlap ({reason})")

    def _judge_rings(self) -> set[int]:
        bad = set()
        for ring, part in zip(self._rings, self._ring_part, strict=True):
            problem = _judge_ring(ring)
            if problem is not None:
                bad.add(self._part_owner[part])
                self._refuse(self._part_owner[part], *problem)
        return bad

    def _refuse(self, index: int, rule: str, message: str) -> None:
        self._problems.append(Problem(index, rule, message))


def ring_array(ring: Any) -> NDArray[np.float64] | None:
    """Convert a JSON ring to ``(N, 2)`` x, y; None if it is not a list of positions."""
    try:
        points = np.array(ring, np.float64)
    except (ValueError, TypeError, OverflowError):
        points = _ragged_array(ring)
    if points.ndim != 2 or points.shape[1] < 2:
        return None
    return points[:, :2]


def _ragged_array(ring: Any) -> NDArray[np.float64]:
    """Convert positions of mixed length, some with z."""
    try:
        return np.array([position[:2] for position in ring], np.float64)
    except (KeyError, ValueError, TypeError, OverflowError):  # slices are keys from Python 3.12 on
        return np.empty(0)


def _judge_ring(ring: NDArray[np.float64]) -> tuple[str, str] | None:
    if len(ring) < 4:
        return "ring-short", f"a ring has {len(ring)} points; 4 are needed, the last as the first"
    if not (np.abs(ring) <= LARGEST).all():  # NaN fails this, too, and is not equal to itself
        return "coordinates", _SIZE_ADVICE
    if ring[0, 0] != ring[-1, 0] or ring[0, 1] != ring[-1, 1]:
        return "ring-open", "a ring's last point is not exactly its first"
    return None
