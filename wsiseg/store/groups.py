"""The groups of a store below its root, in one list."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["GROUPS", "Group"]

_LEVELS = re.compile(r"\d+")


class Group(NamedTuple):
    """What is known of one group."""

    step: str
    """The step that makes it."""
    members: re.Pattern[str]
    """Names that we create in it; others are not ours."""
    attributes: tuple[str, ...] = ()
    """Attributes that it has once it is made."""
    optional: bool = False
    """Whether it may be deleted later, as a whole; marks are then ignored for its shards."""


GROUPS = {
    "image": Group("tile", _LEVELS),
    "tissue": Group("tile", re.compile("mask"), ("digest",)),
    "cams": Group("predict", re.compile("logits|classes|distance"), ("palette",)),
    "context": Group("stitch", re.compile("gates"), ("digest",)),
    "labels": Group("stitch", re.compile("classes|confidence"), ("palette", "ome")),
    "labels/classes": Group("stitch", _LEVELS, ("ome",)),
    "labels/confidence": Group("stitch", _LEVELS, ("ome",)),
    "probabilities": Group("stitch", _LEVELS, ("palette", "ome"), optional=True),
    "done": Group("tile", re.compile(".*")),
}
"""By path."""
