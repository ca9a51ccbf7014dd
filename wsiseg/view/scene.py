"""An open slide: its frame, and the pixels of any tile of any layer.

The *frame* of a scene defines the page's image coordinates: square pixels of `mpp` µm with their
origin at the corner of level 0; level-0 pixels if the slide's file is available. A *tile* has
`TILE` pixels a side; at *zoom* z each pixel covers ``2**z`` frame pixels a side. Rasters also have
tiles at negative zooms: they are enlarged here by nearest neighbour, so that browsers do not blur
labels.
"""

from __future__ import annotations

import hashlib
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsiseg.annotations import Palette
from wsiseg.config import SlideConfig
from wsiseg.errors import SlideError, StoreError
from wsiseg.geometry import Box, Size
from wsiseg.grid import TileGrid
from wsiseg.report.scores import share_of
from wsiseg.shrink import FACTORS, shrink_mean
from wsiseg.slide import Slide, open_slide
from wsiseg.slide.identity import was_identified_as
from wsiseg.store import SlideStore

__all__ = ["FINEST", "TILE", "Scene"]

TILE = 512
"""Side of a tile in pixels."""
FINEST = -4
"""Zoom of the most enlarged raster tiles."""
_VERSION = 1  # of the appearance of tiles; part of their addresses
_MOST_TILES = 24  # above this many tiles a side, class logits replace the CAMs
_THUMBNAIL = 360
_STEPS = ("tile", "stitch", "predict")


class Scene:
    """One slide's store, and the slide's file if it is found and unchanged.

    Raises
    ------
    StoreError
        If the store cannot be read.
    """

    def __init__(self, path: Path, slides: Path | None = None) -> None:
        self.store = SlideStore(path)
        self.slide, self.missing = _find_slide(self.store, slides)
        facts = self.store.slide
        own = float(facts["mpp"][0]), float(facts["mpp"][1])
        self.mpp = min(own) if self.slide else self.store.mpp
        """Frame pixel size in µm."""
        grid = self.store.grid
        self.size = (
            self.slide.raster_size(self.mpp) if self.slide else Size(grid.width, grid.height)
        )
        self.to_px0 = self.mpp / own[0], self.mpp / own[1]
        """Level-0 pixels per frame pixel."""
        self.to_raster = self.mpp / self.store.mpp
        """Pixels of the store's raster per frame pixel."""
        self.coarsest = max(0, (max(self.size) - 1).bit_length() - (TILE - 1).bit_length())
        self._plans = list(map(self.store.planned, _STEPS))
        self.tiled, self.labelled, self.modelled = map(self.store.marked, _STEPS)

    def close(self) -> None:
        """Release the slide."""
        if self.slide:
            self.slide.close()

    @cached_property
    def palette(self) -> Palette:
        """Classes and colours of the labels; empty if there are no labels yet."""
        return self.store.palette if self.labelled else Palette((), ())

    @cached_property
    def scores(self) -> str:
        """The kind of class scores: `probability`, `CAM`, or empty."""
        if self.labelled and self.store.has_probabilities:
            return "probability"
        return "CAM" if self.labelled and self.modelled else ""

    @cached_property
    def versions(self) -> dict[str, str]:
        """A hash of the content of each available layer."""
        hashes: dict[str, str] = {}
        if self.slide:
            hashes["photo"] = _hash("slide", self.slide.identity, self.mpp)
        elif self.tiled:
            hashes["photo"] = _hash("store", self.tiled)
        if self.labelled:
            hashes["labels"] = hashes["confidence"] = _hash(self.labelled, self.mpp)
        if self.scores:
            hashes["score"] = _hash(self.scores, self.labelled, self.modelled, self.mpp)
        return hashes

    @cached_property
    def version(self) -> str:
        """A hash of what was finished, and planned, when this scene was opened."""
        return _hash(*self._plans, self.tiled, self.labelled, self.modelled)

    def is_current(self) -> bool:
        """Whether the store is unchanged since this scene was opened."""
        try:
            store = SlideStore(self.store.path)
        except StoreError:
            return False
        made = (self.tiled, self.labelled, self.modelled)
        return all(map(partial(_is_as_before, store), _STEPS, self._plans, made))

    # -- photo -------------------------------------------------------------------------------

    def photo(self, zoom: int, col: int, row: int) -> NDArray[np.uint8] | None:
        """Return pixels ``(h, w, 3)`` of a tile, clipped to the frame; None outside of it."""
        if not 0 <= zoom <= self.coarsest:
            return None
        factor = 2**zoom
        whole = Box(0, 0, -(-self.size.width // factor), -(-self.size.height // factor))
        box = Box(col * TILE, row * TILE, TILE, TILE).intersect(whole)
        if box.empty:
            return None
        if self.slide:
            return self.slide.read(box, self.mpp * factor)
        return self._stored_photo(box, factor)

    def _stored_photo(self, box: Box, factor: int) -> NDArray[np.uint8]:
        """Read a box of the raster down-sampled by `factor`, from the next finer level."""
        factors = self.store.image_factors
        level = max(i for i, known in enumerate(factors) if known <= factor)
        left = factor // factors[level]
        there = Box(box.x * left, box.y * left, box.width * left, box.height * left)
        pixels = self.store.read_image(there, level)
        while left > 1:
            step = min(left, FACTORS[-1])
            pixels, left = shrink_mean(pixels, step), left // step
        return pixels

    def thumbnail(self) -> NDArray[np.uint8] | None:
        """Return the whole slide ``(h, w, 3)``, a few hundred pixels a side, white outside tissue.

        None while tiling has not finished.
        """
        if not self.tiled:
            return None
        factor = 1
        while max(self.store.grid.width, self.store.grid.height) // factor > _THUMBNAIL:
            factor *= 2
        grid = self.store.grid
        return self._stored_photo(
            Box(0, 0, -(-grid.width // factor), -(-grid.height // factor)), factor
        )

    # -- rasters -----------------------------------------------------------------------------

    def raster(self, kind: str, zoom: int, col: int, row: int) -> NDArray[np.uint8] | None:
        """Return values ``(TILE, TILE)`` of a raster layer; 0 is empty, None outside the raster.

        `labels` holds 1 + the label; `confidence` and `score-K` are in 255ths.
        """
        if not FINEST <= zoom <= self.coarsest:
            return None
        step = 2.0**zoom * self.to_raster
        grid = self.store.grid
        xs, ys = (_sample(first * TILE, step) for first in (col, row))
        across, down = _inside(xs, grid.width), _inside(ys, grid.height)
        if xs[across].size == 0 or ys[down].size == 0:
            return None
        out = np.zeros((TILE, TILE), np.uint8)
        out[down, across] = self._values(kind, xs[across], ys[down], step)
        return out

    def _values(
        self, kind: str, xs: NDArray[np.float64], ys: NDArray[np.float64], step: float
    ) -> NDArray[np.uint8]:
        if kind == "labels":
            return self._read("labels", xs, ys, step) + np.uint8(1)  # background, 255, becomes 0
        if kind == "confidence":
            return self._read("confidence", xs, ys, step)
        channel = int(kind.removeprefix("score-"))
        if self.scores == "CAM":
            return self._cam(channel, xs, ys, step)
        probabilities: NDArray[np.uint8] = self._read("probabilities", xs, ys, step)[channel]
        return probabilities

    def _read(
        self, kind: str, xs: NDArray[np.float64], ys: NDArray[np.float64], step: float
    ) -> NDArray[np.uint8]:
        """Read the nearest pixels of the coarsest level that is not coarser than `step`."""
        factors = self.store.pyramid_factors
        level = max(i for i, known in enumerate(factors) if known <= max(1.0, step))
        cols, rows = (np.floor(at / factors[level]).astype(np.intp) for at in (xs, ys))
        x, y = int(cols[0]), int(rows[0])
        box = Box(x, y, int(cols[-1]) + 1 - x, int(rows[-1]) + 1 - y)
        pixels: NDArray[np.uint8] = getattr(self.store, f"read_{kind}")(box, level)
        if pixels.shape[-2:] == (len(rows), len(cols)):  # no resampling
            return pixels
        # One axis after the other: copying whole rows is much faster than fancy indexing.
        return pixels.take(rows - y, axis=-2).take(cols - x, axis=-1)

    def _cam(
        self, channel: int, xs: NDArray[np.float64], ys: NDArray[np.float64], step: float
    ) -> NDArray[np.uint8]:
        """Return a class's softmax over the channels of the CAM, tile by tile, not blended.

        Where tiles overlap, the tile with the nearest centre counts. 0 where there is no tile.
        """
        grid = self.store.grid
        across, down = _own_tiles(xs, grid.cols, grid), _own_tiles(ys, grid.rows, grid)
        rows = slice(int(down[0]), int(down[-1]) + 1)
        cols = slice(int(across[0]), int(across[-1]) + 1)
        tiles_across = max(rows.stop - rows.start, cols.stop - cols.start)
        if tiles_across > _MOST_TILES:
            fields = self.store.read_class_logits(rows, cols)[..., None, None]
        else:
            fields = self.store.read_cams(rows, cols)[0].astype(np.float32)
        height, width = fields.shape[3:]
        shares = share_of(fields, channel, self.store.cam_calibration)
        inner_y = np.clip((ys - down * grid.stride) * height / grid.tile, 0, height - 1)
        inner_x = np.clip((xs - across * grid.stride) * width / grid.tile, 0, width - 1)
        picked: NDArray[np.uint8] = shares[
            (down - rows.start)[:, None], (across - cols.start)[None],
            inner_y.astype(np.intp)[:, None], inner_x.astype(np.intp)[None],
        ]  # fmt: skip
        return picked

    def label_at(self, x: float, y: float) -> tuple[int, int] | None:
        """Return label and confidence (255ths) at a point of the frame; None off the raster."""
        col, row = int(x * self.to_raster // 1), int(y * self.to_raster // 1)
        grid = self.store.grid
        if not self.labelled or not (0 <= col < grid.width and 0 <= row < grid.height):
            return None
        box = Box(col, row, 1, 1)
        return int(self.store.read_labels(box)[0, 0]), int(self.store.read_confidence(box)[0, 0])

    def areas(self) -> dict[str, float]:
        """Estimate mm² of each class from the coarsest level, for stores without a table."""
        if not self.labelled:
            return {}
        level = len(self.store.pyramid_factors) - 1
        labels = self.store.read_labels(self.store.level_box(level), level)
        pixel = (self.store.mpp * self.store.pyramid_factors[level]) ** 2 / 1e6
        counts = np.bincount(labels.ravel(), minlength=256) * pixel
        return {name: float(counts[i]) for i, name in enumerate(self.palette.names)}


def _is_as_before(store: SlideStore, step: str, plan: str | None, made: str) -> bool:
    if store.planned(step) != plan:
        return False
    # The plan is one small file; large slides have thousands of marks.
    return store.marked(step) == made if plan is None or not made else True


def _sample(first: int, step: float) -> NDArray[np.float64]:
    """Return raster coordinates of the centres of a tile's pixels."""
    return np.asarray((first + np.arange(TILE) + 0.5) * step, np.float64)


def _inside(at: NDArray[np.float64], length: int) -> slice:
    """Return the slice of ascending coordinates that lie on an axis of that length."""
    first, stop = np.searchsorted(at, (0, length))
    return slice(int(first), int(stop))


def _own_tiles(at: NDArray[np.float64], count: int, grid: TileGrid) -> NDArray[np.intp]:
    """Return the tile with the nearest centre to each raster coordinate, along one axis."""
    nearest = np.floor((at - (grid.tile - grid.stride) / 2) / grid.stride)
    return np.asarray(np.clip(nearest, 0, count - 1), np.intp)


def _hash(*parts: object) -> str:
    text = "\0".join(map(str, (_VERSION, TILE, *parts)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _find_slide(store: SlideStore, folder: Path | None) -> tuple[Slide | None, str]:
    """Open the slide that the store was made from, or say why that is impossible."""
    facts = store.slide
    recorded_path = Path(str(facts.get("path") or facts.get("name", "")))
    recorded_identity = str(facts.get("identity", ""))
    places = [recorded_path] if folder is None else [folder / recorded_path.name, recorded_path]
    for place in places:
        if not recorded_path.name or not place.exists():  # a DICOM series is a folder
            continue
        mpp = facts["mpp"]
        override = float(mpp[0]) if mpp[0] == mpp[1] else None
        try:
            slide = open_slide(place, SlideConfig(mpp_override=override))
            same = slide.identity == recorded_identity or was_identified_as(
                place, recorded_identity
            )
        except SlideError as error:
            return None, f"the slide cannot be opened: {error}"
        if same and list(slide.size) == list(facts["size"]):
            return slide, ""
        slide.close()
        return None, f"{place.name} is no longer the file that was annotated"
    return (
        None,
        f"{recorded_path.name} was moved; give the folder of the slides with `--slides FOLDER`",
    )
