from __future__ import annotations

from pathlib import Path

import pytest
import zarr
import zarr.codecs

from wsiseg.store import layout
from wsiseg.store.codecs import CodecName, describe_codec
from wsiseg.store.files import Folder
from wsiseg.store.nodes import Node


def tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize("codec", ["lz4", "zstd", "none"])
@pytest.mark.parametrize("order", [None, (1, 2, 0)])
@pytest.mark.parametrize(("dtype", "fill"), [("uint8", 255), ("float16", float("nan"))])
def test_descriptions_are_zarrs_byte_for_byte(
    tmp_path: Path, codec: CodecName, order: tuple[int, ...] | None, dtype: str, fill: float
) -> None:
    shape, chunk, shard, names = (3, 50, 70), (3, 8, 8), (3, 32, 32), ("c", "y", "x")
    zarrs = zarr.open_group(str(tmp_path / "theirs"), mode="a", zarr_format=3)
    filters = zarr.codecs.TransposeCodec(order=order) if order else None
    zarrs.create_group("image").create_array(
        "0", shape=shape, dtype=dtype, chunks=chunk, shards=shard, fill_value=fill,
        filters=filters, compressors=describe_codec(codec), dimension_names=names,
    )  # fmt: skip
    marks = dict(shape=(7, 56), dtype="uint8", chunks=(1, 56), compressors=None)
    zarrs.create_array(
        "done/tile", **marks, attributes={"arrays": ["image/0", "\u00e4"]},
        chunk_key_encoding={"name": "default", "separator": "."},
    )  # fmt: skip
    zarrs.attrs["mpp"] = 0.5
    ours = Node(Folder(tmp_path / "ours")).require_group()
    image = ours.require_group("image")
    layout._create(image, "0", shape, chunk, shard, dtype, fill, codec, names=names, order=order)
    layout.lay_out_marks(ours, "done/tile", 7, ["image/0", "\u00e4"])
    ours.attrs["mpp"] = 0.5
    assert tree(tmp_path / "ours") == tree(tmp_path / "theirs")


def test_nodes_are_found_replaced_and_taken_away(tmp_path: Path) -> None:
    root = Node(Folder(tmp_path)).require_group()
    labels = root.require_group("labels")
    labels.require_group("cells/inner").attrs.update({"a": 1}, b=[2])
    assert "cells" in labels
    assert "tissue" not in labels
    with pytest.raises(KeyError, match="tissue"):
        labels["tissue"]
    assert dict(root["labels/cells/inner"].attrs) == {"a": 1, "b": [2]}
    del root["labels/cells/inner"].attrs["a"]
    assert dict(root["labels/cells/inner"].attrs) == {"b": [2]}
    layout._create(labels, "0", (4,), (2,), (4,), "uint8", 0, "zstd")
    (tmp_path / "labels" / "0" / "c").mkdir()
    (tmp_path / "labels" / "0" / "c" / "0").write_bytes(b"a chunk")
    assert labels.groups() == ["cells"]
    layout._create(labels, "0", (4,), (2,), (4,), "uint8", 0, "zstd")
    assert not (tmp_path / "labels" / "0" / "c").exists()
    labels.replace_group("cells")
    assert "inner" not in labels["cells"]
    del root["labels"]
    del root["labels"]  # gone already
    assert [path.name for path in tmp_path.iterdir()] == ["zarr.json"]
