"""The command that learns from the corrections of a run."""

from __future__ import annotations

import shlex
from pathlib import Path

import orjson

from wsiseg.errors import WsisegError
from wsiseg.labels.corrections import CORRECTIONS
from wsiseg.model.catalog import find_checkpoint
from wsiseg.model.metadata import read_description
from wsiseg.view.collection import Run

__all__ = ["learn_command"]

_TISSUE = "tissue"
_BEGUN = f"begun from {_TISSUE}"
"""How `wsiseg learn` notes in a checkpoint what it began from."""


def learn_command(run: Run, earlier: Path | None = None) -> str:
    """Return the command for a shell in the current folder.

    It learns from the run's corrections and from those in the folder `earlier`, and continues from
    `tissue` if the run's last map is known to come from that.
    """
    folders = dict.fromkeys(filter(None, (earlier, run.root / CORRECTIONS)))
    labels = [word for folder in folders for word in ("--labels", _shorten(folder))]
    words = ["wsiseg", "learn", _shorten(run.path), *labels, "-o", "my.safetensors"]
    return shlex.join([*words, "--from", _TISSUE] if _is_of_tissue(run.root) else words)


def _shorten(path: Path) -> str:
    """Return a path from the current folder if it is below that."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _is_of_tissue(root: Path) -> bool:
    """Whether the last run used `tissue`, or a checkpoint that says that it began from it."""
    try:
        record = max((root / "runs").glob("*.json"), default=None)  # names begin with the time
        config = {} if record is None else orjson.loads(record.read_bytes())["config"]
        checkpoint = config["predict"]["checkpoint"]
        if config["predict"].get("prompts") or not isinstance(checkpoint, str):
            return False
        if checkpoint == _TISSUE:
            return True
        note = str(read_description(find_checkpoint(checkpoint)).get("note", ""))
    except (OSError, ValueError, KeyError, TypeError, WsisegError):
        return False
    return note.removesuffix(".safetensors").endswith(_BEGUN)
