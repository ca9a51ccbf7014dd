"""Log Python's warnings, so that they appear with all other messages."""

from __future__ import annotations

import logging
from pathlib import Path

from wsiseg.errors import WsisegWarning

__all__ = ["log_warning"]

_ROOT = Path(__file__).parent


def log_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object
) -> None:
    """Log a warning; for ``warnings.showwarning``.

    A library's warning is logged under the library's name, with its location.
    """
    if issubclass(category, WsisegWarning):
        logging.getLogger("wsiseg.warnings").warning("%s", message)
    else:
        path = Path(filename)
        shown = path.relative_to(_ROOT.parent) if path.is_relative_to(_ROOT) else path
        logging.getLogger(_library(path)).warning(
            "%s: %s (%s:%d)", category.__name__, message, shown, lineno
        )


def _library(file: Path) -> str:
    """Return the name of the package that `file` belongs to, as its logger is named."""
    for folder in ("site-packages", "dist-packages"):
        if folder in file.parts[:-1]:
            return Path(file.parts[file.parts.index(folder) + 1]).stem
    return "python"
