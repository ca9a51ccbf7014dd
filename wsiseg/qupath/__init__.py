"""Annotations to and from QuPath: GeoJSON written, read and linted, and the import script.

QuPath refuses a whole file for one bad feature, so the rules of its importer are here, each with a
name (`rules.py`, `shapes.py`), and what is written is checked against them first.
"""

from wsiseg.qupath.export import Export, export_geojson
from wsiseg.qupath.lint import Finding, lint_geojson
from wsiseg.qupath.read import Feature, read_geojson
from wsiseg.qupath.script import write_import_script
from wsiseg.qupath.write import identify_regions, write_geojson

__all__ = [
    "Export",
    "Feature",
    "Finding",
    "export_geojson",
    "identify_regions",
    "lint_geojson",
    "read_geojson",
    "write_geojson",
    "write_import_script",
]
