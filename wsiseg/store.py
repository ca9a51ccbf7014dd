"""The Zarr v3 layout of one slide. All of it is here; nobody else imports zarr.

::

    <slide>.zarr                     group; attrs.wsiseg = format, slide facts, grid
    ├── image            NGFF image  0: (3, H, W) uint8, inner chunk one tile, shard one block
    ├── tissue/mask      (h, w) uint8 {0, 1}, coarse raster at the tissue mpp
    ├── cams
    │   ├── logits       (rows, cols, K, h, w) float16, shard one block of tiles, NaN = no tile
    │   └── classes      (rows, cols, K) float32, class logits, NaN = no tile
    ├── labels           NGFF labels
    │   ├── classes      0..n: (H, W) uint8, 255 = background
    │   └── confidence   0..n: (H, W) uint8, 255 = certain
    └── done/<step>      (blocks, 32) uint8: sha256 of what made the block, written last

A missing chunk is background. One block is one shard and has one writer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr
import zarr.codecs
from numpy.typing import NDArray

from wsiseg.annotations import BACKGROUND, Palette
from wsiseg.errors import StoreError
from wsiseg.geometry import Box
from wsiseg.grid import TileGrid

__all__ = ["FORMAT", "SlideStore"]

FORMAT = 1
"""Version of the layout; a digest holds it, so a change of layout redoes the work."""

_PYRAMID_STOP = 512  # the coarsest pyramid level is at most this many pixels a side


class SlideStore:
    """One slide's Zarr group, opened for reading and writing.

    Cheap to open and picklable by its path: workers open their own.

    Raises
    ------
    StoreError
        If the path holds something that wsiseg did not write, or another format version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._group = zarr.open_group(str(path), mode="r+", zarr_format=3)
            self.meta: dict[str, Any] = dict(self._group.attrs["wsiseg"])  # type: ignore[arg-type]
        except (FileNotFoundError, KeyError, ValueError) as error:
            raise StoreError(f"{path}: is not a wsiseg store; run `wsiseg tile` first") from error
        if self.meta["format"] != FORMAT:
            raise StoreError(
                f"{path}: has format {self.meta['format']}, this wsiseg reads {FORMAT}; "
                f"write it anew with --overwrite"
            )
        self.grid = TileGrid(**self.meta["grid"])
        self._arrays: dict[str, zarr.Array[Any]] = {}

    @classmethod
    def create(cls, path: str | Path, grid: TileGrid, mpp: float, slide: dict[str, Any]) -> SlideStore:
        """Make the store, or open it if it was made from the same slide and grid.

        `slide` is plain JSON: name, path, identity, size, mpp, bounds. A store of another grid,
        mpp or slide keeps its files, but its arrays are laid out anew and every mark is cleared.
        """
        meta = {
            "format": FORMAT,
            "mpp": mpp,
            "slide": slide,
            "grid": {name: getattr(grid, name) for name in grid.__dataclass_fields__},
        }
        try:
            existing = cls(path)
            if existing.meta == meta:
                return existing
        except StoreError:
            if Path(path).exists() and any(Path(path).iterdir()) and not _is_ours(path):
                raise
        group = zarr.open_group(str(path), mode="a", zarr_format=3)
        for name in [key for key in group.group_keys() if key in _GROUPS]:
            del group[name]
        image = group.create_group("image", overwrite=True)
        image.create_array(
            "0",
            shape=(3, grid.height, grid.width),
            dtype="uint8",
            chunks=(3, grid.tile, grid.tile),
            shards=(3, grid.block, grid.block),
            fill_value=255,
            compressors=_lossless(),
            dimension_names=("c", "y", "x"),
        )
        name = str(slide.get("name", "image"))
        axes = [{"name": "c", "type": "channel"}, *_SPACE]
        image.attrs["ome"] = _multiscales(name, axes, [[1.0, mpp, mpp]])
        group.attrs["wsiseg"] = meta
        return cls(path)

    @property
    def mpp(self) -> float:
        """Working µm/px."""
        return float(self.meta["mpp"])

    @property
    def slide(self) -> dict[str, Any]:
        """Facts about the slide, as given to `create`."""
        return dict(self.meta["slide"])

    # -- marks -------------------------------------------------------------------------------

    def is_done(self, step: str, block: int, digest: str) -> bool:
        """Whether `step` finished `block` with exactly this digest."""
        mark = self._array(f"done/{step}", create=self._create_marks)[block]
        return bytes(np.asarray(mark, np.uint8)) == bytes.fromhex(digest)

    def pending(self, step: str, digest: str) -> list[int]:
        """Blocks that `step` has still to do, in order."""
        marks = np.asarray(self._array(f"done/{step}", create=self._create_marks)[:])
        wanted = np.frombuffer(bytes.fromhex(digest), np.uint8)
        return [int(i) for i in np.flatnonzero((marks != wanted).any(axis=1))]

    def mark_done(self, step: str, block: int, digest: str) -> None:
        """Record, last of all, that `step` finished `block`."""
        array = self._array(f"done/{step}", create=self._create_marks)
        array[block] = np.frombuffer(bytes.fromhex(digest), np.uint8)

    def _create_marks(self, key: str) -> None:
        self._group.create_array(
            key, shape=(self.grid.n_blocks, 32), dtype="uint8", chunks=(1, 32), compressors=None
        )

    # -- image -------------------------------------------------------------------------------

    def write_image(self, block: int, pixels: NDArray[np.uint8]) -> None:
        """Write one block's pixels ``(H, W, 3)`` uint8, whole; all-white tiles stay absent."""
        self._write("image/0", block, np.moveaxis(pixels, 2, 0))

    def read_image(self, box: Box) -> NDArray[np.uint8]:
        """Pixels ``(H, W, 3)`` uint8 of a box, white outside the raster and where no tissue is."""
        return np.ascontiguousarray(np.moveaxis(self._read("image/0", box, 255), 0, 2))

    # -- tissue ------------------------------------------------------------------------------

    def write_tissue(self, mask: NDArray[np.bool_], mpp: float, digest: str) -> None:
        """Keep the tissue mask ``(h, w)`` bool at `mpp`, and the digest of what made it."""
        group = self._group.require_group("tissue")
        group.create_array("mask", data=mask.astype(np.uint8), overwrite=True)
        group.attrs.update({"mpp": mpp, "digest": digest})

    def read_tissue(self) -> tuple[NDArray[np.bool_], float, str]:
        """The tissue mask ``(h, w)`` bool, its µm/px and its digest.

        Raises
        ------
        StoreError
            If no mask was stored yet.
        """
        if "tissue/mask" not in self._group:
            raise StoreError(f"{self.path}: holds no tissue mask; run `wsiseg tile` first")
        attrs = self._group["tissue"].attrs
        mask = np.asarray(self._array("tissue/mask")[:]).astype(bool)
        return mask, float(attrs["mpp"]), str(attrs["digest"])  # type: ignore[arg-type]

    # -- CAMs --------------------------------------------------------------------------------

    def create_cams(self, classes: int, height: int, width: int) -> None:
        """Make the CAM arrays for K `classes` and maps of ``height x width``, unless they are so."""
        grid, n = self.grid, self.grid.tiles_per_block
        shape = (grid.rows, grid.cols, classes, height, width)
        if "cams/logits" in self._group and self._array("cams/logits").shape == shape:
            return
        for key in ("cams/logits", "cams/classes"):
            self._arrays.pop(key, None)
        cams = self._group.require_group("cams")
        nan = float("nan")
        cams.create_array(
            "logits", shape=shape, dtype="float16", chunks=(1, n, *shape[2:]),
            shards=(n, n, *shape[2:]), fill_value=nan, compressors=_lossless(), overwrite=True,
        )  # fmt: skip
        cams.create_array(
            "classes", shape=shape[:3], dtype="float32", chunks=(n, n, classes),
            fill_value=nan, compressors=_lossless(), overwrite=True,
        )  # fmt: skip

    def write_cams(
        self, block: int, cams: NDArray[np.float16], logits: NDArray[np.float32]
    ) -> None:
        """Write one block's CAMs ``(rows, cols, K, h, w)`` and class logits ``(rows, cols, K)``.

        Rows and columns are the block's own tiles; NaN where a tile holds no tissue.
        """
        rows, cols = self._tile_slices(block)
        self._array("cams/logits")[rows, cols] = cams
        self._array("cams/classes")[rows, cols] = logits

    def read_cams(
        self, rows: slice, cols: slice
    ) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
        """CAMs ``(rows, cols, K, h, w)`` float16 and class logits ``(rows, cols, K)`` float32."""
        if "cams/logits" not in self._group:
            raise StoreError(f"{self.path}: holds no CAMs; run `wsiseg predict` first")
        cams = np.asarray(self._array("cams/logits")[rows, cols])
        return cams, np.asarray(self._array("cams/classes")[rows, cols])

    def _tile_slices(self, block: int) -> tuple[slice, slice]:
        row, col = divmod(block, self.grid.block_cols)
        n = self.grid.tiles_per_block
        bottom, right = min(self.grid.rows, (row + 1) * n), min(self.grid.cols, (col + 1) * n)
        return slice(row * n, max(row * n, bottom)), slice(col * n, max(col * n, right))

    # -- labels ------------------------------------------------------------------------------

    def create_labels(self, palette: Palette) -> None:
        """Make the label and confidence pyramids, unless they are there with this palette."""
        known = {"names": list(palette.names), "colors": [list(c) for c in palette.colors]}
        labels = self._group.require_group("labels")
        if labels.attrs.get("palette") == known:
            return
        for name, fill in (("classes", BACKGROUND), ("confidence", 0)):
            group = labels.create_group(name, overwrite=True)
            scales = []
            for level, factor in enumerate(self.pyramid_factors):
                shape = (-(-self.grid.height // factor), -(-self.grid.width // factor))
                side = max(1, self.grid.block // factor)
                chunk = next(c for c in range(min(side, 512), 0, -1) if side % c == 0)
                group.create_array(
                    str(level), shape=shape, dtype="uint8", chunks=(chunk, chunk),
                    shards=(side, side), fill_value=fill, compressors=_lossless(),
                    dimension_names=("y", "x"),
                )  # fmt: skip
                scales.append([self.mpp * factor, self.mpp * factor])
            ome = _multiscales(name, _SPACE, scales)
            if name == "classes":
                ome["image-label"] = _image_label(palette)
            group.attrs["ome"] = ome
        labels.attrs["ome"] = {"version": "0.5", "labels": ["classes", "confidence"]}
        labels.attrs["palette"] = known  # type: ignore[assignment]

    @property
    def palette(self) -> Palette:
        """The palette that the labels were made with."""
        if "labels/classes" not in self._group:
            raise StoreError(f"{self.path}: holds no labels; run `wsiseg stitch` first")
        known: Any = self._group["labels"].attrs["palette"]
        return Palette(tuple(known["names"]), tuple(tuple(c) for c in known["colors"]))

    @property
    def pyramid_factors(self) -> tuple[int, ...]:
        """Down-sampling of each label level: powers of two that divide a block."""
        factors, factor = [1], 2
        longest = max(self.grid.height, self.grid.width)
        while longest // factors[-1] > _PYRAMID_STOP and self.grid.block % factor == 0:
            factors.append(factor)
            factor *= 2
        return tuple(factors)

    def write_labels(
        self, block: int, level: int, labels: NDArray[np.uint8], confidence: NDArray[np.uint8]
    ) -> None:
        """Write one block's labels and confidence ``(H, W)`` at one pyramid level, whole."""
        factor = self.pyramid_factors[level]
        self._write(f"labels/classes/{level}", block, labels, factor)
        self._write(f"labels/confidence/{level}", block, confidence, factor)

    def read_labels(self, box: Box, level: int = 0) -> NDArray[np.uint8]:
        """Labels ``(H, W)`` uint8 of a box of that level; background outside the raster."""
        return self._read(f"labels/classes/{level}", box, BACKGROUND)

    def read_confidence(self, box: Box, level: int = 0) -> NDArray[np.uint8]:
        """Confidence ``(H, W)`` uint8 of a box of that level; 0 outside the raster."""
        return self._read(f"labels/confidence/{level}", box, 0)

    # -- inner -------------------------------------------------------------------------------

    def _array(self, key: str, create: Any = None) -> zarr.Array[Any]:
        if key not in self._arrays:
            if key not in self._group:
                if create is None:
                    raise StoreError(f"{self.path}: holds no {key}; run the step that makes it")
                create(key)
            self._arrays[key] = self._group[key]  # type: ignore[assignment]
        return self._arrays[key]

    def _write(self, key: str, block: int, data: NDArray[np.uint8], factor: int = 1) -> None:
        box = self.grid.block_box(block)
        y, x = box.y // factor, box.x // factor
        array = self._array(key)
        height, width = data.shape[-2:]
        array[..., y : y + height, x : x + width] = data

    def _read(self, key: str, box: Box, outside: int) -> NDArray[np.uint8]:
        array = self._array(key)
        whole = Box(0, 0, array.shape[-1], array.shape[-2])
        inside = box.intersect(whole)
        if inside == box:
            return np.asarray(array[(..., *box.slices())])
        out = np.full((*array.shape[:-2], box.height, box.width), outside, np.uint8)
        if not inside.empty:
            out[(..., *inside.slices(box))] = array[(..., *inside.slices())]
        return out


_GROUPS = ("image", "tissue", "cams", "labels", "done")
_SPACE: list[dict[str, str]] = [
    {"name": "y", "type": "space", "unit": "micrometer"},
    {"name": "x", "type": "space", "unit": "micrometer"},
]


def _is_ours(path: str | Path) -> bool:
    try:
        return "wsiseg" in zarr.open_group(str(path), mode="r", zarr_format=3).attrs
    except (FileNotFoundError, ValueError):
        return False


def _lossless() -> zarr.codecs.ZstdCodec:
    return zarr.codecs.ZstdCodec(level=1)


def _multiscales(name: str, axes: list[dict[str, str]], scales: list[list[float]]) -> dict[str, Any]:
    """NGFF 0.5 multiscales metadata; `scales` in axis order, one list a level."""
    finest = scales[0]
    datasets = []
    for level, scale in enumerate(scales):
        # Pixel centres shift as pixels grow: half the difference, so that levels lie on each other.
        shift = [(s - f) / 2 for s, f in zip(scale, finest, strict=True)]
        transforms: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
        if any(shift):
            transforms.append({"type": "translation", "translation": shift})
        datasets.append({"path": str(level), "coordinateTransformations": transforms})
    return {"version": "0.5", "multiscales": [{"name": name, "axes": axes, "datasets": datasets}]}


def _image_label(palette: Palette) -> dict[str, Any]:
    return {
        "colors": [
            {"label-value": i, "rgba": [*color, 255]} for i, color in enumerate(palette.colors)
        ],
        "properties": [{"label-value": i, "class": name} for i, name in enumerate(palette.names)],
        "source": {"image": "../../image"},
    }
