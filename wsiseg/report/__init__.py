"""Reports for people to read after a run: pictures, tables and HTML pages."""

from wsiseg.report.agreement import AGREEMENT
from wsiseg.report.changes import compare_runs, format_changes, write_changes
from wsiseg.report.labelled import write_labels
from wsiseg.report.measure import measure_classes
from wsiseg.report.overlay import write_overlay
from wsiseg.report.pictures import write_pictures
from wsiseg.report.tables import write_tables

__all__ = [
    "AGREEMENT",
    "compare_runs",
    "format_changes",
    "measure_classes",
    "write_changes",
    "write_labels",
    "write_overlay",
    "write_pictures",
    "write_tables",
]
