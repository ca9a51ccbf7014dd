"""Export label, confidence and probability rasters as one OME-TIFF."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsiseg.annotations import BACKGROUND, Palette
from wsiseg.export.pyramid import Compression, Picture, Plane, write_pyramids
from wsiseg.geometry import Box, Size
from wsiseg.store import SlideStore

__all__ = ["color_table", "describe_classes", "export_ome_tiff"]


def export_ome_tiff(
    store: SlideStore,
    path: str | Path,
    *,
    compression: Compression = "deflate",
    confidence: bool = True,
    workers: int | None = None,
) -> Path:
    """Write a store's rasters as a tiled, pyramidal OME-TIFF with the true µm/px.

    Image 0, ``classes``, holds labels as indexed colour: values are labels (255 is background),
    and viewers that support colour tables show the classes' colours (Fiji, libvips, OpenSlide;
    QuPath shows grey). Image 1, ``confidence``, is grey (255 is certain). Image 2,
    ``probabilities``, has a channel per class, in 255ths, if stitching kept them. Class names and
    colours are in the OME-XML, as key-value pairs.

    Raises
    ------
    StoreError
        If the store holds no labels, or stitching did not finish.
    """
    store.finished("stitch")
    boxes = [store.level_box(level) for level in range(len(store.pyramid_factors))]
    picture = partial(
        Picture, sizes=tuple(Size(box.width, box.height) for box in boxes), mpp=store.mpp,
        block=store.grid.block,
    )  # fmt: skip
    palette = store.palette
    notes = {"slide": _printable(str(store.slide["name"])), **describe_classes(palette)}
    labels = Plane("classes", lambda level, box: store.read_labels(box, level))
    pictures = [picture("classes", (labels,), palette=color_table(palette), notes=notes)]
    if confidence:
        certainty = Plane("confidence", lambda level, box: store.read_confidence(box, level))
        pictures.append(picture("confidence", (certainty,)))
    if store.has_probabilities:
        pictures.append(picture("probabilities", _probability_planes(store)))
    return write_pyramids(path, pictures, compression, workers)


def _probability_planes(store: SlideStore) -> tuple[Plane, ...]:
    """Return one channel per class, in the class's colour."""

    def read(label: int, level: int, box: Box) -> NDArray[np.uint8]:
        probability: NDArray[np.uint8] = store.read_probabilities(box, level)[label]
        return probability

    palette = store.palette.classes
    return tuple(
        Plane(_printable(name), partial(read, label), color)
        for label, (name, color) in enumerate(zip(palette.names, palette.colors, strict=True))
    )


def color_table(palette: Palette) -> NDArray[np.uint8]:
    """Return the RGB of each label, ``(256, 3)`` uint8; white for labels without a class."""
    table = np.full((256, 3), 255, np.uint8)
    table[: len(palette)] = palette.colors
    return table


def describe_classes(palette: Palette) -> dict[str, str]:
    """Describe each label: ``class 0`` is its name, ``color 0`` its colour as in HTML."""
    notes = {}
    for label, (name, color) in enumerate(zip(palette.names, palette.colors, strict=True)):
        notes[f"class {label}"] = _printable(name)
        notes[f"color {label}"] = "#{:02x}{:02x}{:02x}".format(*color)
    return notes | {f"class {BACKGROUND}": "background"}


def _printable(text: str) -> str:
    """Replace what XML cannot hold (control characters, surrogates) and all else not printable."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
