"""Read labels made by people, and find the windows of a slide that they label.

A label is 1, 0 or NaN; what nobody looked at is unknown.
"""

from wsiseg.labels.corrections import keep_corrected, name_in_run
from wsiseg.labels.labelling import Labelling, SlideLabels, label_slides
from wsiseg.labels.layers import Layers, WindowLabels, gather_windows
from wsiseg.labels.names import parse_map
from wsiseg.labels.raster import draw_area
from wsiseg.labels.stores import find_stores
from wsiseg.labels.table import gather_labels, read_label_table

__all__ = [
    "Labelling",
    "Layers",
    "SlideLabels",
    "WindowLabels",
    "draw_area",
    "find_stores",
    "gather_labels",
    "gather_windows",
    "keep_corrected",
    "label_slides",
    "name_in_run",
    "parse_map",
    "read_label_table",
]
