"""The part of a store that holds the tissue mask."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsiseg.errors import StoreError
from wsiseg.geometry import Box
from wsiseg.store import layout
from wsiseg.store.whole import WholePart

__all__ = ["TissuePart"]

_MASK = "tissue/mask"
_FACTS = ("digest", "min_fraction", "mpp", "note", "outline", "shards")
"""What is written of a mask: nothing of an earlier one stays."""


class TissuePart(WholePart):
    """The tissue mask, at its own µm/px."""

    def write_tissue(
        self, mask: NDArray[np.bool_], mpp: float, digest: str, note: str = "", outline: str = ""
    ) -> None:
        """Store the tissue mask ``(h, w)`` bool at `mpp`, and the digest of its inputs.

        `note` is a remark for the user, `outline` the hex sha256 of the user's outline, if it is
        one.
        """
        self._check_current()
        if self._has_file("done/tile"):
            self._lay_out_marks("tile")  # its description may be damaged
        if self._marks.plan("tile"):  # finished blocks belong to the previous mask
            self._group["done/tile"].attrs["plan"] = {"blocks": "", "after": ""}
        group = self._group.require_group("tissue")
        foreign = {name: value for name, value in group.attrs.items() if name not in _FACTS}
        group.attrs.put({"digest": "", **foreign})  # a half-written mask is not complete
        self._forget(_MASK)
        layout.lay_out_tissue(group, *mask.shape)
        drawn = {"outline": outline} if outline else {}
        self._write_whole(_MASK, mask.astype(np.uint8), digest, mpp=mpp, note=note, **drawn)

    @property
    def tissue_digest(self) -> str:
        """The digest passed to `write_tissue`; empty if there is no complete mask."""
        return str(self._whole_facts("tissue").get("digest", ""))

    @property
    def tissue_note(self) -> str:
        """Remark for the user about the mask; may be empty."""
        return str(self._whole_facts("tissue").get("note", ""))

    @property
    def tissue_outline(self) -> str:
        """Hex sha256 of the user's outline that the mask was read from; empty if it was detected.

        Also empty if an earlier wsiseg read it.
        """
        return str(self._whole_facts("tissue").get("outline", ""))

    def keep_tiles(self, min_fraction: float) -> None:
        """Record that tiles with this share of tissue or more are read."""
        if self.min_fraction != min_fraction:
            self._group["tissue"].attrs.update({"min_fraction": min_fraction})

    @property
    def min_fraction(self) -> float | None:
        """The share given to `keep_tiles`; None if an earlier wsiseg tiled the slide."""
        fraction = self._whole_facts("tissue").get("min_fraction")
        return None if fraction is None else float(fraction)

    @property
    def tissue_mpp(self) -> float:
        """µm/px of the tissue mask; raises `StoreError` if none is stored yet."""
        return float(self._mask_facts()["mpp"])

    @property
    def tissue_mm2(self) -> float:
        """Area of the tissue; raises `StoreError` if no mask is stored yet.

        The mask's last row and column may reach past the raster: what lies beyond does not count.
        """
        mask, mpp, _ = self.read_tissue()
        rows, cols = (
            np.clip(length * self.mpp / mpp - np.arange(count), 0, 1)
            for length, count in zip((self.grid.height, self.grid.width), mask.shape, strict=True)
        )
        return float(np.einsum("i,ij,j", rows, mask, cols)) * mpp**2 / 1e6

    def read_tissue(self, box: Box | None = None) -> tuple[NDArray[np.bool_], float, str]:
        """Read the tissue mask ``(h, w)`` bool, its µm/px and its digest.

        With a `box` in mask pixels, read only that window; False outside the mask.

        Raises
        ------
        StoreError
            If no mask is stored yet.
        """
        facts, array = self._mask_facts(), self._array(_MASK)
        mask = array.read(array.box if box is None else box).astype(bool)
        return mask, float(facts["mpp"]), str(facts["digest"])

    def _mask_facts(self) -> dict[str, Any]:
        facts = self._whole_facts("tissue")
        if not facts.get("digest"):
            raise StoreError(f"{self.path}: holds no tissue mask; run `wsiseg tile` first")
        return facts
