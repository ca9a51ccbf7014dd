"""Read and write sharded arrays without the detour through zarr's event loop.

A shard is Zarr v3's `sharding_indexed`: compressed chunks, then the offset and length of each, then
a checksum of that index; each chunk ends in its own checksum. zarr, zarrs and tensorstore read the
same values; reading and writing here costs little more than the codec.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsiseg.errors import StoreError
from wsiseg.geometry import Box
from wsiseg.store.codecs import Codec, checksum, codec_of, fits_checksum
from wsiseg.store.files import Files, OpenFile, Part, Reused, describe_damage

__all__ = ["Receipt", "ShardedArray"]

_ABSENT = 2**64 - 1
_CRC_SIZE = 4

_decoded = Reused()


class Receipt(NamedTuple):
    """Size and checksum that identify a shard's file."""

    size: int
    crc: int
    """CRC-32C of its chunks' checksums and its index.

    The CRC of the whole file would be useless: the CRC of bytes that end in their own CRC is a
    constant, so files made of such pieces have equal CRCs if their pieces have equal lengths.
    """


def _give_receipt(size: int, checksums: Iterable[bytes], index: bytes) -> Receipt:
    return Receipt(size, int.from_bytes(checksum(b"".join([*checksums, index])), "little"))


class _Piece(NamedTuple):
    """The part of one chunk that fills part of one window."""

    chunk: int
    """Index of the chunk in its shard."""
    source: tuple[slice, slice]
    target: NDArray[Any]
    """View of the part of the window to fill."""


class ShardedArray:
    """One array, seen as rows and columns of pixels or tiles, ``(H, W, ...)``.

    Only rows and columns are divided into chunks; other axes (colours, classes) lie within a chunk.
    Axes may be stored in another order: for Zarr, the image is ``(3, H, W)``.

    Parameters
    ----------
    files, key
        Location of the array.
    promised
        Whether the shard at ``(row, col)`` is known to have been written: if so, a missing one is
        damage, else it is fill. Called for missing shards only.

    Raises
    ------
    KeyError
        If there is no such array.
    StoreError
        If its codec is not one of wsiseg's, or its description is damaged.
    """

    _codec: Codec
    _checked: bool
    """Whether a checksum follows each chunk; arrays of format 2 have none."""

    shape: tuple[int, ...]
    """``(H, W, ...)``."""
    dtype: np.dtype[Any]
    fill: float
    """Value of what is not stored."""

    def __init__(
        self, files: Files, key: str, promised: Callable[[int, int], bool] | None = None
    ) -> None:
        self._files, self._key, self._promised = files, key, promised
        data = files.read(f"{key}/zarr.json")
        if data is None:
            raise KeyError(key)
        try:
            self._read_meta(json.loads(data))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise self._damage(f"{key}/zarr.json", f"it says {error!r}") from error

    def _read_meta(self, meta: dict[str, Any]) -> None:
        sharding = meta["codecs"][0]["configuration"]
        inner = list(sharding["codecs"])
        order = list(range(len(meta["shape"])))
        if inner[0]["name"] == "transpose":
            order = inner.pop(0)["configuration"]["order"]
        self._codec, self._checked = codec_of(inner[1:])
        self._axes = order
        self.shape = tuple(meta["shape"][axis] for axis in order)
        self._chunk = tuple(sharding["chunk_shape"][axis] for axis in order)
        shard = [meta["chunk_grid"]["configuration"]["chunk_shape"][axis] for axis in order]
        self._per_shard = shard[0] // self._chunk[0], shard[1] // self._chunk[1]
        self.dtype = np.dtype(meta["data_type"])
        self.fill = float(meta["fill_value"])

    @property
    def box(self) -> Box:
        """The box of the whole array."""
        return Box(0, 0, self.shape[1], self.shape[0])

    def read(self, box: Box) -> NDArray[Any]:
        """Read a window ``(box.height, box.width, ...)``; `fill` outside the array."""
        out = np.empty((box.height, box.width, *self.shape[2:]), self.dtype)
        self.read_into([(box, out)])
        return out

    def read_into(self, windows: Iterable[tuple[Box, NDArray[Any]]]) -> None:
        """Fill each window; shards that windows share are opened once.

        Raises
        ------
        StoreError
            If a shard is damaged, or one that was written is missing.
        """
        wanted: dict[tuple[int, int], list[_Piece]] = defaultdict(list)
        for box, out in windows:
            for shard, piece in self._cut(box, out):
                wanted[shard].append(piece)
        self._files.each(self._read_shard, wanted.items())

    def write(
        self, row: int, col: int, data: NDArray[Any], present: NDArray[np.bool_] | None = None
    ) -> Receipt | None:
        """Write one shard, ``(h, w, ...)`` from its corner, whole; no file if all of it is fill.

        Chunks, ``(n, m)`` from that corner, that are not `present` count as fill without being
        looked at, which would cost as much as copying.

        Returns
        -------
        The file's receipt; None if there is no file.
        """
        height, width = self._chunk[:2]

        def cut(y: int, x: int) -> NDArray[Any] | None:
            if present is not None and not present[y : y + 1, x : x + 1].any():
                return None
            return data[y * height : (y + 1) * height, x * width : (x + 1) * width]

        return self._write_chunks(row, col, cut)

    def write_from(
        self, row: int, col: int, pixels: Callable[[Box], NDArray[Any] | None]
    ) -> Receipt | None:
        """Write one shard like `write`, calling `pixels` for each chunk's box; None is fill.

        Only compressed chunks are kept in memory, never the whole shard.
        """
        down, right = self._per_shard
        height, width = self._chunk[:2]

        def ask(y: int, x: int) -> NDArray[Any] | None:
            corner = (col * right + x) * width, (row * down + y) * height
            box = Box(*corner, width, height).intersect(self.box)
            return None if box.empty else pixels(box)

        return self._write_chunks(row, col, ask)

    def _write_chunks(
        self, row: int, col: int, chunk_at: Callable[[int, int], NDArray[Any] | None]
    ) -> Receipt | None:
        down, right = self._per_shard
        index = np.full((down * right, 2), _ABSENT, "<u8")
        parts: list[bytes] = []
        sums: list[bytes] = []
        end = 0
        for i in range(down * right):
            chunk = chunk_at(*divmod(i, right))
            if chunk is None or self._is_fill(chunk):
                continue
            packed = self._codec.encode(self._whole(chunk))
            sums.append(checksum(packed) if self._checked else b"")
            parts += [packed, sums[-1]]
            index[i] = end, len(packed) + len(sums[-1])
            end += len(packed) + len(sums[-1])
        if not parts:
            self._files.delete(self.shard_key(row, col))
            return None
        table = index.tobytes()
        self._files.write(self.shard_key(row, col), [*parts, table, checksum(table)])
        return _give_receipt(end + len(table) + _CRC_SIZE, sums, table)

    def find_receipt(self, data: bytes) -> Receipt | None:
        """Return the receipt of a shard's file; None if any part does not match its checksum."""
        length = 16 * self._per_shard[0] * self._per_shard[1]
        table = data[-length - _CRC_SIZE : -_CRC_SIZE]
        if len(table) != length or not fits_checksum(data[-length - _CRC_SIZE :]):
            return None
        view, end, sums = np.frombuffer(data, np.uint8), 0, list[bytes]()
        for start, size in np.frombuffer(table, "<u8").reshape(-1, 2).tolist():
            if start != _ABSENT:
                chunk = view[start : start + size]
                if start != end or not fits_checksum(chunk):
                    return None
                end += size
                sums.append(chunk[-_CRC_SIZE:].tobytes())
        return (
            _give_receipt(len(data), sums, table) if end + length + _CRC_SIZE == len(data) else None
        )

    def write_all(self, data: NDArray[Any]) -> dict[tuple[int, int], Receipt]:
        """Write the whole array; return the receipts of the shards that have a file."""
        height, width = self.shard
        written = {}
        for row in range(-(-self.shape[0] // height)):
            for col in range(-(-self.shape[1] // width)):
                y, x = row * height, col * width
                written[row, col] = self.write(row, col, data[y : y + height, x : x + width])
        return {place: receipt for place, receipt in written.items() if receipt}

    def erase(self, row: int, col: int) -> None:
        """Make one shard `fill`, by deleting its file."""
        self._files.delete(self.shard_key(row, col))

    @property
    def shard(self) -> tuple[int, int]:
        """Height and width of a shard."""
        return self._per_shard[0] * self._chunk[0], self._per_shard[1] * self._chunk[1]

    def shard_key(self, row: int, col: int) -> str:
        """Return the file of one shard."""
        place = [0] * len(self._axes)
        place[self._axes[0]], place[self._axes[1]] = row, col
        return f"{self._key}/c/{'/'.join(map(str, place))}"

    def _is_fill(self, chunk: NDArray[Any]) -> bool:
        if np.isnan(self.fill):
            return bool(np.isnan(chunk).all())
        # The first value already differs in most chunks.
        return not chunk.size or (chunk.flat[0] == self.fill and bool((chunk == self.fill).all()))

    def _whole(self, chunk: NDArray[Any]) -> NDArray[Any]:
        """Return `chunk` contiguous, and padded with `fill` if the array's edge cut it."""
        if chunk.shape == self._chunk:
            return np.ascontiguousarray(chunk, self.dtype)
        full = np.full(self._chunk, self.fill, self.dtype)
        full[: chunk.shape[0], : chunk.shape[1]] = chunk
        return full

    def _cut(self, box: Box, out: NDArray[Any]) -> Iterator[tuple[tuple[int, int], _Piece]]:
        """Yield the chunks under a window with their shards; fill what lies outside the array."""
        inside = box.intersect(self.box)
        if inside != box:
            out[...] = self.fill
        if inside.empty:
            return
        down, right = self._per_shard
        height, width = self._chunk[:2]
        across = _overlaps(inside.x, inside.right, width, box.x)
        for row, source_rows, rows in _overlaps(inside.y, inside.bottom, height, box.y):
            for col, source_cols, cols in across:
                chunk = row % down * right + col % right
                piece = _Piece(chunk, (source_rows, source_cols), out[rows, cols])
                yield (row // down, col // right), piece

    def _read_shard(self, wanted: tuple[tuple[int, int], list[_Piece]]) -> None:
        place, pieces = wanted
        if self._read_file(place, pieces) or not self._is_promised(place):
            return
        # A writer may have created it since the first look.
        if not self._read_file(place, pieces):
            raise self._damage(self.shard_key(*place), "it was written and is missing")

    def _is_promised(self, place: tuple[int, int]) -> bool:
        return self._promised is not None and self._promised(*place)

    def _read_file(self, place: tuple[int, int], pieces: list[_Piece]) -> bool:
        """Fill the pieces from a shard's file, or with `fill`; return whether there is a file."""
        key = self.shard_key(*place)
        with self._files.open(key) as file:
            index = self._read_index(file, key)
            if file is None or index is None:
                for piece in pieces:
                    piece.target[...] = self.fill
                return False
            stored, ranges = [], []
            places = index[[piece.chunk for piece in pieces]].tolist()
            for piece, (start, length) in zip(pieces, places, strict=True):
                if start == _ABSENT:
                    piece.target[...] = self.fill
                else:
                    stored.append(piece)
                    ranges.append((start, start + length))
            size = math.prod(self._chunk) * self.dtype.itemsize
            scratch = _decoded.array(size).view(self.dtype).reshape(self._chunk)
            for piece, data in zip(stored, file.parts(ranges) if stored else (), strict=True):
                self._unpack(piece, data, scratch, key)
        return True

    def _read_index(self, file: OpenFile | None, key: str) -> NDArray[np.uint64] | None:
        """Read offset and length of each chunk, ``(n, 2)``; None if there is no file."""
        count = self._per_shard[0] * self._per_shard[1]
        data = file.end(16 * count + _CRC_SIZE) if file else None
        if data is None:
            return None
        if len(data) != 16 * count + _CRC_SIZE or not fits_checksum(data):
            raise self._damage(key, "its index does not match its checksum")
        return np.frombuffer(data, "<u8", 2 * count).reshape(-1, 2)

    def _unpack(self, piece: _Piece, data: Part, scratch: NDArray[Any], key: str) -> None:
        target = piece.target
        is_direct = target.shape == self._chunk and target.flags.c_contiguous
        out = target if is_direct else scratch
        if self._checked and not fits_checksum(data):
            raise self._damage(key, "a chunk does not match its checksum")
        packed = data[:-_CRC_SIZE] if self._checked else data
        try:
            filled = self._codec.decode(packed, out).nbytes
        except (RuntimeError, ValueError) as error:
            raise self._damage(key, str(error)) from error
        if filled != out.nbytes:
            raise self._damage(key, f"a chunk holds {filled} bytes, not {out.nbytes}")
        if not is_direct:
            target[...] = scratch[piece.source]

    def _damage(self, key: str, why: str) -> StoreError:
        return describe_damage(self._files, key, why)


def _overlaps(start: int, stop: int, side: int, origin: int) -> list[tuple[int, slice, slice]]:
    """List the chunks between two positions on one axis.

    Each with the slice of it that lies there, and that slice relative to `origin`.
    """
    overlaps = []
    for index in range(start // side, -(-stop // side)):
        corner = index * side
        first, last = max(start, corner), min(stop, corner + side)
        overlaps.append(
            (index, slice(first - corner, last - corner), slice(first - origin, last - origin))
        )
    return overlaps
