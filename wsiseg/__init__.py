"""Tissue maps of whole slides from patch labels: tile, segment with ConStruct, stitch, outline.

>>> import wsiseg
>>> results = wsiseg.annotate("slide.svs", "out")  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from wsiseg.version import __version__ as __version__

if TYPE_CHECKING:
    from wsiseg.config import Config, load_config
    from wsiseg.export import (
        export_coco,
        export_masks,
        export_ome_tiff,
        export_parquet,
        export_png,
    )
    from wsiseg.labels import label_slides
    from wsiseg.learn import learn_model
    from wsiseg.outline import outline_regions
    from wsiseg.predict import predict_tiles
    from wsiseg.qupath import (
        from_feature_collection,
        lint_geojson,
        to_feature_collection,
        write_geojson,
    )
    from wsiseg.run import SlideResult, annotate
    from wsiseg.slide import open_slide
    from wsiseg.stitch import stitch_labels
    from wsiseg.store import SlideStore, check_store
    from wsiseg.suggest import suggest_places
    from wsiseg.tile import tile_slide
    from wsiseg.train import train_model

_HOME = {
    "Config": "wsiseg.config",
    "SlideResult": "wsiseg.run",
    "SlideStore": "wsiseg.store",
    "annotate": "wsiseg.run",
    "check_store": "wsiseg.store",
    "export_coco": "wsiseg.export",
    "export_masks": "wsiseg.export",
    "export_ome_tiff": "wsiseg.export",
    "export_parquet": "wsiseg.export",
    "export_png": "wsiseg.export",
    "from_feature_collection": "wsiseg.qupath",
    "label_slides": "wsiseg.labels",
    "learn_model": "wsiseg.learn",
    "lint_geojson": "wsiseg.qupath",
    "load_config": "wsiseg.config",
    "open_slide": "wsiseg.slide",
    "outline_regions": "wsiseg.outline",
    "predict_tiles": "wsiseg.predict",
    "stitch_labels": "wsiseg.stitch",
    "suggest_places": "wsiseg.suggest",
    "tile_slide": "wsiseg.tile",
    "to_feature_collection": "wsiseg.qupath",
    "train_model": "wsiseg.train",
    "write_geojson": "wsiseg.qupath",
}

__all__ = [
    "Config",
    "SlideResult",
    "SlideStore",
    "annotate",
    "check_store",
    "export_coco",
    "export_masks",
    "export_ome_tiff",
    "export_parquet",
    "export_png",
    "from_feature_collection",
    "label_slides",
    "learn_model",
    "lint_geojson",
    "load_config",
    "open_slide",
    "outline_regions",
    "predict_tiles",
    "stitch_labels",
    "suggest_places",
    "tile_slide",
    "to_feature_collection",
    "train_model",
    "write_geojson",
]


def __getattr__(name: str) -> Any:
    # Public names load their module on first use, so that `import wsiseg` stays light.
    if name not in _HOME:
        raise AttributeError(f"module 'wsiseg' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value
