"""Our shards are Zarr's: zarr, zarrs and tensorstore read ours, and we read zarr's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsiseg.errors import StoreError
from wsiseg.geometry import Box
from wsiseg.store.codecs import CodecName, checksum, codec_of, describe_codec
from wsiseg.store.files import Folder
from wsiseg.store.layout import _create
from wsiseg.store.nodes import Node
from wsiseg.store.shards import ShardedArray

CODECS: tuple[CodecName, ...] = ("zstd", "lz4", "none")
SHAPE = (100, 75)  # shards of 32 x 48, chunks of 16 x 8: cut on both sides
Case = tuple[ShardedArray, NDArray[Any], Path]


def make(path: Path, codec: CodecName, dtype: str = "uint8", colors: bool = True) -> ShardedArray:
    """An array as the store's image is laid out, or as its labels are."""
    group = Node(Folder(path)).require_group()
    fill = float("nan") if dtype.startswith("float") else 255
    if colors:
        _create(group, "a", (3, *SHAPE), (3, 16, 8), (3, 32, 48), dtype, fill, codec,
                order=(1, 2, 0))  # fmt: skip
    else:
        _create(group, "a", (*SHAPE, 2), (16, 8, 2), (32, 48, 2), dtype, fill, codec)
    return ShardedArray(Folder(path), "a")


def pixels(dtype: str, depth: int) -> NDArray[Any]:
    """Noise, with one shard and some chunks left at `fill`."""
    data = np.random.default_rng(0).integers(0, 200, (*SHAPE, depth)).astype(dtype)
    fill = np.nan if dtype.startswith("float") else 255
    data[32:64, 48:] = fill
    data[:16, 8:24] = fill
    return data


def write(array: ShardedArray, data: NDArray[Any]) -> None:
    array.write_all(data)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dtype", ["uint8", "float16"])
@pytest.mark.parametrize("colors", [True, False])
def test_zarr_reads_what_we_write_and_we_what_it_writes(
    tmp_path: Path, codec: CodecName, dtype: str, colors: bool
) -> None:
    ours, data = make(tmp_path / "ours", codec, dtype, colors), pixels(dtype, 3 if colors else 2)
    write(ours, data)
    shown = np.moveaxis(data, 2, 0) if colors else data
    theirs = zarr.open_array(str(tmp_path / "ours" / "a"), mode="r")
    np.testing.assert_array_equal(np.asarray(theirs[:]), shown)
    other = make(tmp_path / "theirs", codec, dtype, colors)
    zarr.open_array(str(tmp_path / "theirs" / "a"), mode="r+")[:] = shown
    np.testing.assert_array_equal(other.read(other.box), data)
    names = [
        sorted(p.relative_to(tmp_path / who).as_posix() for p in (tmp_path / who).rglob("c/**/*"))
        for who in ("ours", "theirs")
    ]
    assert names[0] == names[1]


@pytest.mark.parametrize("codec", CODECS)
def test_tensorstore_and_zarrs_read_the_same(tmp_path: Path, codec: CodecName) -> None:
    tensorstore = pytest.importorskip("tensorstore", reason="pip install tensorstore")
    pytest.importorskip("zarrs", reason="pip install zarrs")
    array, data = make(tmp_path, codec), pixels("uint8", 3)
    write(array, data)
    shown = np.moveaxis(data, 2, 0)
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{tmp_path}/a/"}}
    opened = tensorstore.open(spec, open=True, read=True).result()
    np.testing.assert_array_equal(opened.read().result(), shown)
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        np.testing.assert_array_equal(zarr.open_array(f"{tmp_path}/a", mode="r")[:], shown)


@pytest.fixture(scope="module", params=CODECS)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    path = tmp_path_factory.mktemp(request.param)
    array, data = make(path, request.param), pixels("uint8", 3)
    write(array, data)
    return array, data, path


windows = st.builds(
    Box, st.integers(-20, 90), st.integers(-20, 110), st.integers(0, 90), st.integers(0, 110)
)


@settings(max_examples=25, deadline=None)
@given(boxes=st.lists(windows, max_size=4))
def test_any_windows_are_read_together(written: Case, boxes: list[Box]) -> None:
    array, data, _ = written
    around = np.pad(data, ((200, 200), (200, 200), (0, 0)), constant_values=255)
    outs = [np.zeros((box.height, box.width, 3), np.uint8) for box in boxes]
    array.read_into(zip(boxes, outs, strict=True))
    for box, out in zip(boxes, outs, strict=True):
        np.testing.assert_array_equal(
            out, around[box.y + 200 : box.bottom + 200, box.x + 200 : box.right + 200]
        )


@pytest.mark.parametrize("kept", [-1, -30, 0.5, 0])
def test_a_cut_shard_is_named_not_believed(written: Case, kept: float) -> None:
    array, data, path = written
    file = path / "a/c/0/0/0"
    whole = file.read_bytes()
    try:
        file.write_bytes(whole[: int(kept if kept < 0 else kept * len(whole))])
        with pytest.raises(StoreError, match=r"a/c/0/0/0: is damaged \(its index does not match"):
            array.read(array.box)
    finally:
        file.write_bytes(whole)
    np.testing.assert_array_equal(array.read(array.box), data)


def test_a_changed_byte_anywhere_in_a_shard_is_found(written: Case) -> None:
    array, data, path = written
    file = path / "a/c/0/0/0"
    whole = file.read_bytes()
    try:
        for at in range(0, len(whole), max(1, len(whole) // 97)):
            file.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
            with pytest.raises(StoreError, match=r"a/c/0/0/0: is damaged .*run `wsiseg check "):
                array.read(array.box)
    finally:
        file.write_bytes(whole)
    np.testing.assert_array_equal(array.read(array.box), data)


def test_zarr_finds_it_too(tmp_path: Path) -> None:
    """The checksums are Zarr's own codec: other readers look at them."""
    write(make(tmp_path, "none"), pixels("uint8", 3))
    file = tmp_path / "a/c/0/0/0"
    whole = file.read_bytes()
    file.write_bytes(bytes([whole[0] ^ 4]) + whole[1:])
    with pytest.raises(ValueError, match=r"[Cc]hecksum"):
        zarr.open_array(str(tmp_path / "a"), mode="r")[:]


@pytest.mark.parametrize("codec", CODECS)
def test_a_chunk_that_is_too_short_fills_nothing(tmp_path: Path, codec: CodecName) -> None:
    """Whole by its checksums, and yet of fewer pixels than a chunk has."""
    array = make(tmp_path, codec)
    packed, _ = codec_of(describe_codec(codec))
    short = packed.encode(np.zeros((4, 8, 3), np.uint8))
    index = np.full((12, 2), 2**64 - 1, "<u8")
    index[0] = 0, len(short) + 4
    parts = [short, checksum(short), index.tobytes(), checksum(index.tobytes())]
    Folder(tmp_path).write("a/c/0/0/0", parts)
    with pytest.raises(StoreError, match=r"damaged \(a chunk holds 96 bytes, not 384\)"):
        array.read(Box(0, 0, 8, 16))


def test_a_missing_shard_is_fill_only_if_it_was_never_written(tmp_path: Path) -> None:
    data, promised = pixels("uint8", 3), {(0, 0)}
    write(make(tmp_path, "lz4"), data)
    array = ShardedArray(Folder(tmp_path), "a", lambda *place: place in promised)
    np.testing.assert_array_equal(array.read(array.box), data)
    (tmp_path / "a/c/0/0/1").unlink()
    assert (array.read(Box(48, 0, 27, 32)) == 255).all()
    (tmp_path / "a/c/0/0/0").unlink()
    with pytest.raises(StoreError, match=r"a/c/0/0/0: is damaged \(it was written and is missing"):
        array.read(array.box)


def test_a_damaged_description_is_named(tmp_path: Path) -> None:
    write(make(tmp_path, "lz4"), pixels("uint8", 3))
    for text in ("", '{"codecs": []}'):
        (tmp_path / "a/zarr.json").write_text(text)
        with pytest.raises(StoreError, match=r"a/zarr\.json: is damaged"):
            ShardedArray(Folder(tmp_path), "a")


def test_arrays_without_checksums_are_still_read_and_written(tmp_path: Path) -> None:
    """As format 2 had them."""
    data = pixels("uint8", 3)
    make(tmp_path, "lz4")
    meta = json.loads((tmp_path / "a/zarr.json").read_text())
    del meta["codecs"][0]["configuration"]["codecs"][-1]
    (tmp_path / "a/zarr.json").write_text(json.dumps(meta))
    array = ShardedArray(Folder(tmp_path), "a")
    write(array, data)
    np.testing.assert_array_equal(array.read(array.box), data)
    theirs = zarr.open_array(str(tmp_path / "a"), mode="r")
    np.testing.assert_array_equal(np.asarray(theirs[:]), np.moveaxis(data, 2, 0))


def test_an_array_packed_by_others_is_refused(tmp_path: Path) -> None:
    group = zarr.open_group(str(tmp_path), mode="a", zarr_format=3)
    group.create_array(
        "a", shape=(8, 8), dtype="uint8", chunks=(4, 4), shards=(8, 8),
        compressors=zarr.codecs.GzipCodec(),
    )  # fmt: skip
    with pytest.raises(StoreError, match=r"codec .*gzip.* is not one that wsiseg writes"):
        ShardedArray(Folder(tmp_path), "a")
