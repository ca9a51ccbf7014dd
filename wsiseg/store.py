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
_MASK_CHUNK = 4096  # most masks are one chunk, one file


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
            if not _is_group(path):
                raise FileNotFoundError
            self._group = zarr.open_group(str(path), mode="r+", zarr_format=3)
            self.meta: dict[str, Any] = dict(self._group.attrs["wsiseg"])  # type: ignore[arg-type]
            known = self.meta["format"]
            self.grid = TileGrid(**self.meta["grid"])
        except (FileNotFoundError, KeyError, ValueError) as error:
            raise StoreError(f"{path}: is not a wsiseg store; run `wsiseg tile` first") from error
        if known != FORMAT:
            raise StoreError(
                f"{path}: has format {known}, this wsiseg reads {FORMAT}; "
                f"tile the slide again, or use the wsiseg that wrote it"
            )
        self._arrays: dict[str, zarr.Array[Any]] = {}

    @classmethod
    def create(
        cls, path: str | Path, grid: TileGrid, mpp: float, slide: dict[str, Any]
    ) -> SlideStore:
        """Make the store, or open it if it was made from the same slide and grid.

        `slide` is plain JSON: name, path, identity, size, mpp, bounds. The slide may have moved;
        its new path is noted. A store of another grid, mpp or slide keeps its place, but its
        arrays are laid out anew and every mark is cleared.

        Raises
        ------
        StoreError
            If the path holds something that wsiseg did not write.
        """
        meta: dict[str, Any] = {
            "format": FORMAT,
            "mpp": mpp,
            "slide": slide,
            "grid": {name: getattr(grid, name) for name in grid.__dataclass_fields__},
        }
        try:
            existing = cls(path)
        except StoreError:
            if not _is_free(path):
                raise StoreError(
                    f"{path}: holds something that wsiseg did not write; choose another path"
                ) from None
        else:
            if _same_pixels(existing.meta, meta):
                if existing.meta != meta:
                    existing._group.attrs["wsiseg"] = existing.meta = meta
                return existing
        cls._lay_out(path, grid, meta)
        return cls(path)

    @staticmethod
    def _lay_out(path: str | Path, grid: TileGrid, meta: dict[str, Any]) -> None:
        # Ours, but no store yet: killed from here on, it is laid out again, never half believed.
        unfinished: dict[str, Any] = {"wsiseg": {"format": FORMAT}}
        group = zarr.open_group(str(path), mode="a", zarr_format=3, attributes=unfinished)
        group.attrs.update(unfinished)
        for name in [key for key in group.group_keys() if key in _GROUPS]:
            del group[name]
        image = group.create_group("image")
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
        name, mpp = str(meta["slide"].get("name", "image")), meta["mpp"]
        axes = [{"name": "c", "type": "channel"}, *_SPACE]
        image.attrs["ome"] = _multiscales(name, axes, [[1.0, mpp, mpp]])
        group.attrs["wsiseg"] = meta

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

    def finished(self, step: str) -> str:
        """The digest with which `step` finished every block.

        Raises
        ------
        StoreError
            If blocks are missing, or were made with different settings.
        """
        if f"done/{step}" in self._group:
            marks = np.asarray(self._array(f"done/{step}")[:])
            if marks[0].any() and (marks == marks[0]).all():
                return bytes(marks[0]).hex()
        raise StoreError(f"{self.path}: `wsiseg {step}` did not finish here; run it first")

    def clear_marks(self) -> None:
        """Forget what was done, so that every step is done again; no pixel is deleted."""
        for key in [key for key in self._arrays if key.startswith("done/")]:
            del self._arrays[key]
        if "done" in self._group:
            del self._group["done"]

    def _create_marks(self, key: str) -> None:
        self._group.create_array(
            key, shape=(self.grid.n_blocks, 32), dtype="uint8", chunks=(1, 32), compressors=None
        )

    # -- image -------------------------------------------------------------------------------

    def write_image(self, block: int, pixels: NDArray[np.uint8]) -> None:
        """Write one block's pixels ``(H, W, 3)`` uint8, whole; all-white tiles stay absent."""
        self._write("image/0", block, np.moveaxis(pixels, 2, 0))

    def erase_image(self, block: int) -> None:
        """Make one block white again, by taking its file away if it has one."""
        row, col = divmod(block, self.grid.block_cols)
        self.path.joinpath("image/0/c/0", str(row), str(col)).unlink(missing_ok=True)

    def read_image(self, box: Box) -> NDArray[np.uint8]:
        """Pixels ``(H, W, 3)`` uint8 of a box, white outside the raster and where no tissue is."""
        return np.ascontiguousarray(np.moveaxis(self._read("image/0", box, 255), 0, 2))

    # -- tissue ------------------------------------------------------------------------------

    def write_tissue(self, mask: NDArray[np.bool_], mpp: float, digest: str) -> None:
        """Keep the tissue mask ``(h, w)`` bool at `mpp`, and the digest of what made it."""
        group = self._group.require_group("tissue")
        group.attrs["digest"] = ""  # so that a half-written mask is not taken for a whole one
        self._arrays.pop("tissue/mask", None)
        height, width = (min(length, _MASK_CHUNK) for length in mask.shape)
        data = mask.astype(np.uint8)
        group.create_array("mask", data=data, chunks=(height, width), overwrite=True)
        group.attrs.update({"mpp": mpp, "digest": digest})

    @property
    def tissue_digest(self) -> str:
        """The digest that `write_tissue` was given; empty if there is no whole mask."""
        return str(self._group["tissue"].attrs["digest"]) if "tissue" in self._group else ""

    @property
    def tissue_mpp(self) -> float:
        """µm/px of the tissue mask; raises `StoreError` if none was stored yet."""
        self._check_tissue()
        return float(self._group["tissue"].attrs["mpp"])  # type: ignore[arg-type]  # JSON number

    def read_tissue(self, box: Box | None = None) -> tuple[NDArray[np.bool_], float, str]:
        """The tissue mask ``(h, w)`` bool, its µm/px and its digest.

        With a `box` in mask pixels only that window is read; False outside the mask.

        Raises
        ------
        StoreError
            If no mask was stored yet.
        """
        self._check_tissue()
        array = self._array("tissue/mask")
        if box is None:
            box = Box(0, 0, array.shape[1], array.shape[0])
        mask = self._read("tissue/mask", box, 0).astype(bool)
        return mask, self.tissue_mpp, self.tissue_digest

    def _check_tissue(self) -> None:
        if not self.tissue_digest:
            raise StoreError(f"{self.path}: holds no tissue mask; run `wsiseg tile` first")

    # -- CAMs --------------------------------------------------------------------------------

    def create_cams(self, palette: Palette, height: int, width: int) -> None:
        """Make the CAM arrays for the palette's K classes and maps of ``height x width``.

        Arrays that are there already stay as they are if they have this shape.
        """
        grid, n, classes = self.grid, self.grid.tiles_per_block, len(palette)
        shape = (grid.rows, grid.cols, classes, height, width)
        cams = self._group.require_group("cams")
        cams.attrs["palette"] = _plain(palette)
        whole = "cams/logits" in self._group and "cams/classes" in self._group
        if whole and self._array("cams/logits").shape == shape:
            return
        for key in ("cams/logits", "cams/classes"):
            self._arrays.pop(key, None)
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

    @property
    def cam_palette(self) -> Palette:
        """Names and colours of the CAMs' classes, from the model that made them."""
        if "cams/logits" not in self._group:
            raise StoreError(f"{self.path}: holds no CAMs; run `wsiseg predict` first")
        return _palette(self._group["cams"].attrs["palette"])

    @property
    def cam_size(self) -> tuple[int, int]:
        """Height and width of a tile's CAM in cells."""
        height, width = self._array("cams/logits").shape[3:]
        return height, width

    def count_tiles(self) -> int:
        """Number of tiles that the model saw."""
        logits = np.asarray(self._array("cams/classes")[..., 0])
        return int(np.isfinite(logits).sum())

    def _tile_slices(self, block: int) -> tuple[slice, slice]:
        row, col = divmod(block, self.grid.block_cols)
        n = self.grid.tiles_per_block
        bottom, right = min(self.grid.rows, (row + 1) * n), min(self.grid.cols, (col + 1) * n)
        return slice(row * n, max(row * n, bottom)), slice(col * n, max(col * n, right))

    # -- labels ------------------------------------------------------------------------------

    def create_labels(self, palette: Palette) -> None:
        """Make the label and confidence pyramids, unless they are there with this palette."""
        known = _plain(palette)
        labels = self._group.require_group("labels")
        if labels.attrs.get("palette") == known:
            return
        labels.attrs["palette"] = {}  # so that half-made arrays are not taken for whole ones
        for key in [key for key in self._arrays if key.startswith("labels/")]:
            del self._arrays[key]
        for name, fill in (("classes", BACKGROUND), ("confidence", 0)):
            group = labels.create_group(name, overwrite=True)
            scales = []
            for level, factor in enumerate(self.pyramid_factors):
                box = self.level_box(level)
                side = max(1, self.grid.block // factor)
                chunk = next(c for c in range(min(side, 512), 0, -1) if side % c == 0)
                group.create_array(
                    str(level), shape=(box.height, box.width), dtype="uint8", chunks=(chunk, chunk),
                    shards=(side, side), fill_value=fill, compressors=_lossless(),
                    dimension_names=("y", "x"),
                )  # fmt: skip
                scales.append([self.mpp * factor, self.mpp * factor])
            ome = _multiscales(name, _SPACE, scales)
            if name == "classes":
                ome["image-label"] = _image_label(palette)
            group.attrs["ome"] = ome
        labels.attrs["ome"] = {"version": "0.5", "labels": ["classes", "confidence"]}
        labels.attrs["palette"] = known

    @property
    def palette(self) -> Palette:
        """The palette that the labels were made with."""
        known = self._group["labels"].attrs.get("palette") if "labels" in self._group else None
        if not known:
            raise StoreError(f"{self.path}: holds no labels; run `wsiseg stitch` first")
        return _palette(known)

    @property
    def pyramid_factors(self) -> tuple[int, ...]:
        """Down-sampling of each label level: powers of two that divide a block."""
        factors, factor = [1], 2
        longest = max(self.grid.height, self.grid.width)
        while longest // factors[-1] > _PYRAMID_STOP and self.grid.block % factor == 0:
            factors.append(factor)
            factor *= 2
        return tuple(factors)

    def level_box(self, level: int) -> Box:
        """The whole raster in pixels of one pyramid level."""
        factor = self.pyramid_factors[level]
        return Box(0, 0, -(-self.grid.width // factor), -(-self.grid.height // factor))

    def write_labels(
        self, block: int, level: int, labels: NDArray[np.uint8], confidence: NDArray[np.uint8]
    ) -> None:
        """Write one block's labels and confidence ``(H, W)`` at one pyramid level, whole."""
        factor = self.pyramid_factors[level]
        self._write(f"labels/classes/{level}", block, labels, factor)
        self._write(f"labels/confidence/{level}", block, confidence, factor)

    def erase_labels(self, block: int) -> None:
        """Make one block background again, by taking its files away if it has any."""
        row, col = divmod(block, self.grid.block_cols)
        for name in ("classes", "confidence"):
            for level in range(len(self.pyramid_factors)):
                place = self.path / "labels" / name / str(level) / "c" / str(row) / str(col)
                place.unlink(missing_ok=True)

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


def _is_free(path: str | Path) -> bool:
    """Whether a store may be laid out here: nothing, an empty folder, or what we began."""
    path = Path(path)
    if not _is_group(path):
        return not path.exists() or (path.is_dir() and not any(path.iterdir()))
    try:
        return "wsiseg" in zarr.open_group(str(path), mode="r", zarr_format=3).attrs
    except ValueError:
        return False


def _is_group(path: str | Path) -> bool:
    """Whether there is something to open; zarr would make the folder in order to look."""
    return Path(path, "zarr.json").is_file()


def _same_pixels(known: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether two stores' facts describe the same raster of the same slide, wherever it lies."""
    whole = [{key: meta[key] for key in ("format", "mpp", "grid")} for meta in (known, wanted)]
    slide = [
        {key: value for key, value in meta["slide"].items() if key not in ("path", "mpp_source")}
        for meta in (known, wanted)
    ]
    return whole[0] == whole[1] and slide[0] == slide[1]


def _lossless() -> zarr.codecs.ZstdCodec:
    return zarr.codecs.ZstdCodec(level=1)


def _multiscales(
    name: str, axes: list[dict[str, str]], scales: list[list[float]]
) -> dict[str, Any]:
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


def _plain(palette: Palette) -> dict[str, Any]:
    return {"names": list(palette.names), "colors": [list(color) for color in palette.colors]}


def _palette(plain: Any) -> Palette:
    return Palette(tuple(plain["names"]), tuple(tuple(color) for color in plain["colors"]))


def _image_label(palette: Palette) -> dict[str, Any]:
    return {
        "colors": [
            {"label-value": i, "rgba": [*color, 255]} for i, color in enumerate(palette.colors)
        ],
        "properties": [{"label-value": i, "class": name} for i, name in enumerate(palette.names)],
        "source": {"image": "../../image"},
    }
