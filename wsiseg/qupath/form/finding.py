"""Finding: one broken rule; Repair: what was done about one; and the table of all rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["RULES", "Finding", "Repair", "Severity"]

Severity = Literal["error", "warning"]

RULES: dict[str, Severity] = {
    # The file.
    "extension": "error",  # QuPath imports nothing from other extensions
    "compression": "error",
    "encoding": "error",
    "byte-order-mark": "warning",
    "json": "error",
    "not-a-number": "warning",  # QuPath reads and writes bare NaN; other readers refuse the file
    "newline-delimited": "error",
    "size": "warning",
    "area-loss": "warning",  # see `java_area`
    # The top level.
    "top-level": "error",
    "collection-type": "error",
    "collection-features": "error",
    # A feature's members.
    "feature-type": "error",
    "feature-members": "warning",
    "id-null": "error",
    "id-uuid": "warning",
    "id-duplicate": "warning",
    "properties": "error",
    "object-type": "error",
    "object-type-unknown": "warning",
    "name": "error",
    "color": "error",
    "measurements": "error",
    "metadata": "warning",
    # A classification.
    "class": "error",
    "class-name": "error",
    "class-color": "error",
    "class-color-range": "warning",
    "class-derived": "warning",
    # A geometry.
    "geometry": "error",
    "geometry-type": "error",
    "plane": "error",
    "coordinates": "error",
    "ring-short": "error",
    "ring-open": "error",
    "ring-crossing": "error",
    "ring-touching": "warning",  # cleaned on import
    "hole-outside": "error",
    "invalid": "error",
    "parts-overlap": "error",
    "one-part": "warning",  # crashes QuPath 0.5.1
    "zero-area": "warning",
}
"""Every rule and what breaking it costs: an error loses the file or the object."""


@dataclass(frozen=True)
class Finding:
    """One broken rule."""

    rule: str
    """Key of `RULES`."""
    message: str
    """What is wrong and what to do."""
    feature: int | None = None
    """Index of the feature in the file, from 0; ``None`` for the file itself."""
    id: str | None = None
    """The feature's id, where it has one."""

    @property
    def severity(self) -> Severity:
        """`error`: QuPath loses the file or the object; `warning`: it loads, but not as meant."""
        return RULES[self.rule]

    @property
    def place(self) -> str:
        """The feature, with its id; empty for the file itself."""
        where = "" if self.feature is None else f"feature {self.feature}"
        return f"{where} ({self.id})" if where and self.id is not None else where

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place else ""
        return f"{self.severity}: {where}{self.message} [{self.rule}]"


@dataclass(frozen=True)
class Repair:
    """What was done about a broken rule."""

    rule: str
    """Key of `RULES`."""
    message: str
    feature: int | None = None
    """Index of the feature in the file, from 0; ``None`` for the file itself."""
    dropped: bool = False
    """Whether something was lost by it."""

    def __str__(self) -> str:
        where = "" if self.feature is None else f"feature {self.feature}: "
        return f"{'dropped' if self.dropped else 'fixed'}: {where}{self.message} [{self.rule}]"
