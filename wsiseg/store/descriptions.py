"""Find damaged descriptions (``zarr.json``) of a store's groups and marks.

They have no checksums, but a form. The run that makes a step again writes those of it anew. Those
of arrays are checked where the arrays are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from wsiseg.store.files import Files
from wsiseg.store.groups import GROUPS
from wsiseg.store.marks import Marks
from wsiseg.store.nodes import Node, find_fault

__all__ = ["Fault", "find_faults"]


class Fault(NamedTuple):
    """A description that is not as it was written."""

    step: str
    path: str
    """Of the group or the array of marks."""
    why: str


def find_faults(files: Files, marks: Marks) -> list[Fault]:
    """Find the damaged descriptions of groups and marks that hold any files."""
    places = {path: (group.step, group.attributes) for path, group in GROUPS.items()}
    places |= {f"done/{step}": (step, ()) for step in marks.steps}
    faults = [Fault(step, path, _check(files, path, has)) for path, (step, has) in places.items()]
    return [fault for fault in faults if fault.why]


def _check(files: Files, path: str, attributes: Sequence[str]) -> str:
    """Say what is wrong with a description; empty if nothing is."""
    data = files.read(f"{path}/zarr.json")
    if data is None:
        return "is missing" if files.sizes(f"{path}/") else ""
    why = find_fault(data)
    if not why:
        lost = [name for name in attributes if name not in Node(files, path).attrs]
        why = f"{', '.join(lost)} is missing in it" if lost else ""
    return f"is damaged ({why})" if why else ""
