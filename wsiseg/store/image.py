"""The part of a store that holds the image."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from wsiseg.geometry import Box
from wsiseg.shrink import shrink_mean
from wsiseg.store.marks import Mark
from wsiseg.store.tissue import TissuePart

__all__ = ["ImagePart"]


class ImagePart(TissuePart):
    """The image, and the parts of the slide's file that could not be read."""

    @property
    def image_factors(self) -> tuple[int, ...]:
        """Down-sampling factor of each image level: powers of four."""
        return self.levels.image

    @property
    def has_image(self) -> bool:
        """Whether the arrays of the image exist, filled or not."""
        return all(self._has_array(f"image/{level}") for level in range(len(self.levels.image)))

    def write_image(
        self, block: int, pixels: NDArray[np.uint8], squares: NDArray[np.bool_] | None = None
    ) -> None:
        """Write one block's pixels ``(H, W, 3)`` uint8, and its part of the levels by block.

        `wsiseg.pyramid` writes the other levels. White chunks are not stored. `squares` ``(n, m)``
        bool may name the squares of ``grid.tile`` px that are not known to be white.
        """
        self._write("tile", "image/0", block, pixels, squares)
        for level, (finer, factor) in enumerate(pairwise(self.levels.image), 1):
            if not self.levels.by_block(factor):
                break
            pixels = shrink_mean(pixels, factor // finer)
            self._write("tile", f"image/{level}", block, pixels)

    def leave_white(self, blocks: Sequence[int], digests: Sequence[str]) -> None:
        """Make blocks white and mark them as done; `digests` has one entry per block of the slide.

        Deletes only existing files, in parallel: most of a slide is glass, and buckets have a high
        latency.
        """
        self._check_current()
        self._marks.forget("tile", blocks)
        names = self._marks.steps["tile"].names
        existing = {key for name in names for key in self._files.sizes(f"{name}/c")}
        keys = [self._key(p) for block in blocks for p in self._places("tile", block).values()]
        self._files.each(self._files.delete, [key for key in keys if key in existing])
        empty = dict.fromkeys(names)
        self._files.each(
            lambda block: self._marks.write("tile", block, Mark(digests[block], empty)), blocks
        )

    def erase_image(self, block: int) -> None:
        """Make one block white, by deleting its files."""
        self._erase("tile", block, self._marks.steps["tile"].names)

    def read_image(self, box: Box, level: int = 0) -> NDArray[np.uint8]:
        """Read pixels ``(H, W, 3)`` uint8 of a box of a level.

        White outside the raster and where there is no tissue.
        """
        return self._array(f"image/{level}").read(box)

    def read_windows(self, boxes: Sequence[Box]) -> NDArray[np.uint8]:
        """Read pixels ``(N, tile, tile, 3)`` uint8 of any boxes of tile size, as for training."""
        side = self.grid.tile
        out = np.empty((len(boxes), side, side, 3), np.uint8)
        self._array("image/0").read_into(zip(boxes, out, strict=True))
        return out

    def write_damage(
        self, part: str, digest: str, tiles: Iterable[tuple[int, int, int, Box]]
    ) -> None:
        """Record unreadable tiles of the slide's file, which were read as glass.

        Each is given by level, column, row, and box in level-0 pixels. `part` is a block's number
        or ``"tissue"``, and `digest` that of its mark. Without tiles, an earlier record is deleted.
        """
        rows = sorted([*place, *box] for *place, box in tiles)
        if rows:
            note = json.dumps({"digest": digest, "tiles": rows}).encode()
            self._files.write(_damage_key(part), [note])
        else:
            self._files.delete(_damage_key(part))

    def read_damage(self) -> list[tuple[int, int, int, Box]]:
        """Return the unreadable tiles that the current image and tissue mask met, each once."""
        marks: dict[str, str] = {
            str(block): mark.digest
            for block, mark in enumerate(self._marks.read_all("tile"))
            if mark
        }
        parts = {"tissue": self.tissue_digest, **marks}
        notes = self._files.each(self._files.read, [_damage_key(part) for part in parts])
        damaged: set[tuple[int, int, int, Box]] = set()
        for digest, data in zip(parts.values(), notes, strict=True):
            note = json.loads(data or b"{}")
            if note.get("digest") == digest:
                damaged.update(
                    (level, column, row, Box(*box)) for level, column, row, *box in note["tiles"]
                )
        return sorted(damaged)


def _damage_key(part: str) -> str:
    return f"damage/{part}.json"
