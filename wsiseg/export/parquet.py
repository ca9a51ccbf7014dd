"""Export regions as GeoParquet 1.1, in row groups, for GeoPandas, DuckDB, QGIS and others."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray

from wsiseg.annotations import Annotations, Region
from wsiseg.atomic import open_atomic
from wsiseg.errors import MissingDependencyError
from wsiseg.qupath import identify_regions

__all__ = ["export_parquet", "require_pyarrow"]

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_GROUP_POINTS = 500_000  # vertices per row group, about 50 MB while it is built


def export_parquet(annotations: Annotations, path: str | Path) -> Path:
    """Write one row per region: id, class, area_um2, mean_confidence, geometry, bbox.

    Geometry is WKB in level-0 pixels from the annotations' origin, y down; ids are those of the
    GeoJSON. Origin, µm/px and provenance are in the file's metadata, under ``wsiseg``. Only one row
    group is in memory at a time.

    Returns
    -------
    `path`.

    Raises
    ------
    MissingDependencyError
        If pyarrow is not installed.
    """
    require_pyarrow()
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("id", pa.string()),
            ("class", pa.dictionary(pa.int32(), pa.string())),
            ("area_um2", pa.float64()),
            ("mean_confidence", pa.float64()),
            ("geometry", pa.binary()),
            ("bbox", pa.struct([(name, pa.float64()) for name in _CORNERS])),
        ],
        metadata=_describe(annotations),
    )
    names = pa.array(annotations.palette.names, pa.string())
    with (
        open_atomic(path) as file,
        pq.ParquetWriter(file, schema, compression="zstd") as table,
    ):
        for rows in _group(identify_regions(annotations)):
            regions, ids = zip(*rows, strict=True)
            polygons = _build_polygons(annotations, regions)
            corners = [pa.array(edge) for edge in shapely.bounds(polygons).T]
            labels = pa.array([region.label for region in regions], pa.int32())
            columns = [
                pa.array(ids),
                pa.DictionaryArray.from_arrays(labels, names),
                pa.array([annotations.area_um2(region) for region in regions]),
                pa.array([region.confidence for region in regions]),
                pa.array(shapely.to_wkb(polygons), pa.binary()),
                pa.StructArray.from_arrays(corners, _CORNERS),
            ]
            table.write_table(pa.Table.from_arrays(columns, schema=schema))
    return Path(path)


def require_pyarrow() -> None:
    """Check that GeoParquet can be written.

    Raises
    ------
    MissingDependencyError
        If pyarrow is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401  # only to see whether it is installed
    except ImportError as error:
        raise MissingDependencyError(
            "GeoParquet needs pyarrow: pip install 'wsiseg[parquet]'"
        ) from error


def _group(rows: Iterable[tuple[Region, str]]) -> Iterator[list[tuple[Region, str]]]:
    """Yield groups of rows that have enough vertices for a row group."""
    group, points = [], 0
    for row in rows:
        group.append(row)
        points += len(row[0].exterior) + sum(map(len, row[0].holes))
        if points >= _GROUP_POINTS:
            yield group
            group, points = [], 0
    if group:
        yield group


def _build_polygons(annotations: Annotations, regions: Sequence[Region]) -> NDArray[np.object_]:
    """Build polygons in level-0 pixels from the annotations' origin."""
    rings = [ring for region in regions for ring in (region.exterior, *region.holes)]
    points = np.concatenate(rings) * np.array(annotations.scale) - np.array(annotations.origin)
    ring_ends = np.cumsum([0, *(len(ring) for ring in rings)])
    region_ends = np.cumsum([0, *(1 + len(region.holes) for region in regions)])
    ends = ring_ends, region_ends
    return np.asarray(shapely.from_ragged_array(shapely.GeometryType.POLYGON, points, ends))


def _describe(annotations: Annotations) -> dict[str, str]:
    """Return the file's metadata: those that GeoParquet requires, and wsiseg's own."""
    covering = {"bbox": {name: ["bbox", name] for name in _CORNERS}}
    geometry = {
        "encoding": "WKB", "geometry_types": ["Polygon"], "crs": None, "edges": "planar",
        "covering": covering,
    }  # fmt: skip
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": geometry}}
    facts = {
        "slide": annotations.slide,
        "units": "level-0 pixels, y down",
        "origin": list(annotations.origin),
        "scale": annotations.scale,
        "mpp": annotations.mpp,
        "colors": dict(zip(annotations.palette.names, annotations.palette.colors, strict=True)),
        "provenance": annotations.provenance,
    }
    return {"geo": json.dumps(geo), "wsiseg": json.dumps(facts)}
