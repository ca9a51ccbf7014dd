"""Exchange annotations with QuPath: write, read, lint and repair GeoJSON, and write scripts.

QuPath rejects a whole file for one bad feature. So the rules of its importer are implemented here,
each with a name (`form/`), and all output is checked against them.
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
from wsiseg.qupath.read.origin import Origin, move_features, read_origin
from wsiseg.qupath.read.regions import from_feature_collection, read_annotations
from wsiseg.qupath.read.restore import restore_outlines
from wsiseg.qupath.scripts.fill import write_scripts
from wsiseg.qupath.write.export import Export, export_geojson
from wsiseg.qupath.write.geojson import identify_regions, to_feature_collection, write_geojson

__all__ = [
    "Export",
    "Feature",
    "Finding",
    "Origin",
    "Repair",
    "describe_left_out",
    "export_geojson",
    "fix_geojson",
    "from_feature_collection",
    "identify_regions",
    "lint_geojson",
    "move_features",
    "read_annotations",
    "read_facts",
    "read_geojson",
    "read_origin",
    "read_stamp",
    "restore_outlines",
    "to_feature_collection",
    "write_geojson",
    "write_scripts",
]
