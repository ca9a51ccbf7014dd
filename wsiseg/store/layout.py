"""Create the groups and arrays of a store, with OME-NGFF 0.5 metadata for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wsiseg.annotations import BACKGROUND, Palette
from wsiseg.grid import TileGrid
from wsiseg.store.codecs import CodecName, describe_codec
from wsiseg.store.files import Files
from wsiseg.store.groups import GROUPS
from wsiseg.store.levels import Levels
from wsiseg.store.nodes import Node

__all__ = [
    "FORMAT",
    "READABLE",
    "describe_labels",
    "lay_out_cams",
    "lay_out_context",
    "lay_out_labels",
    "lay_out_marks",
    "lay_out_probabilities",
    "lay_out_store",
    "lay_out_tissue",
    "mark_length",
    "palette_of",
    "plain_palette",
]

FORMAT = 4
"""Version of the layout; digests include it, so a change of layout redoes the work."""
READABLE = (2, 3, FORMAT)
"""Versions that can be read. In format 2 only the shards' indexes have checksums; up to format 3,
blocks wrote their part of all levels."""

_ATTRIBUTES = (
    "digest", "mpp", "note", "outline", "palette", "calibration", "shares", "shards", "ome",
)  # fmt: skip
_SPACE: list[dict[str, str]] = [
    {"name": "y", "type": "space", "unit": "micrometer"},
    {"name": "x", "type": "space", "unit": "micrometer"},
]
_BYTES = {"name": "bytes"}
_LABEL_CHUNK = 512
_MASK_CHUNK, _MASK_SHARD = 256, 4096  # most masks are one file, of which a block needs a corner
_GATE_CHUNK, _GATE_SHARD = 32, 1024  # in tiles; likewise


def lay_out_store(files: Files, grid: TileGrid, meta: dict[str, Any], codec: CodecName) -> None:
    """Create the group and its image, and delete what an earlier layout created, nothing else.

    `meta` becomes the attribute `wsiseg`.
    """
    levels = Levels(grid, FORMAT)
    # Recognisable as ours but not yet as a store: if killed from here on, it is laid out again.
    unfinished: dict[str, Any] = {"wsiseg": {"format": FORMAT}}
    group = Node(files).require_group()
    group.attrs.update(unfinished)
    for name in GROUPS:
        if "/" not in name:  # the others go with theirs
            _remove_ours(files, group, name)
    image = group.require_group("image")
    scales = {}
    for level, factor in enumerate(levels.image):
        box, side = levels.box(factor), levels.shard(factor)
        chunk = levels.chunk(factor, grid.tile)
        _create(
            image, str(level), (3, box.height, box.width), (3, chunk, chunk), (3, side, side),
            "uint8", 255, codec, names=("c", "y", "x"), order=(1, 2, 0),
        )  # fmt: skip
        scales[f"image/{level}"] = [1.0, meta["mpp"] * factor, meta["mpp"] * factor]
    axes = [{"name": "c", "type": "channel"}, *_SPACE]
    name = str(meta["slide"].get("name", "image"))
    # At the root, where viewers look for it, and find the labels beside it.
    group.attrs["ome"] = _multiscales(name, axes, scales)
    group.attrs["wsiseg"] = meta


def _remove_ours(files: Files, root: Node, name: str) -> None:
    """Delete what we created in one of our groups, and the group if nothing else is in it.

    Goes by file names, so that lost or damaged descriptions do not matter.
    """
    members = {key.split("/")[1] for key in files.sizes(name)}
    if not members:
        return
    others = {key for key in members - {"zarr.json"} if not GROUPS[name].members.fullmatch(key)}
    if not others:
        del root[name]
        return
    group = root.require_group(name)
    for key in members - others - {"zarr.json"}:
        del group[key]
    kept = {key: value for key, value in group.attrs.items() if key not in _ATTRIBUTES}
    group.attrs.put(kept | ({"ome": _label_list(group)} if name == "labels" else {}))


def _label_list(group: Node) -> dict[str, Any]:
    """Return NGFF's metadata of the group `labels`: the names of all label images in it."""
    return {"version": "0.5", "labels": group.groups()}


def lay_out_tissue(group: Node, height: int, width: int) -> None:
    """Create the mask's array in the group `tissue`, replacing an earlier one."""
    _create(
        group, "mask", (height, width), (_MASK_CHUNK,) * 2, (_MASK_SHARD,) * 2, "uint8", 0, "zstd"
    )


def lay_out_cams(group: Node, grid: TileGrid, channels: int, height: int, width: int) -> None:
    """Create the CAM arrays in the group `cams`, replacing earlier ones."""
    n, nan = grid.tiles_per_block, float("nan")
    item = (channels, height, width)
    tiles = (grid.rows, grid.cols)
    _create(group, "logits", (*tiles, *item), (1, n, *item), (n, n, *item), "float16", nan, "zstd")
    shape, chunk = (*tiles, channels), (n, n, channels)
    _create(group, "classes", shape, chunk, chunk, "float32", nan, "zstd")
    _create(group, "distance", tiles, (n, n), (n, n), "float32", nan, "zstd")


def lay_out_context(group: Node, rows: int, cols: int, classes: int) -> None:
    """Create the array of the tiles' gates in the group `context`, replacing an earlier one."""
    chunk, shard = ((side, side, classes) for side in (_GATE_CHUNK, _GATE_SHARD))
    _create(group, "gates", (rows, cols, classes), chunk, shard, "uint8", 0, "zstd")


def lay_out_labels(labels: Node, levels: Levels, palette: Palette, mpp: float) -> None:
    """Create both pyramids in the group `labels`, replacing earlier ones."""
    for name, fill in (("classes", BACKGROUND), ("confidence", 0)):
        group = labels.replace_group(name)
        for level, factor in enumerate(levels.maps):
            box, side = levels.box(factor), levels.shard(factor)
            chunk = levels.chunk(factor, _LABEL_CHUNK)
            _create(
                group, str(level), (box.height, box.width), (chunk, chunk), (side, side), "uint8",
                fill, "zstd", names=("y", "x"),
            )  # fmt: skip
    describe_labels(labels, levels, palette, mpp)
    labels.attrs["ome"] = _label_list(labels)


def describe_labels(labels: Node, levels: Levels, palette: Palette, mpp: float) -> None:
    """Describe both pyramids for other programs, unless they are described already."""
    # NGFF expects labels at the image's levels only; it is not told of the levels between.
    scales = {
        str(level): [mpp * factor, mpp * factor]
        for level, factor in enumerate(levels.maps)
        if factor in levels.image
    }
    for name in ("classes", "confidence"):
        group = labels.require_group(name)
        if "ome" not in group.attrs:
            ome = _multiscales(name, _SPACE, scales)
            ome["image-label"] = _image_label(palette if name == "classes" else None)
            group.attrs["ome"] = ome
    if "ome" not in labels.attrs:
        labels.attrs["ome"] = _label_list(labels)


def lay_out_probabilities(root: Node, levels: Levels, palette: Palette, mpp: float) -> None:
    """Create the pyramid of the classes' probabilities, an image with one channel per class."""
    group, scales = root.replace_group("probabilities"), {}
    count = len(palette)
    for level, factor in enumerate(levels.maps):
        box, side = levels.box(factor), levels.shard(factor)
        chunk = levels.chunk(factor, _LABEL_CHUNK)
        _create(
            group, str(level), (count, box.height, box.width), (count, chunk, chunk),
            (count, side, side), "uint8", 0, "zstd", names=("c", "y", "x"), order=(1, 2, 0),
        )  # fmt: skip
        scales[str(level)] = [1.0, mpp * factor, mpp * factor]
    ome = _multiscales("probabilities", [{"name": "c", "type": "channel"}, *_SPACE], scales)
    window = {"min": 0, "max": 255, "start": 0, "end": 255}
    ome["omero"] = {
        "channels": [
            {"label": name, "color": "{:02X}{:02X}{:02X}".format(*color), "window": window}
            for name, color in zip(palette.names, palette.colors, strict=True)
        ]
    }
    group.attrs["ome"] = ome
    group.attrs["palette"] = plain_palette(palette)  # last: marks it as complete


def lay_out_marks(group: Node, key: str, n_blocks: int, arrays: Sequence[str]) -> None:
    """Create the array of a step's marks, one chunk and so one file each, as writers differ.

    A mark is a digest, then for each of `arrays` the receipt of the block's shard.
    """
    length = mark_length(len(arrays))
    group.add_array(
        key, (n_blocks, length), "uint8", (1, length), 0, [_BYTES],
        separator=".",  # else each has a folder
        attributes={"arrays": list(arrays)},
    )  # fmt: skip


def mark_length(arrays: int) -> int:
    """Return the bytes of a mark: a sha256, and size (8) and CRC-32C (4) of each array's shard."""
    return 32 + 12 * arrays


def plain_palette(palette: Palette) -> dict[str, Any]:
    """Convert a palette to plain JSON."""
    return {"names": list(palette.names), "colors": [list(color) for color in palette.colors]}


def palette_of(plain: Any) -> Palette:
    """Convert plain JSON from `plain_palette` back to a palette."""
    return Palette(tuple(plain["names"]), tuple(tuple(color) for color in plain["colors"]))


def _create(
    group: Node,
    name: str,
    shape: Sequence[int],
    chunk: Sequence[int],
    shard: Sequence[int],
    dtype: str,
    fill: float,
    codec: CodecName,
    *,
    names: Sequence[str] | None = None,
    order: Sequence[int] | None = None,
) -> None:
    """Create one sharded array; `order` is the order in which a chunk's axes are stored."""
    order_codec = [{"name": "transpose", "configuration": {"order": list(order)}}] if order else []
    little_endian = {"name": "bytes", "configuration": {"endian": "little"}}
    inner = [*order_codec, _BYTES if dtype == "uint8" else little_endian, *describe_codec(codec)]
    sharding = {
        "chunk_shape": list(chunk),
        "codecs": inner,
        "index_codecs": [little_endian, {"name": "crc32c"}],
        "index_location": "end",
    }
    codecs = [{"name": "sharding_indexed", "configuration": sharding}]
    group.replace_array(name, shape, dtype, shard, fill, codecs, names=names)


def _multiscales(
    name: str, axes: list[dict[str, str]], scales: dict[str, list[float]]
) -> dict[str, Any]:
    """Return NGFF 0.5 multiscales metadata; `scales` holds, by array path, one scale per axis."""
    finest = next(iter(scales.values()))
    datasets = []
    for path, scale in scales.items():
        # Pixel centres shift by half the difference in pixel size; this keeps levels aligned.
        shift = [(s - f) / 2 for s, f in zip(scale, finest, strict=True)]
        transforms: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
        if any(shift):
            transforms.append({"type": "translation", "translation": shift})
        datasets.append({"path": path, "coordinateTransformations": transforms})
    return {"version": "0.5", "multiscales": [{"name": name, "axes": axes, "datasets": datasets}]}


def _image_label(palette: Palette | None) -> dict[str, Any]:
    """Return NGFF's colours and names of labels; confidence has neither."""
    label: dict[str, Any] = {"source": {"image": "../../"}}
    if palette:
        colors, names = enumerate(palette.colors), enumerate(palette.names)
        label["colors"] = [{"label-value": i, "rgba": [*color, 255]} for i, color in colors]
        label["properties"] = [{"label-value": i, "class": name} for i, name in names]
    return label
