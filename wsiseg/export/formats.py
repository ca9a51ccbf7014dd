"""The formats by name: which file each writes, and where a run writes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from wsiseg.annotations import Annotations
from wsiseg.config import ExportConfig, ExportFormat
from wsiseg.errors import ConfigError
from wsiseg.export.coco import export_coco
from wsiseg.export.draw import own_size
from wsiseg.export.masks import export_masks, export_png
from wsiseg.export.ome import export_ome_tiff
from wsiseg.export.parquet import export_parquet, require_pyarrow
from wsiseg.qupath import export_geojson
from wsiseg.store import SlideStore

__all__ = ["check_formats", "check_vacant", "export_slide", "infer_format", "place_of"]

_SUFFIXES: dict[str, ExportFormat] = {
    ".geojson": "geojson", ".json": "geojson", ".geojson.gz": "geojson", ".json.gz": "geojson",
    ".ome.tiff": "ome-tiff", ".ome.tif": "ome-tiff", ".tiff": "ome-tiff", ".tif": "ome-tiff",
    ".parquet": "parquet", ".geoparquet": "parquet",
    ".png": "png",
}  # fmt: skip
_PLACES: dict[ExportFormat, str] = {
    "ome-tiff": "ome-tiff/{}.ome.tiff",
    "parquet": "parquet/{}.parquet",
    "png": "png/{}.png",
    "masks": "masks/{}",
    "coco": "coco/{}",
}
"""Paths below the output folder; GeoJSON has its own rules."""


def infer_format(path: str | Path) -> ExportFormat:
    """Infer the format from the end of a file's name.

    Raises
    ------
    ConfigError
        If it belongs to no format.
    """
    name = Path(path).name.lower()
    for suffix, kind in _SUFFIXES.items():
        if name.endswith(suffix):
            return kind
    raise ConfigError(
        f"{path}: its name does not say which format; end it in {', '.join(_SUFFIXES)}, or give "
        f"--format masks or coco, which write folders"
    )


def export_slide(
    store: SlideStore,
    outline: Callable[[], Annotations],
    path: str | Path,
    kind: ExportFormat,
    config: ExportConfig,
    workers: int | None = None,
) -> tuple[Path, tuple[str, ...]]:
    """Write one slide in one format to `path`: a folder for ``masks`` and ``coco``, else a file.

    `outline` returns the slide's regions; it is called only for formats that contain them.

    Returns
    -------
    Where it was written: `path`, unless GeoJSON is too large for it; and notes for the user.
    """
    match kind:
        case "geojson":
            annotations = outline()
            written = export_geojson(annotations, path, config)
            change = annotations.provenance.get("area_error")
            note = (f"areas changed by {change}",) if change else ()
            return written.path, (*written.notes, *note)
        case "ome-tiff":
            export_ome_tiff(store, path, compression=config.tiff_compression, workers=workers)
        case "parquet":
            export_parquet(outline(), path)
        case "png":
            regions = outline()
            size = own_size(store, regions)
            export_png(regions, size, path, config.mask_mpp or store.mpp)
        case "masks":
            regions = outline()
            size = own_size(store, regions)
            export_masks(regions, size, path, config.mask_mpp or store.mpp, workers)
        case "coco":
            export_coco(
                store, outline(), path, tile=config.coco_tile, images=config.coco_images,
                workers=workers,
            )  # fmt: skip
    return Path(path), ()


def check_vacant(path: str | Path, kind: ExportFormat) -> None:
    """Check that an export to `path`, given by the user, would replace nothing.

    GeoJSON has its own rules: `wsiseg.qupath.export_geojson` recognises wsiseg's files.

    Raises
    ------
    ConfigError
        If it is a file, or a folder that is not empty.
    """
    path = Path(path)
    occupied = any(path.iterdir()) if path.is_dir() else path.exists()
    if kind != "geojson" and occupied:
        raise ConfigError(
            f"{path}: exists, and would be replaced; give --overwrite, or another name"
        )


def check_formats(config: ExportConfig) -> None:
    """Check that `config.formats` can be written, before the work begins.

    Raises
    ------
    MissingDependencyError
        If a format's package is not installed.
    """
    if "parquet" in config.formats:
        require_pyarrow()


def place_of(kind: ExportFormat, name: str) -> str:
    """Return where a run writes the slide `name`, relative to its output folder."""
    return _PLACES[kind].format(name)
