"""The part of a store that holds the maps: labels, confidence and probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsiseg.annotations import Palette
from wsiseg.errors import StoreError
from wsiseg.geometry import Box
from wsiseg.store import layout
from wsiseg.store.levels import pyramid_of
from wsiseg.store.marks import Mark, is_optional
from wsiseg.store.opened import OpenedStore

__all__ = ["MapsPart"]


class MapsPart(OpenedStore):
    """Label and confidence rasters with their levels, and probabilities if requested."""

    def create_labels(self, palette: Palette) -> None:
        """Create the label and confidence pyramids, unless they exist with this palette."""
        self._check_current()
        plain_palette = layout.plain_palette(palette)
        labels = self._group.require_group("labels")
        names, levels = ("classes", "confidence"), range(len(self.levels.maps))
        needed = [f"labels/{name}/{level}" for name in names for level in levels]
        if labels.attrs.get("palette") == plain_palette and all(map(self._has_array, needed)):
            layout.describe_labels(labels, self.levels, palette, self.mpp)
            return
        self.clear_marks("stitch")
        labels.attrs["palette"] = {}  # so that half-made arrays do not count as complete
        self._forget("labels/")
        layout.lay_out_labels(labels, self.levels, palette, self.mpp)
        labels.attrs["palette"] = plain_palette

    @property
    def palette(self) -> Palette:
        """The palette of the labels."""
        plain_palette = (
            self._group["labels"].attrs.get("palette") if "labels" in self._group else None
        )
        if not plain_palette:
            raise StoreError(f"{self.path}: holds no labels; run `wsiseg stitch` first")
        return layout.palette_of(plain_palette)

    @property
    def pyramid_factors(self) -> tuple[int, ...]:
        """Down-sampling factor of each level of the maps: powers of two."""
        return self.levels.maps

    @property
    def block_levels(self) -> range:
        """Levels of the maps that are written by blocks; `wsiseg.pyramid` writes the rest."""
        return range(sum(map(self.levels.by_block, self.levels.maps)))

    def level_box(self, level: int) -> Box:
        """Return the whole raster in pixels of one level of the maps."""
        return self.levels.box(self.levels.maps[level])

    def write_labels(
        self, block: int, level: int, labels: NDArray[np.uint8], confidence: NDArray[np.uint8]
    ) -> None:
        """Write one block's labels and confidence ``(H, W)`` at one of `block_levels`."""
        self._write("stitch", f"labels/classes/{level}", block, labels)
        self._write("stitch", f"labels/confidence/{level}", block, confidence)

    def erase_labels(self, block: int) -> None:
        """Make one block background, by deleting its files."""
        names, levels = ("classes", "confidence"), self.block_levels
        self._erase("stitch", block, [f"labels/{name}/{i}" for name in names for i in levels])

    def read_labels(self, box: Box, level: int = 0) -> NDArray[np.uint8]:
        """Read labels ``(H, W)`` uint8 of a box of a level; background outside the raster."""
        return self._array(f"labels/classes/{level}").read(box)

    def read_confidence(self, box: Box, level: int = 0) -> NDArray[np.uint8]:
        """Read confidence ``(H, W)`` uint8 of a box of a level; 0 outside the raster."""
        return self._array(f"labels/confidence/{level}").read(box)

    @property
    def has_probabilities(self) -> bool:
        """Whether stitching stored the classes' probabilities."""
        return bool(self._probability_palette == layout.plain_palette(self.palette.classes))

    def create_probabilities(self) -> None:
        """Create the pyramid of the classes' probabilities, unless it exists for these labels."""
        if "probabilities" in self._group:
            self._group.require_group("probabilities")
        needed = [f"probabilities/{level}" for level in range(len(self.levels.maps))]
        if not self.has_probabilities or not all(map(self._has_array, needed)):
            self.clear_marks("stitch")
            self._forget("probabilities/")
            palette = self.palette.classes
            layout.lay_out_probabilities(self._group, self.levels, palette, self.mpp)

    def drop_probabilities(self) -> None:
        """Delete probabilities of an earlier run that are no longer requested; keep the labels."""
        if "probabilities" not in self._group:
            return
        self._forget("probabilities/")
        del self._group["probabilities"]
        for step in self._marks.steps.keys() & {"stitch", pyramid_of("stitch")}:
            for block, mark in enumerate(self._marks.read_all(step)):
                if mark is not None and mark.shards is not None:
                    kept = {k: None if is_optional(k) else v for k, v in mark.shards.items()}
                    self._marks.write(step, block, Mark(mark.digest, kept))

    def write_probabilities(self, block: int, level: int, shares: NDArray[np.uint8]) -> None:
        """Write one block's probabilities ``(K, H, W)`` uint8, in 255ths, at a level by block."""
        self._write("stitch", f"probabilities/{level}", block, np.moveaxis(shares, 0, 2))

    def erase_probabilities(self, block: int) -> None:
        """Make one block's probabilities 0, by deleting its files."""
        self._erase("stitch", block, [f"probabilities/{level}" for level in self.block_levels])

    def read_probabilities(self, box: Box, level: int = 0) -> NDArray[np.uint8]:
        """Read probabilities ``(K, H, W)`` uint8, in 255ths, of a box of a level.

        They are the model's, before the CRF and smoothing; 0 outside the raster and where there is
        no tissue.

        Raises
        ------
        StoreError
            If they were not stored (``stitch.probabilities``).
        """
        if not self._has_array(f"probabilities/{level}"):
            raise StoreError(
                f"{self.path}: holds no probabilities of level {level}; run `wsiseg stitch` with "
                f"stitch.probabilities=true"
            )
        return np.moveaxis(self._array(f"probabilities/{level}").read(box), 2, 0)

    @property
    def _probability_palette(self) -> Any:
        exists = "probabilities" in self._group
        return self._group["probabilities"].attrs.get("palette") if exists else None
