"""The Groovy script that imports a whole output folder into a QuPath project."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from wsiseg.annotations import PALETTES
from wsiseg.atomic import open_atomic

__all__ = ["write_import_script"]


def write_import_script(root: str | Path) -> Path:
    """Write ``root/qupath/import.groovy``, which imports what lies in ``root/geojson``.

    Run in QuPath for one image or for a project, it finds each image's file by name, sets the
    class colours, and leaves alone the regions that are there already.

    Returns
    -------
    The script's path.
    """
    root = Path(root)
    script = files("wsiseg.qupath").joinpath("import.groovy").read_text(encoding="utf-8")
    script = script.replace("@OUTPUT@", _quote(root.resolve().as_posix()))
    script = script.replace("@COLORS@", _list_colors())
    path = root / "qupath" / "import.groovy"
    with open_atomic(path) as file:
        file.write(script.encode())
    return path


def _quote(text: str) -> str:
    """A Groovy string without interpolation."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _list_colors() -> str:
    colors = {
        name: color
        for palette in PALETTES.values()
        for name, color in zip(palette.names, palette.colors, strict=True)
    }
    return ",\n".join(f"    {_quote(name)}: {list(color)}" for name, color in colors.items())
