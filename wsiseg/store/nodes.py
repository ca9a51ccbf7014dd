"""The groups and arrays of a store: Zarr v3's descriptions (``zarr.json``), as zarr writes them.

Of zarr itself a store needs no more, and loading it takes longer than tiling a small slide.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any

from wsiseg.store.files import Files

__all__ = ["Attributes", "Node"]


class Node:
    """A group or an array at a path below the files' place; ``""`` is the place itself."""

    def __init__(self, files: Files, path: str = "") -> None:
        self._files, self._path = files, path

    @property
    def attrs(self) -> Attributes:
        """Its attributes; a change is written at once."""
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
        """Names of the groups in it, in order."""
        start = f"{self._path}/" if self._path else ""
        members = {
            key.removeprefix(start).partition("/")[0] for key in self._files.sizes(self._path)
        }
        return sorted(name for name in members if name in self and _kind(self[name]) == "group")

    def require_group(self, name: str = "") -> Node:
        """The group of that name, made if it is not there, with those above it."""
        parts = name.split("/") if name else []
        node = self
        for path in ["", *("/".join(parts[: n + 1]) for n in range(len(parts)))]:
            node = Node(self._files, self._below(path))
            if self._files.read(node._key()) is None:
                node._write({"attributes": {}, "zarr_format": 3, "node_type": "group"})
        return node

    def replace_group(self, name: str) -> Node:
        """An empty group in place of what is there."""
        del self[name]
        return self.require_group(name)

    def replace_array(self, name: str, *args: Any, **settings: Any) -> None:
        """As `add_array`, in place of what is there."""
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
        """Describe an array, of which no chunk is there yet.

        `chunk` is what a file holds, `codecs` say how, `names` are those of the axes.
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

    def _write(self, described: dict[str, Any]) -> None:
        self._files.write(self._key(), [_dump(described)])


class Attributes(MutableMapping[str, Any]):
    """The attributes of a node."""

    def __init__(self, files: Files, key: str) -> None:
        self._files, self._key = files, key

    def put(self, values: Mapping[str, Any]) -> None:
        """Have these and no others."""
        described = _describe(self._files, self._key) | {"attributes": dict(values)}
        self._files.write(self._key, [_dump(described)])

    def update(self, *args: Any, **values: Any) -> None:
        """Set several at once."""
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
        return dict(_describe(self._files, self._key).get("attributes", {}))


def _describe(files: Files, key: str) -> dict[str, Any]:
    data = files.read(key)
    if data is None:
        raise KeyError(key)
    return dict(json.loads(data))


def _kind(node: Node) -> object:
    return _describe(node._files, node._key()).get("node_type")


def _settings(name: str, **configuration: Any) -> dict[str, Any]:
    return {"name": name, "configuration": configuration}


def _dump(described: Mapping[str, Any]) -> bytes:
    return json.dumps(described, indent=2).encode()
