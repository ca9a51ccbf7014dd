"""The part of a store that holds the slide context: how much each class weighs in each tile."""

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
    """Weights of the classes in the tiles, decided by the slide as a whole."""

    def write_context(
        self, weights: NDArray[np.uint8], digest: str, shares: Sequence[float]
    ) -> None:
        """Keep how much each class weighs in each tile, ``(rows, cols, K)`` in 255ths.

        `digest` is of what made them; `shares` are the classes' shares of the slide's tiles, for
        who wants to know.

        Raises
        ------
        StoreError
            If another run took over.
        """
        self._check_current()
        check_held(self.location, self._run)
        group = self._group.require_group("context")
        group.attrs["digest"] = ""  # so that half-written gates are not taken for whole ones
        self._forget(_GATES)
        layout.lay_out_context(group, *weights.shape)
        self._write_whole(_GATES, weights, digest, shares=list(shares))

    def has_context(self, digest: str) -> bool:
        """Whether weights of exactly this digest are there, none of their files lost or cut."""
        if self._whole_facts("context").get("digest") != digest:
            return False
        array = self._array_or_none(_GATES)
        sizes = self._files.sizes(f"{_GATES}/c")
        return array is not None and all(
            sizes.get(array.shard_key(row, col)) == size
            for row, col, size, _ in self.whole_shards("context")
        )

    def read_context(self, rows: slice, cols: slice) -> NDArray[np.uint8]:
        """Weights ``(rows, cols, K)`` uint8, in 255ths: 0 where a tile may not show a class.

        Raises
        ------
        StoreError
            If there are none yet.
        """
        if not self._has_array(_GATES):
            raise StoreError(
                f"{self.path}: holds no slide context; run `wsiseg stitch` with stitch.gate=context"
            )
        return self._array(_GATES).read(tile_box(rows, cols))

    @property
    def class_shares(self) -> dict[str, float]:
        """Share of the slide's tiles that show each class, as the slide context has it."""
        shares = self._whole_facts("context").get("shares", ())
        return dict(zip(self.cam_palette.names, shares, strict=False))
