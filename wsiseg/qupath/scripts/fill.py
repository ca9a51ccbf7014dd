"""Write the Groovy scripts that import an output folder into QuPath, and export corrections."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from wsiseg.annotations import KNOWN_COLORS
from wsiseg.text import write_text

__all__ = ["write_scripts"]

_SHARED = "find.groovy"
"""Shared code that finds the files of an image; not a script of its own."""


def write_scripts(
    root: str | Path, names: Sequence[str] = ("import.groovy", "export.groovy")
) -> list[Path]:
    """Write ``root/qupath/import.groovy`` and ``export.groovy``.

    Run in QuPath for one image or for a project, the first imports ``root/geojson``: it finds each
    image's file by name, sets the class colours, and does not change existing regions. The second
    exports what was corrected or drawn to ``root/corrections``.

    Returns
    -------
    The scripts' paths.
    """
    root = Path(root)
    filled = {
        "@FIND@\n": _read(_SHARED),
        "@OUTPUT@": _quote(root.resolve().as_posix()),
        "@COLORS@": _list_colors(),
    }
    written = []
    for name in names:
        script = _read(name)
        for placeholder, text in filled.items():
            script = script.replace(placeholder, text)
        written.append(write_text(script, root / "qupath" / name))
    return written


def _read(name: str) -> str:
    return files("wsiseg.qupath.scripts").joinpath(name).read_text(encoding="utf-8")


def _quote(text: str) -> str:
    """Quote text as a Groovy string without interpolation."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _list_colors() -> str:
    return ",\n".join(f"    {_quote(name)}: {list(rgb)}" for name, rgb in KNOWN_COLORS.items())
