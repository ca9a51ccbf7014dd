"""Warnings as messages of a log, so that they are heard with all the others."""

from __future__ import annotations

import logging
from pathlib import Path

from wsiseg.errors import WsisegWarning

__all__ = ["log_warning"]

_ROOT = Path(__file__).parent


def log_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *more: object
) -> None:
    """Log a warning, as ``warnings.showwarning``: a library's by its own name, with its place."""
    if issubclass(category, WsisegWarning):
        logging.getLogger("wsiseg.warnings").warning("%s", message)
    else:
        place = Path(filename)
        where = place.relative_to(_ROOT.parent) if place.is_relative_to(_ROOT) else place
        logging.getLogger(_library(place)).warning(
            "%s: %s (%s:%d)", category.__name__, message, where, lineno
        )


def _library(file: Path) -> str:
    """The package that `file` is of, as its logger would be called."""
    for folder in ("site-packages", "dist-packages"):
        if folder in file.parts[:-1]:
            return Path(file.parts[file.parts.index(folder) + 1]).stem
    return "python"
