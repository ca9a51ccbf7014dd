"""Exchange annotations with QuPath: write, read, lint and repair GeoJSON, and write scripts.

QuPath rejects a whole file for one bad feature. So the rules of its importer are implemented here,
each with a name (`rules.py`, `shapes.py`), and all output is checked against them.
"""

from wsiseg.qupath.export import Export, export_geojson
from wsiseg.qupath.finding import Finding, Repair
from wsiseg.qupath.fix import fix_geojson
from wsiseg.qupath.lint import lint_geojson
from wsiseg.qupath.read import Feature, describe_left_out, read_facts, read_geojson
from wsiseg.qupath.regions import read_annotations
from wsiseg.qupath.restore import restore_outlines
from wsiseg.qupath.script import write_scripts
from wsiseg.qupath.stamp import read_stamp
from wsiseg.qupath.write import identify_regions, write_geojson

__all__ = [
    "Export",
    "Feature",
    "Finding",
    "Repair",
    "describe_left_out",
    "export_geojson",
    "fix_geojson",
    "identify_regions",
    "lint_geojson",
    "read_annotations",
    "read_facts",
    "read_geojson",
    "read_stamp",
    "restore_outlines",
    "write_geojson",
    "write_scripts",
]
