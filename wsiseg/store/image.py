"""The part of a store that holds pixels."""

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
    """The image, and what of the slide's file could not be read for it."""

    @property
    def image_factors(self) -> tuple[int, ...]:
        """Down-sampling of each level of the image: powers of four."""
        return self.levels.image

    @property
    def has_image(self) -> bool:
        """Whether the arrays of the image are there, whatever is in them."""
        return all(self._has_array(f"image/{level}") for level in range(len(self.levels.image)))

    def write_image(
        self, block: int, pixels: NDArray[np.uint8], squares: NDArray[np.bool_] | None = None
    ) -> None:
        """Write one block's pixels ``(H, W, 3)`` uint8 and its part of the coarser levels.

        Of those that blocks write; `wsiseg.pyramid` makes the rest. White stays absent. Of the
        block's squares of ``grid.tile`` px, ``(n, m)`` bool, those that `squares` does not name are
        known to be white.
        """
        self._write("tile", "image/0", block, pixels, squares)
        for level, (finer, factor) in enumerate(pairwise(self.levels.image), 1):
            if not self.levels.by_block(factor):
                break
            pixels = shrink_mean(pixels, factor // finer)
            self._write("tile", f"image/{level}", block, pixels)

    def leave_white(self, blocks: Sequence[int], digests: Sequence[str]) -> None:
        """Make blocks white and mark them: `digests` are those of all blocks.

        Only what is there is taken away, and many are asked at once: most of a slide is glass, and
        a bucket answers late.
        """
        self._check_current()
        self._marks.forget("tile", blocks)
        names = self._marks.steps["tile"].names
        there = {key for name in names for key in self._files.sizes(f"{name}/c")}
        keys = [self._key(p) for block in blocks for p in self._places("tile", block).values()]
        self._files.each(self._files.delete, [key for key in keys if key in there])
        empty = dict.fromkeys(names)
        self._files.each(
            lambda block: self._marks.write("tile", block, Mark(digests[block], empty)), blocks
        )

    def erase_image(self, block: int) -> None:
        """Make one block white again, by taking its files away if it has any."""
        self._erase("tile", block, self._marks.steps["tile"].names)

    def read_image(self, box: Box, level: int = 0) -> NDArray[np.uint8]:
        """Pixels ``(H, W, 3)`` uint8 of a box of that level.

        White outside the raster and where no tissue is.
        """
        return self._array(f"image/{level}").read(box)

    def read_windows(self, boxes: Sequence[Box]) -> NDArray[np.uint8]:
        """Pixels ``(N, tile, tile, 3)`` uint8 of any boxes of a tile's size, as for training."""
        side = self.grid.tile
        out = np.empty((len(boxes), side, side, 3), np.uint8)
        self._array("image/0").read_into(zip(boxes, out, strict=True))
        return out

    def write_damage(
        self, part: str, digest: str, tiles: Iterable[tuple[int, int, int, Box]]
    ) -> None:
        """Note tiles of the slide's file that were taken for glass.

        Each is its level, column, row, and box in level-0 pixels. `part` is what was read, a
        block's number or ``"tissue"``, and `digest` that of its mark. Without tiles, what was noted
        before is forgotten.
        """
        rows = sorted([*place, *box] for *place, box in tiles)
        if rows:
            note = json.dumps({"digest": digest, "tiles": rows}).encode()
            self._files.write(_damage_key(part), [note])
        else:
            self._files.delete(_damage_key(part))

    def read_damage(self) -> list[tuple[int, int, int, Box]]:
        """Each damaged tile once that the pixels and the tissue mask of now have met."""
        marks: dict[str, str] = {
            str(block): mark.digest
            for block, mark in enumerate(self._marks.read_all("tile"))
            if mark
        }
        parts = {"tissue": self.tissue_digest, **marks}
        known = self._files.each(self._files.read, [_damage_key(part) for part in parts])
        found: set[tuple[int, int, int, Box]] = set()
        for digest, data in zip(parts.values(), known, strict=True):
            note = json.loads(data or b"{}")
            if note.get("digest") == digest:
                found.update(
                    (level, column, row, Box(*box)) for level, column, row, *box in note["tiles"]
                )
        return sorted(found)


def _damage_key(part: str) -> str:
    return f"damage/{part}.json"
