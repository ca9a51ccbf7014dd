"""Groups and arrays of a store: read and write Zarr v3 metadata (``zarr.json``) as zarr does.

A store needs nothing else of zarr, and importing it takes longer than tiling a small slide.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any

from wsiseg.store.files import Files, describe_damage

__all__ = ["Attributes", "Node", "find_fault"]

_MEMBERS = ("attributes", "zarr_format", "node_type")
_ARRAY_MEMBERS = (
    "shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs",
)  # fmt: skip


class Node:
    """A group or an array at a path below the root of the files; ``""`` is the root."""

    def __init__(self, files: Files, path: str = "") -> None:
        self._files, self._path = files, path

    @property
    def attrs(self) -> Attributes:
        """Its attributes; changes are written immediately."""
        return Attributes(self._files, self._key())

    def __contains__(self, name: object) -> bool:
        return self._files.read(self._key(str(name))) is not None

    def __getitem__(self, name: str) -> Node:
        if name not in self:
            raise KeyError(name)
        return Node(self._files, self._below(name))

    def __delitem__(self, name: str) -> None:
        self._files.delete_all(self._below(name))

    def groups(self) -> list[str]:
        """List the names of its groups, sorted."""
        start = f"{self._path}/" if self._path else ""
        members = {
            key.removeprefix(start).partition("/")[0] for key in self._files.sizes(self._path)
        }
        return sorted(name for name in members if name in self and _kind(self[name]) == "group")

    def require_group(self, name: str = "") -> Node:
        """Return the group of that name; create it and its parents if they are missing.

        Of a damaged description, the attributes are kept if they can be read.
        """
        parts = name.split("/") if name else []
        node = self
        for path in ["", *("/".join(parts[: n + 1]) for n in range(len(parts)))]:
            node = Node(self._files, self._below(path))
            data = self._files.read(node._key())
            if data is None or find_fault(data):
                attributes = _parse(data or b"").get("attributes")
                attributes = attributes if isinstance(attributes, dict) else {}
                node._write({"attributes": attributes, "zarr_format": 3, "node_type": "group"})
        return node

    def replace_group(self, name: str) -> Node:
        """Create an empty group, replacing anything of that name."""
        del self[name]
        return self.require_group(name)

    def replace_array(self, name: str, *args: Any, **settings: Any) -> None:
        """Like `add_array`, but replace anything of that name."""
        del self[name]
        self.add_array(name, *args, **settings)

    def add_array(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str,
        chunk: Sequence[int],
        fill: float,
        codecs: Sequence[Mapping[str, Any]],
        *,
        separator: str = "/",
        names: Sequence[str] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Create an array without chunks.

        `chunk` is the shape stored in one file, `codecs` encode it, `names` are those of the axes.
        """
        self.require_group(name.rpartition("/")[0])
        Node(self._files, self._below(name))._write(
            {
                "shape": list(shape),
                "data_type": dtype,
                "chunk_grid": _settings("regular", chunk_shape=list(chunk)),
                "chunk_key_encoding": _settings("default", separator=separator),
                "fill_value": "NaN" if math.isnan(fill) else fill,
                "codecs": list(codecs),
                "attributes": dict(attributes or {}),
                **({"dimension_names": list(names)} if names else {}),
                "zarr_format": 3,
                "node_type": "array",
                "storage_transformers": [],
            }
        )

    def _below(self, name: str) -> str:
        return "/".join(filter(None, (self._path, name)))

    def _key(self, name: str = "") -> str:
        return "/".join(filter(None, (self._below(name), "zarr.json")))

    def _write(self, metadata: dict[str, Any]) -> None:
        self._files.write(self._key(), [_dump(metadata)])


class Attributes(MutableMapping[str, Any]):
    """The attributes of a node."""

    def __init__(self, files: Files, key: str) -> None:
        self._files, self._key = files, key

    def put(self, values: Mapping[str, Any]) -> None:
        """Replace all attributes."""
        metadata = _read_metadata(self._files, self._key) | {"attributes": dict(values)}
        self._files.write(self._key, [_dump(metadata)])

    def update(self, *args: Any, **values: Any) -> None:
        """Set several attributes in one write."""
        self.put(dict(self) | dict(*args, **values))

    def __getitem__(self, name: str) -> Any:
        return self._read()[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.put(self._read() | {name: value})

    def __delitem__(self, name: str) -> None:
        self.put({key: value for key, value in self._read().items() if key != name})

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def _read(self) -> dict[str, Any]:
        return dict(_read_metadata(self._files, self._key).get("attributes", {}))


def find_fault(data: bytes) -> str:
    """Say why these bytes describe no group or array as we write them; empty if they do."""
    metadata = _parse(data)
    if not metadata:
        return "it is not a JSON object"
    is_array = metadata.get("node_type") == "array"
    lost = [name for name in _MEMBERS + _ARRAY_MEMBERS * is_array if name not in metadata]
    if lost:
        return f"{', '.join(lost)} is missing in it"
    if metadata["node_type"] not in ("group", "array") or metadata["zarr_format"] != 3:
        return "it is of no kind that is known"
    return "" if isinstance(metadata["attributes"], dict) else "its attributes are not an object"


def _parse(data: bytes) -> dict[str, Any]:
    """Parse a JSON object; empty if it is none."""
    try:
        metadata = json.loads(data)
    except ValueError:
        return {}
    return metadata if isinstance(metadata, dict) else {}


def _read_metadata(files: Files, key: str) -> dict[str, Any]:
    data = files.read(key)
    if data is None:
        raise KeyError(key)
    metadata = _parse(data)
    if not isinstance(metadata.get("attributes", {}), dict) or not metadata:
        raise describe_damage(files, key, find_fault(data))
    return metadata


def _kind(node: Node) -> object:
    return _read_metadata(node._files, node._key()).get("node_type")


def _settings(name: str, **configuration: Any) -> dict[str, Any]:
    return {"name": name, "configuration": configuration}


def _dump(metadata: Mapping[str, Any]) -> bytes:
    return json.dumps(metadata, indent=2).encode()
