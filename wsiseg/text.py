"""Text that names files: a name that is not UTF-8 has lone surrogates, which no file may hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from wsiseg.atomic import open_atomic

__all__ = ["dump_json", "escape", "write_text"]


def escape(text: str) -> str:
    r"""Spell lone surrogates as ``\udcff``; other text is returned as it is."""
    return text.encode("utf-8", "backslashreplace").decode()


def write_text(text: str, path: str | Path) -> Path:
    """Write text, escaped, as UTF-8 to a file that appears whole or not at all; return the path."""
    with open_atomic(path) as file:
        file.write(escape(text).encode())
    return Path(path)


def dump_json(tree: Any, option: int = 0) -> bytes:
    """Format a tree as JSON with its text escaped; `option` is that of `orjson.dumps`."""
    try:
        return orjson.dumps(tree, option=option)
    except TypeError:  # raised again for what else JSON cannot hold
        return orjson.dumps(_escape_all(tree), option=option)


def _escape_all(tree: Any) -> Any:
    if isinstance(tree, str):
        return escape(tree)
    if isinstance(tree, dict):
        return {_escape_all(key): _escape_all(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_escape_all(one) for one in tree]
    return tree
