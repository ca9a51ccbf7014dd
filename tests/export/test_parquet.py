import json
import sys

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely

from wsiseg.annotations import PALETTES, Annotations
from wsiseg.errors import MissingDependencyError
from wsiseg.export import export_parquet, parquet
from wsiseg.qupath import write_geojson


def test_geopandas_reads_the_same_regions(annotations, tmp_path):
    path = export_parquet(annotations, tmp_path / "sub" / "one.parquet")
    table = geopandas.read_parquet(path)
    assert table.crs is None
    assert list(table.columns) == ["id", "class", "area_um2", "mean_confidence", "geometry"]
    assert len(table) == len(annotations.regions) > 20
    per_px = np.prod(annotations.scale)
    for row, region in zip(table.itertuples(), annotations.regions, strict=True):
        assert row[2] == annotations.palette.names[region.label]
        assert row.area_um2 == annotations.area_um2(region)
        assert row.mean_confidence == region.confidence
        assert row.geometry.area == pytest.approx(region.area_px * per_px)
        shell = region.exterior * annotations.scale - np.array(annotations.origin)
        np.testing.assert_array_equal(shapely.get_coordinates(row.geometry.exterior), shell)
        assert len(row.geometry.interiors) == len(region.holes)
    assert table.geometry.is_valid.all()
    boxes = [list(box.values()) for box in pq.read_table(path)["bbox"].to_pylist()]
    np.testing.assert_array_equal(table.geometry.bounds.to_numpy(), boxes)


def test_a_window_reads_only_what_lies_there(annotations, tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_GROUP_POINTS", 100)
    path = export_parquet(annotations, tmp_path / "one.parquet")
    assert pq.ParquetFile(path).num_row_groups > 3
    whole = geopandas.read_parquet(path)
    window = (500, 500, 900, 1200)
    part = geopandas.read_parquet(path, bbox=window)
    assert 0 < len(part) < len(whole)
    assert list(part["id"]) == list(whole["id"][whole.envelope.intersects(shapely.box(*window))])


def test_ids_are_those_of_the_geojson(annotations, tmp_path):
    features = json.loads(write_geojson(annotations, tmp_path / "a.geojson").read_bytes())
    table = pq.read_table(export_parquet(annotations, tmp_path / "a.parquet"))
    assert table["id"].to_pylist() == [feature["id"] for feature in features["features"]]


def test_the_metadata_says_where_it_lies(annotations, tmp_path):
    path = export_parquet(annotations, tmp_path / "one.parquet")
    metadata = pq.read_schema(path).metadata
    geo, facts = json.loads(metadata[b"geo"]), json.loads(metadata[b"wsiseg"])
    assert (geo["version"], geo["columns"]["geometry"]["crs"]) == ("1.1.0", None)
    assert facts["origin"] == [40, 30]
    assert facts["scale"] == [2.0, 1.6]
    assert facts["provenance"]["labels"] == "5e" * 32


def test_no_regions_and_the_same_bytes(annotations, tmp_path):
    empty = Annotations("a.svs", PALETTES["bcss"], (), (1.0, 1.0), 0.5)
    assert len(geopandas.read_parquet(export_parquet(empty, tmp_path / "e.parquet"))) == 0
    first = export_parquet(annotations, tmp_path / "a.parquet").read_bytes()
    assert export_parquet(annotations, tmp_path / "b.parquet").read_bytes() == first


def test_without_pyarrow(annotations, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'wsiseg\[parquet\]'"):
        export_parquet(annotations, tmp_path / "a.parquet")
    assert list(tmp_path.iterdir()) == []
