"""What a map was made with, as the slide's page of the report shows it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from wsiseg.config import Config, PredictConfig
from wsiseg.digests import hash_file
from wsiseg.model.catalog import find_checkpoint
from wsiseg.model.metadata import read_description
from wsiseg.version import __version__

__all__ = ["describe_origin"]


def describe_origin(config: Config) -> dict[str, Any]:
    """Return version, settings and model as plain JSON; equal for equal settings and files.

    Raises
    ------
    CheckpointError
        If the checkpoint is missing, or the file is no checkpoint.
    """
    return {
        "version": __version__,
        "settings": config.model_dump(mode="json"),
        "model": _describe_model(config.predict),
    }


def _describe_model(settings: PredictConfig) -> dict[str, str]:
    """Return what the model's description and card say, without empty entries."""
    if settings.prompts is not None:
        return {"prompts": Path(settings.prompts).name}
    path = find_checkpoint(settings.checkpoint)
    plain = read_description(path)
    card = plain.get("card") or {}
    status = path.stat()
    facts = {
        "checkpoint": path.name,
        "sha256": _hash(path, status.st_size, status.st_mtime_ns),
        "title": card.get("title"),
        "summary": card.get("summary"),
        "intended use": card.get("intended_use"),
        "limits": " ".join(card.get("limits", ())),
        "licence": card.get("licence"),
        "encoder": plain.get("encoder"),
        "scale": f"{plain['mpp']:g} µm/px" if "mpp" in plain else "",
        "note": plain.get("note"),
    }
    return {name: str(value) for name, value in facts.items() if value}


@lru_cache(maxsize=8)
def _hash(path: Path, size: int, changed: int) -> str:
    """Hash a file, once for each size and time stamp: a run asks for it with every slide."""
    return hash_file(path)
