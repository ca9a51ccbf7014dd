"""SlideStore: one slide's pixels, mask, CAMs, labels and marks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from wsiseg.annotations import Palette
from wsiseg.config import digest_of
from wsiseg.errors import StoreError
from wsiseg.geometry import Box
from wsiseg.grid import TileGrid
from wsiseg.lock import check_held
from wsiseg.shrink import shrink_mean
from wsiseg.store import layout
from wsiseg.store.codecs import CodecName
from wsiseg.store.files import Files, is_url, open_files
from wsiseg.store.layout import FORMAT, READABLE
from wsiseg.store.marks import OPTIONAL, Mark, Marks
from wsiseg.store.shards import Receipt, ShardedArray

__all__ = ["SlideStore"]


class SlideStore:
    """One slide's Zarr group, opened for reading and writing.

    It lies in a folder, or in a bucket: ``s3://``, ``gs://``, ``az://`` or ``memory://`` with the
    extra `cloud`. Cheap to open and picklable by its location: workers open their own.

    Parameters
    ----------
    path
        The folder or URL.
    run
        Token of the run that holds the store's lock, if one does: no block is begun or marked once
        another has taken over.

    Raises
    ------
    StoreError
        If the location holds something that wsiseg did not write, or another format version.
    MissingDependencyError
        If a URL needs obstore.
    """

    location: str | Path
    """Where it lies, and how it is opened again: a `Path`, or a URL as text."""
    path: Path
    """The same for a folder; of a URL, what follows the scheme, for its name and messages."""

    def __init__(self, path: str | Path, run: str = "") -> None:
        self._run = run
        self.location = path if is_url(path) else Path(path)
        self.path = Path(str(path).partition("://")[2]) if is_url(path) else Path(path)
        self._files = open_files(path)
        try:
            self.meta = _read_meta(self._files)
            known = int(self.meta["format"])
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{path}: is not a wsiseg store; run `wsiseg tile` first") from error
        if known not in READABLE:
            advice = "choose another output" if known > FORMAT else "tile the slide again"
            raise StoreError(
                f"{path}: has format {known}, this wsiseg reads {' and '.join(map(str, READABLE))};"
                f" {advice}, or use the wsiseg that wrote it"
            )
        try:
            self.grid = TileGrid(**self.meta["grid"])
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{path}: is not a wsiseg store; run `wsiseg tile` first") from error
        self._arrays: dict[str, ShardedArray] = {}
        self._marks = Marks(self._files, self.grid)
        self._receipts: dict[tuple[str, int], Receipt | None] = {}

    @cached_property
    def _group(self) -> zarr.Group:
        """What lays arrays out; opened when that is asked for, as it costs milliseconds a block."""
        # What a user consolidated is as old as that: it does not say what was made since.
        return zarr.open_group(
            self._files.for_zarr, mode="r+", zarr_format=3, use_consolidated=False
        )

    @cached_property
    def _cam_facts(self) -> dict[str, Any]:
        """What `create_cams` noted; a block asks for it several times, at a millisecond each."""
        return self._group["cams"].attrs.asdict()

    def __reduce__(self) -> tuple[type[SlideStore], tuple[str | Path, str]]:
        return SlideStore, (self.location, self._run)

    @classmethod
    def create(
        cls,
        path: str | Path,
        grid: TileGrid,
        mpp: float,
        slide: dict[str, Any],
        codec: CodecName = "lz4",
    ) -> SlideStore:
        """Make the store, or open it if it was made from the same slide and grid.

        `slide` is plain JSON: name, path, identity, size, mpp, bounds. The slide may have moved;
        its new path is noted. `codec` packs the image of a new store: its pixels, and so what is
        made of them, are the same with each, so a store that is there keeps its own. A store of
        another grid, mpp or slide keeps its place, but its arrays are laid out anew and every mark
        is cleared.

        Raises
        ------
        StoreError
            If the location holds something that wsiseg did not write, or that a newer one did.
        """
        meta: dict[str, Any] = {
            "format": FORMAT,
            "mpp": mpp,
            "slide": slide,
            "grid": {name: getattr(grid, name) for name in grid.__dataclass_fields__},
            "codec": codec,
        }
        try:
            existing = cls(path)
        except StoreError:
            if _is_newer(open_files(path)):
                raise  # it says which format it has, and which we read
            if not _is_free(open_files(path)):
                raise StoreError(
                    f"{path}: holds something that wsiseg did not write; choose another path"
                ) from None
        else:
            if _same_pixels(existing.meta, meta) and existing.has_image:
                meta["codec"] = existing.meta["codec"]
                if existing.meta != meta:
                    existing._group.attrs["wsiseg"] = existing.meta = meta
                return existing
        layout.lay_out_store(open_files(path), grid, meta, codec)
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
        mark = self._marks.read(step, block)
        return mark is not None and mark.digest == digest

    def pending(self, step: str, digest: str | Sequence[str]) -> list[int]:
        """Blocks that `step` has still to do, in order; `digest` is each block's own, or all's.

        Those too that it did, where a file of theirs is lost or was cut since.
        """
        marks = self._marks.read_all(step)
        wanted = [digest] * len(marks) if isinstance(digest, str) else digest
        lost = self._marks.lost(step, marks, self._array_or_none)
        return [
            block
            for block, mark in enumerate(marks)
            if mark is None or mark.digest != wanted[block] or block in lost
        ]

    def plan(self, step: str, digests: Sequence[str], after: str = "") -> tuple[str, list[int]]:
        """Note what `step` is to make of the blocks, so that `finished` knows when it has.

        Parameters
        ----------
        digests
            Of all that makes each block.
        after
            Digest of the whole step before, if there is one.

        Returns
        -------
        Digest of the whole step, and the blocks that are still to be done.
        """
        self._check_current()
        self._lay_out_marks(step)
        whole = digest_of(digests)
        noted = {"blocks": whole, "after": after}
        if self._marks.plan(step) != noted:
            self._group[f"done/{step}"].attrs["plan"] = noted
        return whole, self.pending(step, digests)

    def begin(self, step: str, block: int) -> None:
        """Forget the mark of a block that is about to be written.

        Else a run with other settings that is killed between the writing and the marking would
        leave its pixels under the old mark.

        Raises
        ------
        StoreError
            If the store is of an older format, or another run took over.
        """
        self._check_current()
        check_held(self.location, self._run)
        self._marks.forget(step, [block])
        for array in self._marks.arrays[step]:
            self._receipts.pop((array, block), None)

    def mark_done(self, step: str, block: int, digest: str) -> None:
        """Record, last of all, that `step` finished `block`, with what this object wrote of it.

        What was written is on the disk before its mark is.

        Raises
        ------
        StoreError
            If another run took over: what was written may lie over its work, which then is not
            done any more.
        """
        names = self._marks.arrays[step]
        self._lay_out_marks(step)
        shards = {name: self._receipts.get((name, block)) for name in names}
        place = divmod(block, self.grid.block_cols)
        self._files.sync(
            self._array(name).shard_key(*place) for name, receipt in shards.items() if receipt
        )
        try:
            check_held(self.location, self._run)
        except StoreError:
            self._marks.forget(step, [block])
            raise
        self._marks.write(step, block, Mark(digest, shards))

    def finished(self, step: str) -> str:
        """The digest of the whole step, if every block was made as it was last planned.

        Raises
        ------
        StoreError
            If blocks are missing, were made with different settings, or have lost a file since.
        """
        return self.digests(step)[0]

    def marked(self, step: str) -> str:
        """As `finished`, but files are not looked for, which takes most of the time.

        Empty if it is not finished. One that is lost is told when it is read.
        """
        return self._marked(step)[0]

    def planned(self, step: str) -> str | None:
        """What `finished` gives when the step is done as it was last planned; None if unknown."""
        plan = self._marks.plan(step)
        return plan["blocks"] if plan else None

    def digests(self, step: str, before: str = "") -> tuple[str, list[str]]:
        """Digests of a finished step and of its blocks; `before` is the step that it hangs on.

        Raises
        ------
        StoreError
            As `finished` does, and if `before` was planned anew since.
        """
        whole, marks, plan = self._marked(step)
        if not whole:
            raise StoreError(f"{self.path}: `wsiseg {step}` did not finish here; run it first")
        lost = self._marks.lost(step, marks, self._array_or_none)
        if lost:
            raise StoreError(
                f"{self.path}: {len(lost)} of {len(marks)} blocks that `wsiseg {step}` finished "
                f"lost files since (block {min(lost)} is the first); run it again: it does those"
            )
        earlier = self._marks.plan(before) if before else None
        if plan and earlier and plan["after"] != earlier["blocks"]:
            raise StoreError(
                f"{self.path}: `wsiseg {before}` was run with other settings after `wsiseg {step}`;"
                f" run `wsiseg {step}` again"
            )
        return whole, [mark.digest if mark else "" for mark in marks]

    def _marked(self, step: str) -> tuple[str, list[Mark | None], Mapping[str, str] | None]:
        """Digest of the whole step, empty if it is not finished; its marks and its plan."""
        marks, plan = self._marks.read_all(step), self._marks.plan(step)
        digests = [mark.digest if mark else "" for mark in marks]
        if plan is None:  # of format 2: one digest was all blocks' and the step's
            return digests[0] if len(set(digests)) == 1 else "", marks, plan
        whole = digest_of(digests)
        return whole if whole == plan["blocks"] else "", marks, plan

    def _lay_out_marks(self, step: str) -> None:
        if not self._has_file(f"done/{step}"):
            names = self._marks.arrays[step]
            layout.lay_out_marks(self._group, f"done/{step}", self.grid.n_blocks, names)

    def clear_marks(self, step: str = "") -> None:
        """Forget what was done, by one step or by all, so that it is done again.

        No pixel is deleted.
        """
        gone = f"done/{step}" if step else "done"
        if gone in self._group:
            del self._group[gone]

    def _check_current(self) -> None:
        """Refuse to write into a store of an older format."""
        if self.meta["format"] != FORMAT:
            raise StoreError(
                f"{self.path}: has format {self.meta['format']}, of an older wsiseg: it can be "
                f"read and exported; to go on with it, tile the slide again (format {FORMAT})"
            )

    def _is_promised(self, array: str, row: int, col: int) -> bool:
        """Whether a shard is marked as written."""
        block = row * self.grid.block_cols + col
        for step, arrays in self._marks.arrays.items():
            if array in arrays:
                mark = self._marks.read(step, block)
                return mark is not None and mark.promises(array)
        return any((row, col) == shard[:2] for shard in self.tissue_shards)

    # -- image -------------------------------------------------------------------------------

    @property
    def image_factors(self) -> tuple[int, ...]:
        """Down-sampling of each image level: powers of four that divide a block."""
        return layout.image_factors(self.grid)

    @property
    def has_image(self) -> bool:
        """Whether the arrays of the image are there, whatever is in them."""
        return all(map(self._has_array, self._marks.arrays["tile"]))

    def write_image(
        self, block: int, pixels: NDArray[np.uint8], squares: NDArray[np.bool_] | None = None
    ) -> None:
        """Write one block's pixels ``(H, W, 3)`` uint8 and coarser levels; white stays absent.

        Of its squares of ``grid.tile`` px, ``(n, m)`` bool, those that `squares` does not name are
        known to be white.
        """
        self._write("image/0", block, pixels, squares)
        for level, (finer, factor) in enumerate(pairwise(self.image_factors), 1):
            pixels = shrink_mean(pixels, factor // finer)
            self._write(f"image/{level}", block, pixels)

    def leave_white(self, blocks: Sequence[int], digests: Sequence[str]) -> None:
        """Make blocks white and mark them: `digests` are those of all blocks.

        Only what is there is taken away, and many are asked at once: most of a slide is glass, and
        a bucket answers late.
        """
        self._check_current()
        self._marks.forget("tile", blocks)
        names = self._marks.arrays["tile"]
        there = {key for name in names for key in self._files.sizes(f"{name}/c")}
        places = [divmod(block, self.grid.block_cols) for block in blocks]
        keys = [self._array(name).shard_key(*place) for name in names for place in places]
        self._files.each(self._files.delete, [key for key in keys if key in there])
        empty = dict.fromkeys(names)
        self._files.each(
            lambda block: self._marks.write("tile", block, Mark(digests[block], empty)), blocks
        )

    def erase_image(self, block: int) -> None:
        """Make one block white again, by taking its files away if it has any."""
        self._erase(block, [f"image/{level}" for level in range(len(self.image_factors))])

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

    # -- damage ------------------------------------------------------------------------------

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

    # -- tissue ------------------------------------------------------------------------------

    def write_tissue(
        self, mask: NDArray[np.bool_], mpp: float, digest: str, note: str = ""
    ) -> None:
        """Keep the tissue mask ``(h, w)`` bool at `mpp`, and the digest of what made it.

        `note` is what a user should know about it.
        """
        self._check_current()
        if self._marks.plan("tile"):  # the blocks of another mask are no finished step of this one
            self._group["done/tile"].attrs["plan"] = {"blocks": "", "after": ""}
        group = self._group.require_group("tissue")
        group.attrs["digest"] = ""  # so that a half-written mask is not taken for a whole one
        self._arrays.pop("tissue/mask", None)
        layout.lay_out_tissue(group, *mask.shape)
        array = self._array("tissue/mask")
        written = array.write_all(mask.astype(np.uint8))
        self._files.sync(array.shard_key(*place) for place in written)
        shards = [[*place, *receipt] for place, receipt in written.items()]
        group.attrs.update({"mpp": mpp, "digest": digest, "note": note, "shards": shards})

    @property
    def tissue_digest(self) -> str:
        """The digest that `write_tissue` was given; empty if there is no whole mask."""
        group = self._group.get("tissue")
        return str(group.attrs.get("digest", "")) if group is not None else ""

    @property
    def tissue_note(self) -> str:
        """What a user should know about the mask; empty if nothing."""
        group = self._group.get("tissue")
        return str(group.attrs.get("note", "")) if group is not None else ""

    @property
    def tissue_shards(self) -> list[tuple[int, int, int, int]]:
        """Row, column, size and CRC-32C of each shard of the mask that was written."""
        facts: Any = self._group["tissue"].attrs if "tissue" in self._group else {}
        return [tuple(shard) for shard in facts.get("shards", ())]

    def forget_tissue(self) -> None:
        """Have the mask made again by the next run; it stays until then."""
        if "tissue" in self._group:
            self._group["tissue"].attrs["digest"] = ""

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
        mask = array.read(array.box if box is None else box).astype(bool)
        return mask, self.tissue_mpp, self.tissue_digest

    def _check_tissue(self) -> None:
        if not self.tissue_digest:
            raise StoreError(f"{self.path}: holds no tissue mask; run `wsiseg tile` first")

    # -- CAMs --------------------------------------------------------------------------------

    def create_cams(
        self, palette: Palette, height: int, width: int, *, channels: int | None = None,
        calibration: Sequence[tuple[float, float]] = (),
    ) -> None:  # fmt: skip
        """Make the CAM arrays for the palette's K classes and maps of ``height x width``.

        Arrays that are there already stay as they are if they have this shape.

        Parameters
        ----------
        channels
            K, or more: kinds of background that the model tells apart, after the classes.
        calibration
            Scale and offset of each channel, which turn its CAM into a logit to believe; empty
            where the CAMs are that, or where nobody knows.
        """
        self._check_current()
        channels = len(palette) if channels is None else channels
        shape = (self.grid.rows, self.grid.cols, channels, height, width)
        cams = self._group.require_group("cams")
        if cams.attrs.get("palette") != layout.plain_palette(palette):
            self.clear_marks("predict")  # else what is finished would bear the new names
        cams.attrs["palette"] = layout.plain_palette(palette)
        cams.attrs["calibration"] = [list(pair) for pair in calibration]
        self.__dict__.pop("_cam_facts", None)
        keys = ("cams/logits", "cams/classes", "cams/distance")
        if all(map(self._has_array, keys)) and self._array("cams/logits").shape == shape:
            return
        self.clear_marks("predict")  # also of other settings: what they marked is no longer there
        for key in keys:
            self._arrays.pop(key, None)
        layout.lay_out_cams(cams, self.grid, channels, height, width)

    def write_cams(
        self, block: int, cams: NDArray[np.float16], logits: NDArray[np.float32],
        distances: NDArray[np.float32] | None = None,
    ) -> None:  # fmt: skip
        """Write one block's CAMs ``(rows, cols, C, h, w)`` and class logits ``(rows, cols, C)``.

        Rows and columns are the block's own tiles; NaN where a tile holds no tissue. C are the
        channels: the K classes, then kinds of background, if there are any. `distances`
        ``(rows, cols)`` say how unlike the training patches a tile is; NaN where nobody looked.
        """
        self._write("cams/logits", block, cams)
        self._write("cams/classes", block, logits)
        if distances is None:
            self._erase(block, ["cams/distance"])
        else:
            self._write("cams/distance", block, distances)

    def read_cams(
        self, rows: slice, cols: slice
    ) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
        """CAMs ``(rows, cols, C, h, w)`` float16 and class logits ``(rows, cols, C)`` float32.

        All C channels: of the classes, and of kinds of background after them.
        """
        self._check_cams()
        cams = self._array("cams/logits").read(_tile_box(rows, cols))
        return cams, self.read_class_logits(rows, cols)

    def read_class_logits(self, rows: slice, cols: slice) -> NDArray[np.float32]:
        """Class logits ``(rows, cols, C)`` float32 alone: one value a tile and channel."""
        self._check_cams()
        return self._array("cams/classes").read(_tile_box(rows, cols))

    @property
    def cam_palette(self) -> Palette:
        """Names and colours of the CAMs' classes, from the model that made them."""
        self._check_cams()
        return layout.palette_of(self._cam_facts["palette"])

    @property
    def cam_calibration(self) -> NDArray[np.float32] | None:
        """``(channels, 2)`` scale and offset of each channel's CAM; None where they are unknown."""
        self._check_cams()
        known = self._cam_facts.get("calibration")
        return np.array(known, np.float32) if known else None

    @property
    def cam_channels(self) -> int:
        """Channels of a CAM: K classes, those of `cam_palette`, then kinds of background."""
        self._check_cams()
        return int(self._array("cams/logits").shape[2])

    @property
    def cam_size(self) -> tuple[int, int]:
        """Height and width of a tile's CAM in cells."""
        height, width = self._array("cams/logits").shape[3:]
        return height, width

    def read_distances(self) -> NDArray[np.float32]:
        """``(N,)`` distances from the training patches of those tiles that were looked at."""
        self._check_cams()
        array = self._array("cams/distance")
        found = array.read(array.box)
        return np.asarray(found[np.isfinite(found)])

    def count_tiles(self) -> int:
        """Number of tiles that the model saw."""
        classes = self._array("cams/classes")
        return int(np.isfinite(classes.read(classes.box)[..., 0]).sum())

    def _check_cams(self) -> None:
        if not self._has_array("cams/logits"):
            raise StoreError(f"{self.path}: holds no CAMs; run `wsiseg predict` first")

    # -- labels ------------------------------------------------------------------------------

    def create_labels(self, palette: Palette) -> None:
        """Make the label and confidence pyramids, unless they are there with this palette."""
        self._check_current()
        known = layout.plain_palette(palette)
        labels = self._group.require_group("labels")
        needed = [key for key in self._marks.arrays["stitch"] if key.startswith("labels/")]
        if labels.attrs.get("palette") == known and all(map(self._has_array, needed)):
            return
        self.clear_marks("stitch")
        labels.attrs["palette"] = {}  # so that half-made arrays are not taken for whole ones
        self._forget("labels/")
        layout.lay_out_labels(labels, self.grid, palette, self.mpp)
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
        """Down-sampling of each label level: powers of two that divide a block."""
        return layout.label_factors(self.grid)

    def level_box(self, level: int) -> Box:
        """The whole raster in pixels of one label level."""
        return layout.level_box(self.grid, self.pyramid_factors[level])

    def write_labels(
        self, block: int, level: int, labels: NDArray[np.uint8], confidence: NDArray[np.uint8]
    ) -> None:
        """Write one block's labels and confidence ``(H, W)`` at one pyramid level, whole."""
        self._write(f"labels/classes/{level}", block, labels)
        self._write(f"labels/confidence/{level}", block, confidence)

    def erase_labels(self, block: int) -> None:
        """Make one block background again, by taking its files away if it has any."""
        levels = range(len(self.pyramid_factors))
        self._erase(block, [f"labels/{n}/{i}" for n in ("classes", "confidence") for i in levels])

    def read_labels(self, box: Box, level: int = 0) -> NDArray[np.uint8]:
        """Labels ``(H, W)`` uint8 of a box of that level; background outside the raster."""
        return self._array(f"labels/classes/{level}").read(box)

    def read_confidence(self, box: Box, level: int = 0) -> NDArray[np.uint8]:
        """Confidence ``(H, W)`` uint8 of a box of that level; 0 outside the raster."""
        return self._array(f"labels/confidence/{level}").read(box)

    # -- probabilities -----------------------------------------------------------------------

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
            layout.lay_out_probabilities(self._group, self.grid, palette, self.mpp)

    def drop_probabilities(self) -> None:
        """Take away those of an earlier run: nobody asks for them any more. The labels stay."""
        if "probabilities" not in self._group:
            return
        self._forget("probabilities/")
        del self._group["probabilities"]
        for block, mark in enumerate(self._marks.read_all("stitch")):
            if mark is not None and mark.shards is not None:
                kept = {k: None if k.startswith(OPTIONAL) else v for k, v in mark.shards.items()}
                self._marks.write("stitch", block, Mark(mark.digest, kept))

    def write_probabilities(self, block: int, level: int, shares: NDArray[np.uint8]) -> None:
        """Write one block's probabilities ``(K, H, W)`` uint8, in 255ths, at one pyramid level."""
        self._write(f"probabilities/{level}", block, np.moveaxis(shares, 0, 2))

    def erase_probabilities(self, block: int) -> None:
        """Make one block's probabilities 0 again, by taking its files away if it has any."""
        self._erase(block, [f"probabilities/{i}" for i in range(len(self.pyramid_factors))])

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

    # -- inner -------------------------------------------------------------------------------

    def _array(self, key: str) -> ShardedArray:
        if key not in self._arrays:
            try:
                promised = partial(self._is_promised, key)
                self._arrays[key] = ShardedArray(self._files, key, promised)
            except KeyError as error:
                raise StoreError(
                    f"{self.path}: holds no {key}; run the step that makes it"
                ) from error
        return self._arrays[key]

    def _array_or_none(self, key: str) -> ShardedArray | None:
        return self._array(key) if self._has_array(key) else None

    def _write(
        self, key: str, block: int, data: NDArray[Any], present: NDArray[np.bool_] | None = None
    ) -> None:
        """Write a block's shard of one array, and keep its receipt for the mark."""
        place, array = divmod(block, self.grid.block_cols), self._array(key)
        receipt = self._receipts[key, block] = array.write(*place, data, present)
        if receipt:  # the disk works while the next array is packed
            self._files.begin_sync(array.shard_key(*place))

    def _erase(self, block: int, keys: Iterable[str]) -> None:
        """Take a block's shards away."""
        place = divmod(block, self.grid.block_cols)
        self._files.each(lambda key: self._array(key).erase(*place), keys)
        for key in keys:
            self._receipts.pop((key, block), None)

    @property
    def _probability_palette(self) -> Any:
        known = "probabilities" in self._group
        return self._group["probabilities"].attrs.get("palette") if known else None

    def _forget(self, prefix: str) -> None:
        """Look at these arrays anew when they are next asked for."""
        for key in [key for key in self._arrays if key.startswith(prefix)]:
            del self._arrays[key]

    def _has_array(self, key: str) -> bool:
        """Whether an array is there and whole, as far as its description goes."""
        with suppress(StoreError):
            return bool(self._array(key))
        return False

    def _has_file(self, key: str) -> bool:
        return self._files.read(f"{key}/zarr.json") is not None


def _damage_key(part: str) -> str:
    return f"damage/{part}.json"


def _tile_box(rows: slice, cols: slice) -> Box:
    return Box(cols.start, rows.start, cols.stop - cols.start, rows.stop - rows.start)


def _read_meta(files: Files) -> dict[str, Any]:
    """What `SlideStore.create` noted; raises `KeyError` or `ValueError` if it noted nothing."""
    data = files.read("zarr.json")
    if data is None:
        raise KeyError("zarr.json")
    return dict(json.loads(data)["attributes"]["wsiseg"])


def _is_newer(files: Files) -> bool:
    """Whether a newer wsiseg wrote a store here, of which we cannot tell what it is worth."""
    try:
        return int(_read_meta(files)["format"]) > FORMAT
    except (KeyError, TypeError, ValueError):
        return False


def _is_free(files: Files) -> bool:
    """Whether a store may be laid out here: nothing, an empty folder, or what we began."""
    if files.read("zarr.json") is None:
        return files.empty()
    try:
        return bool(_read_meta(files))
    except (KeyError, TypeError, ValueError):
        return False


def _same_pixels(known: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether two stores' facts describe the same raster of the same slide, wherever it lies."""
    whole = [{key: meta[key] for key in ("format", "mpp", "grid")} for meta in (known, wanted)]
    slide = [
        {key: value for key, value in meta["slide"].items() if key not in ("path", "mpp_source")}
        for meta in (known, wanted)
    ]
    return whole[0] == whole[1] and slide[0] == slide[1]
