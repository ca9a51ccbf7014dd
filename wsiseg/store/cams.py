"""The part of a store that holds CAMs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsiseg.annotations import Palette
from wsiseg.errors import StoreError
from wsiseg.geometry import Box
from wsiseg.store import layout
from wsiseg.store.opened import OpenedStore

__all__ = ["CamsPart", "tile_box"]


class CamsPart(OpenedStore):
    """CAMs and class logits of the tiles, and their distances from the training patches."""

    @cached_property
    def _cam_facts(self) -> dict[str, Any]:
        """The attributes set by `create_cams`; cached, as each block needs them several times."""
        return dict(self._group["cams"].attrs)

    def create_cams(
        self, palette: Palette, height: int, width: int, *, channels: int | None = None,
        calibration: Sequence[tuple[float, float]] = (), source: str = "", mpp: float | None = None,
        background: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """Create the CAM arrays for the palette's K classes and maps of ``height x width``.

        Existing arrays are kept if they have this shape.

        Parameters
        ----------
        channels
            K, or more if the model distinguishes kinds of background, which follow the classes.
        calibration
            Scale and offset of each channel, which turn its CAM into a calibrated logit; empty if
            the CAMs are calibrated, or the calibration is unknown.
        source
            Identity of the model: of a checkpoint, its sha256.
        mpp
            µm/px that the model is made for; None if unknown. Slides are tiled at whole multiples
            of their own, so `mpp` of the store may differ a little.
        background
            Names of the kinds of background, as people label them.
        """
        self._check_current()
        channels = len(palette) if channels is None else channels
        shape = (self.grid.rows, self.grid.cols, channels, height, width)
        cams = self._group.require_group("cams")
        if cams.attrs.get("palette") != layout.plain_palette(palette):
            self.clear_marks("predict")  # else finished blocks would get the new names
        cams.attrs["palette"] = layout.plain_palette(palette)
        cams.attrs["calibration"] = [list(pair) for pair in calibration]
        cams.attrs.update({"source": source, "mpp": mpp, "background": [*background]})
        self.__dict__.pop("_cam_facts", None)
        keys = ("cams/logits", "cams/classes", "cams/distance")
        if all(map(self._has_array, keys)) and self._array("cams/logits").shape == shape:
            return
        self.clear_marks("predict")  # of any settings: their arrays are replaced
        for key in keys:
            self._arrays.pop(key, None)
        layout.lay_out_cams(cams, self.grid, channels, height, width)

    def write_cams(
        self, block: int, cams: NDArray[np.float16], logits: NDArray[np.float32],
        distances: NDArray[np.float32] | None = None,
    ) -> None:  # fmt: skip
        """Write one block's CAMs ``(rows, cols, C, h, w)`` and class logits ``(rows, cols, C)``.

        Rows and columns are the block's own tiles; NaN where a tile holds no tissue. C counts the
        channels: the K classes, then kinds of background, if any. `distances` ``(rows, cols)`` are
        the tiles' distances from the training patches; NaN where they were not measured.
        """
        self._write("predict", "cams/logits", block, cams)
        self._write("predict", "cams/classes", block, logits)
        if distances is None:
            self._erase("predict", block, ["cams/distance"])
        else:
            self._write("predict", "cams/distance", block, distances)

    def read_cams(
        self, rows: slice, cols: slice
    ) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
        """Read CAMs ``(rows, cols, C, h, w)`` float16 and class logits ``(rows, cols, C)`` float32.

        The C channels are the classes, then kinds of background.
        """
        self._check_cams()
        cams = self._array("cams/logits").read(tile_box(rows, cols))
        return cams, self.read_class_logits(rows, cols)

    def read_class_logits(self, rows: slice, cols: slice) -> NDArray[np.float32]:
        """Read only the class logits ``(rows, cols, C)`` float32."""
        self._check_cams()
        return self._array("cams/classes").read(tile_box(rows, cols))

    @property
    def cam_palette(self) -> Palette:
        """Names and colours of the CAMs' classes, from the model that made them."""
        self._check_cams()
        return layout.palette_of(self._cam_facts["palette"])

    @property
    def cam_calibration(self) -> NDArray[np.float32] | None:
        """``(channels, 2)`` scale and offset of each channel's CAM; None if unknown."""
        self._check_cams()
        calibration = self._cam_facts.get("calibration")
        return np.array(calibration, np.float32) if calibration else None

    @property
    def cam_source(self) -> str:
        """Identity of the model that made the CAMs; empty in stores written by an older wsiseg.

        Also empty before the slide was predicted.
        """
        return str(self._cam_facts.get("source", "")) if "cams" in self._group else ""

    @property
    def cam_mpp(self) -> float | None:
        """µm/px that the model is made for; None if unknown, as in stores of an older wsiseg."""
        self._check_cams()
        mpp: float | None = self._cam_facts.get("mpp")
        return mpp

    @property
    def cam_background(self) -> tuple[str, ...]:
        """Names of the kinds of background that the model knows; empty if unknown or none.

        Also empty before the slide was predicted.
        """
        return tuple(self._cam_facts.get("background", ())) if "cams" in self._group else ()

    @property
    def cam_channels(self) -> int:
        """Number of channels of a CAM: the K classes of `cam_palette`, then kinds of background."""
        self._check_cams()
        return int(self._array("cams/logits").shape[2])

    @property
    def cam_size(self) -> tuple[int, int]:
        """Height and width of a tile's CAM in cells."""
        height, width = self._array("cams/logits").shape[3:]
        return height, width

    def read_distances(self) -> NDArray[np.float32]:
        """Read the ``(N,)`` distances of all measured tiles from the training patches."""
        self._check_cams()
        array = self._array("cams/distance")
        distances = array.read(array.box)
        return np.asarray(distances[np.isfinite(distances)])

    def count_tiles(self) -> int:
        """Count the tiles that the model has predicted."""
        classes = self._array("cams/classes")
        return int(np.isfinite(classes.read(classes.box)[..., 0]).sum())

    def _check_cams(self) -> None:
        if not self._has_array("cams/logits"):
            raise StoreError(f"{self.path}: holds no CAMs; run `wsiseg predict` first")


def tile_box(rows: slice, cols: slice) -> Box:
    """Return the box of these rows and columns of tiles."""
    return Box(cols.start, rows.start, cols.stop - cols.start, rows.stop - rows.start)
