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
    """Label and confidence rasters with their levels; probabilities, if they were asked for."""

    def create_labels(self, palette: Palette) -> None:
        """Make the label and confidence pyramids, unless they are there with this palette."""
        self._check_current()
        known = layout.plain_palette(palette)
        labels = self._group.require_group("labels")
        names, levels = ("classes", "confidence"), range(len(self.levels.maps))
        needed = [f"labels/{name}/{level}" for name in names for level in levels]
        if labels.attrs.get("palette") == known and all(map(self._has_array, needed)):
            return
        self.clear_marks("stitch")
        labels.attrs["palette"] = {}  # so that half-made arrays are not taken for whole ones
        self._forget("labels/")
        layout.lay_out_labels(labels, self.levels, palette, self.mpp)
        labels.attrs["palette"] = known

    @property
    def palette(self) -> Palette:
        """The palette that the labels were made with."""
        known = self._group["labels"].attrs.get("palette") if "labels" in self._group else None
        if not known:
            raise StoreError(f"{self.path}: holds no labels; run `wsiseg stitch` first")
        return layout.palette_of(known)

    @property
    def pyramid_factors(self) -> tuple[int, ...]:
        """Down-sampling of each level of the maps: powers of two."""
        return self.levels.maps

    @property
    def block_levels(self) -> range:
        """Levels of the maps that blocks write, each its part; `wsiseg.pyramid` makes the rest."""
        return range(sum(map(self.levels.by_block, self.levels.maps)))

    def level_box(self, level: int) -> Box:
        """The whole raster in pixels of one level of the maps."""
        return self.levels.box(self.levels.maps[level])

    def write_labels(
        self, block: int, level: int, labels: NDArray[np.uint8], confidence: NDArray[np.uint8]
    ) -> None:
        """Write one block's labels and confidence ``(H, W)`` at one of `block_levels`, whole."""
        self._write("stitch", f"labels/classes/{level}", block, labels)
        self._write("stitch", f"labels/confidence/{level}", block, confidence)

    def erase_labels(self, block: int) -> None:
        """Make one block background again, by taking its files away if it has any."""
        names, levels = ("classes", "confidence"), self.block_levels
        self._erase("stitch", block, [f"labels/{name}/{i}" for name in names for i in levels])

    def read_labels(self, box: Box, level: int = 0) -> NDArray[np.uint8]:
        """Labels ``(H, W)`` uint8 of a box of that level; background outside the raster."""
        return self._array(f"labels/classes/{level}").read(box)

    def read_confidence(self, box: Box, level: int = 0) -> NDArray[np.uint8]:
        """Confidence ``(H, W)`` uint8 of a box of that level; 0 outside the raster."""
        return self._array(f"labels/confidence/{level}").read(box)

    @property
    def has_probabilities(self) -> bool:
        """Whether stitching kept the classes' probabilities."""
        return bool(self._probability_palette == layout.plain_palette(self.palette.classes))

    def create_probabilities(self) -> None:
        """Make the pyramid of the classes' probabilities, unless it is there for these labels."""
        if not self.has_probabilities:
            self.clear_marks("stitch")
            self._forget("probabilities/")
            palette = self.palette.classes
            layout.lay_out_probabilities(self._group, self.levels, palette, self.mpp)

    def drop_probabilities(self) -> None:
        """Take away those of an earlier run: nobody asks for them any more. The labels stay."""
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
        """Write one block's probabilities ``(K, H, W)``, uint8 in 255ths, at a block's level."""
        self._write("stitch", f"probabilities/{level}", block, np.moveaxis(shares, 0, 2))

    def erase_probabilities(self, block: int) -> None:
        """Make one block's probabilities 0 again, by taking its files away if it has any."""
        self._erase("stitch", block, [f"probabilities/{level}" for level in self.block_levels])

    def read_probabilities(self, box: Box, level: int = 0) -> NDArray[np.uint8]:
        """Probabilities ``(K, H, W)`` uint8, in 255ths, of a box of that level.

        They are the model's, before the CRF and smoothing; 0 outside the raster and where no tissue
        is.

        Raises
        ------
        StoreError
            If stitching was not asked for them (``stitch.probabilities``).
        """
        if not self._has_array(f"probabilities/{level}"):
            raise StoreError(
                f"{self.path}: holds no probabilities of level {level}; run `wsiseg stitch` with "
                f"stitch.probabilities=true"
            )
        return np.moveaxis(self._array(f"probabilities/{level}").read(box), 2, 0)

    @property
    def _probability_palette(self) -> Any:
        known = "probabilities" in self._group
        return self._group["probabilities"].attrs.get("palette") if known else None
