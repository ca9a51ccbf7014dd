"""The slides of a run, and where its outputs are."""

from __future__ import annotations

import logging
import os
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from wsiseg.errors import ConfigError, SlideOpenError
from wsiseg.lock import explained, hold
from wsiseg.run.manifest import MANIFEST_SUFFIXES, Entry, read_manifest
from wsiseg.run.names import name_outputs
from wsiseg.run.owners import Owners, read_reserved, write_reserved
from wsiseg.slide import find_slides, find_unsearched, gather_slide, is_own_map, name_slide

__all__ = ["TURN_S", "Job", "OutputTree", "plan_jobs"]

_LOG = logging.getLogger(__name__)

TURN_S = 600.0
"""How long a run waits for others to write into the output: those of an array begin together."""
_IMAGE_FOLDERS = ("coco", "masks", "ome-tiff", "png")
"""Output folders whose files may look like slides."""


@dataclass(frozen=True)
class Job:
    """One slide to annotate."""

    path: Path
    name: str
    """Path of the slide's outputs within each output folder, without extension; unique in a run."""
    mpp: float | None = None
    """Level-0 µm/px from the manifest, which takes precedence over the slide's metadata."""
    same_as: str = ""
    """Name of the job that does the same file by another path; empty if this one does it."""


@dataclass(frozen=True)
class OutputTree:
    """The paths of a run's outputs."""

    root: Path

    def is_one(self) -> bool:
        """Whether a run has written here."""
        return (self.root / "runs").is_dir() and (self.root / "summary.csv").is_file()

    @property
    def slides(self) -> Path:
        """The folder of all stores."""
        return self.root / "slides"

    @property
    def names(self) -> Path:
        """The names that runs have given, each with its slide."""
        return self.root / "runs" / "slides.names"

    def store(self, name: str) -> Path:
        """The Zarr store of a slide."""
        return self.slides / f"{name}.zarr"

    def geojson(self, name: str, gzip: bool = False) -> Path:
        """The polygons of a slide."""
        return self.root / "geojson" / f"{name}.geojson{'.gz' if gzip else ''}"

    def overlay(self, name: str) -> Path:
        """The picture of a slide."""
        return self.root / "overlays" / f"{name}.jpg"

    def log(self, run: str) -> Path:
        """The log of a run."""
        return self.root / "runs" / f"{run}.log"

    def pictures(self, name: str) -> Path:
        """The folder of the pictures that the report's page of a slide shows."""
        return self.root / "report" / f"{name}.files"

    def tissue(self, name: str) -> Path:
        """The editable tissue outline of a slide."""
        return self.root / "tissue" / f"{name}.geojson"


def plan_jobs(
    inputs: Sequence[Path], *, nested: bool = False, out: Path | None = None, reserve: bool = False
) -> list[Job]:
    """Every slide of `inputs` (slides, folders, manifests), with unique output names.

    Outputs are named after the slide, in the same sub-folder (`name_outputs`). A slide that `out`
    holds already keeps its name, by whichever path it is given today (`Owners`). Of several paths
    to one file, one is done, and the other jobs name it. Files that a run wrote into an output
    folder (`out`, or that of an earlier run) inside an input, and maps that say they are wsiseg's,
    do not count as slides. With `reserve`, `out` notes the names, so that no other run takes them
    while the slides wait for their turn.

    Raises
    ------
    SlideOpenError
        If an input does not exist, or a folder holds no slide.
    ConfigError
        If a manifest is malformed, or one file is given with several µm/px.
    """
    unique: dict[str, _Found] = {}
    again = []
    for source in inputs:
        for one in _find(source, nested, out):
            first = unique.setdefault(os.path.abspath(one.path), one)
            if first is not one:
                first.given.extend(one.given)
                again.append(one.path)
    if again:
        _LOG.info("%d slide(s) given more than once are done once, as %s", len(again), again[0])
    files: dict[Hashable, list[_Found]] = {}
    for one in unique.values():
        files.setdefault(_identify(one.path), []).append(one)
    named = _name_jobs(unique, out, reserve=reserve)
    jobs: dict[str, Job] = {}
    for group in files.values():
        mpp = _agree([given for one in group for given in one.given])
        done = min(group, key=lambda one: os.path.islink(one.path))  # the file itself, or the first
        for one in group:
            key = os.path.abspath(one.path)
            same = "" if one is done else named[os.path.abspath(done.path)]
            jobs[key] = Job(one.path, named[key], mpp, same)
    return [jobs[key] for key in unique]


def _name_jobs(found: Mapping[str, _Found], out: Path | None, *, reserve: bool) -> dict[str, str]:
    """Return the name of each slide, by its absolute path."""
    slides = [(one.path, one.within) for one in found.values()]
    if out is None:
        return dict(zip(found, name_outputs(slides), strict=True))
    tree = OutputTree(out)
    with explained(out), hold(tree.names, wait_s=TURN_S) if reserve else nullcontext():
        taken = read_reserved(tree.names)
        named = dict(zip(found, name_outputs(slides, Owners(tree.slides, taken)), strict=True))
        if reserve:
            write_reserved(tree.names, taken | {name: path for path, name in named.items()})
    return named


class _Found(NamedTuple):
    path: Path
    within: Path
    """Its path within the folder that was given."""
    given: list[Entry]
    """Manifest rows that name it."""


def _find(source: Path, nested: bool, out: Path | None) -> Iterator[_Found]:
    source = gather_slide(source)
    if source.is_dir() and source.suffix.lower() != ".zarr":
        slides = find_slides(source, nested, broken=True)
        kept = [
            slide
            for slide in slides
            if not _is_output(slide, source, out) and not is_own_map(slide)
        ]
        if len(kept) < len(slides):
            _LOG.info(
                "%s: %d file(s) that wsiseg wrote are no slides", source, len(slides) - len(kept)
            )
        if not kept:
            hint = "" if nested else "; use --nested to look into sub-folders"
            raise SlideOpenError(f"{source}: holds no slide{hint}")
        if not nested:
            _tell_unsearched(source, out)
        yield from (_Found(slide, _name_below(slide, source), []) for slide in kept)
    elif source.suffix.lower() in MANIFEST_SUFFIXES:
        for entry in read_manifest(source):
            slide = gather_slide(entry.slide)
            yield _Found(slide, Path(name_slide(slide)), [entry])
    elif source.exists() or source.is_symlink():
        yield _Found(source, Path(name_slide(source)), [])
    else:
        raise SlideOpenError(f"{source}: does not exist")


def _tell_unsearched(source: Path, out: Path | None) -> None:
    """Say that sub-folders are not searched, unless they are outputs."""
    if _is_tree(source, out):
        return
    folders = [folder for folder in find_unsearched(source) if not _is_tree(folder, out)]
    if folders:
        _LOG.info(
            "%s: %d sub-folder(s), such as %s, are not searched; --nested searches them",
            source, len(folders), folders[0].name,
        )  # fmt: skip


def _name_below(slide: Path, folder: Path) -> Path:
    """Return the slide's name, with its sub-folder within `folder`."""
    name = name_slide(slide)
    return Path(name) if slide == folder else slide.relative_to(folder).parent / name


def _is_output(slide: Path, source: Path, out: Path | None) -> bool:
    """Whether a run wrote `slide`, into an output folder that is `source` or inside it."""
    for folder in slide.parents:
        tree = folder.parent
        if folder == source:
            return False
        if folder.name in _IMAGE_FOLDERS and _is_tree(tree, out):
            return True
    return False


def _is_tree(folder: Path, out: Path | None) -> bool:
    """Whether `folder` is the output folder of this run, or of an earlier one."""
    is_out = out is not None and os.path.realpath(folder) == os.path.realpath(out)
    return is_out or OutputTree(folder).is_one()


def _identify(path: Path) -> Hashable:
    """Return a key that is equal for paths to one file, through links of either kind."""
    real = os.path.realpath(path)
    try:
        status = path.stat()
    except OSError:
        return real
    # A slide of several files is another slide where it is linked into another folder.
    alone = path.suffix.lower() not in (".mrxs", ".vms", ".vmu", ".dcm") and os.path.isfile(path)
    return (status.st_dev, status.st_ino) if alone and status.st_ino else real


def _agree(given: Sequence[Entry]) -> float | None:
    """Return the µm/px that all manifest rows of a file agree on; raise where they do not."""
    for entry in given[1:]:
        if entry.mpp != given[0].mpp:
            raise ConfigError(
                f"{entry.slide}: has {_say(given[0].mpp)} in {given[0].where}, and "
                f"{_say(entry.mpp)} in {entry.where}; a slide has one scale: leave one of the lines"
            )
    return given[0].mpp if given else None


def _say(mpp: float | None) -> str:
    return "no µm/px" if mpp is None else f"{mpp:g} µm/px"
