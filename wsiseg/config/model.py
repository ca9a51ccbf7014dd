"""The base of all settings: frozen, without unknown keys or endless numbers; their digest."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

__all__ = ["Precision", "Settings", "digest_of"]


Precision = Literal["float32", "bfloat16", "float16"]
"""Number format of a model's computations; the two smaller ones are for GPUs."""


class Settings(BaseModel):
    """Base class of all settings; the docstring of each field documents it."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False,
        defer_build=True,  # no command needs all of them
    )  # fmt: skip


def digest_of(*parts: Any) -> str:
    """Return the hex sha256 of `parts` (models, strings, numbers, plain containers), in order."""
    plain = [
        part.model_dump(mode="json") if isinstance(part, BaseModel) else part for part in parts
    ]
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
