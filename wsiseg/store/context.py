"""The part of a store that holds the slide context: the weight of each class in each tile."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wsiseg.errors import StoreError
from wsiseg.lock import check_held
from wsiseg.store import layout
from wsiseg.store.cams import CamsPart, tile_box
from wsiseg.store.whole import WholePart

__all__ = ["ContextPart"]

_GATES = "context/gates"


class ContextPart(CamsPart, WholePart):
    """Weights of the classes in the tiles, derived from the slide as a whole."""

    def write_context(
        self, weights: NDArray[np.uint8], digest: str, shares: Sequence[float]
    ) -> None:
        """Store the weight of each class in each tile, ``(rows, cols, K)`` in 255ths.

        `digest` is that of their inputs; `shares` are the classes' shares of the slide's tiles,
        for information.

        Raises
        ------
        StoreError
            If another run took over.
        """
        self._check_current()
        check_held(self.location, self._run)
        group = self._group.require_group("context")
        group.attrs["digest"] = ""  # so that half-written gates do not count as complete
        self._forget(_GATES)
        layout.lay_out_context(group, *weights.shape)
        self._write_whole(_GATES, weights, digest, shares=list(shares))

    @property
    def context_digest(self) -> str:
        """The digest passed to `write_context`; empty if nothing is stored, or damaged."""
        return str(self._whole_facts("context").get("digest", ""))

    def has_context(self, digest: str) -> bool:
        """Whether weights with this digest are stored, with all their files complete."""
        if self.context_digest != digest:
            return False
        array = self._array_or_none(_GATES)
        sizes = self._files.sizes(f"{_GATES}/c")
        return array is not None and all(
            sizes.get(array.shard_key(row, col)) == size
            for row, col, size, _ in self.whole_shards("context")
        )

    def read_context(self, rows: slice, cols: slice) -> NDArray[np.uint8]:
        """Read weights ``(rows, cols, K)`` uint8 in 255ths: 0 where a tile may not show a class.

        Raises
        ------
        StoreError
            If none are stored yet.
        """
        if not self._has_array(_GATES):
            raise StoreError(
                f"{self.path}: holds no slide context; run `wsiseg stitch` with stitch.gate=context"
            )
        return self._array(_GATES).read(tile_box(rows, cols))

    @property
    def class_shares(self) -> dict[str, float]:
        """Share of the slide's tiles that show each class, from the slide context."""
        shares = self._whole_facts("context").get("shares", ())
        return dict(zip(self.cam_palette.names, shares, strict=False))
