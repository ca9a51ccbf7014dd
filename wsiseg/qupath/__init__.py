"""Annotations to and from QuPath: GeoJSON written, read and linted, and the import script.

QuPath refuses a whole file for one bad feature, so the rules of its importer are here, each with a
name (`form/`), and what is written is checked against them first.
"""

from wsiseg.qupath.fix.file import fix_geojson
from wsiseg.qupath.form.finding import Finding, Repair
from wsiseg.qupath.form.stamp import read_stamp
from wsiseg.qupath.lint import lint_geojson
from wsiseg.qupath.read.features import (
    Feature,
    describe_left_out,
    read_facts,
    read_geojson,
)
from wsiseg.qupath.read.regions import from_feature_collection, read_annotations
from wsiseg.qupath.read.restore import restore_outlines
from wsiseg.qupath.scripts.fill import write_scripts
from wsiseg.qupath.write.export import Export, export_geojson
from wsiseg.qupath.write.geojson import identify_regions, to_feature_collection, write_geojson

__all__ = [
    "Export",
    "Feature",
    "Finding",
    "Repair",
    "describe_left_out",
    "export_geojson",
    "fix_geojson",
    "from_feature_collection",
    "identify_regions",
    "lint_geojson",
    "read_annotations",
    "read_facts",
    "read_geojson",
    "read_stamp",
    "restore_outlines",
    "to_feature_collection",
    "write_geojson",
    "write_scripts",
]
