"""Survey a folder before the first run: list its contents and write matching settings."""

from __future__ import annotations

import os
import shlex
import shutil
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsiseg.compute import Progress
from wsiseg.config import Config, SlideConfig
from wsiseg.errors import ConfigError, SlideOpenError, WsisegError
from wsiseg.slide import find_slides, open_slide
from wsiseg.text import write_text
from wsiseg.train.patches import has_labels

__all__ = ["Found", "Survey", "describe", "next_command", "survey_folder", "write_settings"]

_MAX_OPENED = 200
_MAX_NAMED = 5
_IMAGES = (".png", ".jpg", ".jpeg", ".bmp")


@dataclass(frozen=True)
class Found:
    """One slide that could be opened."""

    path: Path
    mpp: float | None
    """µm/px of level 0; None if the file does not state it."""
    size: tuple[int, int]
    """Width and height of level 0 in pixels; (0, 0) for a slide without µm/px."""


@dataclass(frozen=True)
class Survey:
    """Contents of a folder, and resources of this machine."""

    folder: Path
    nested: bool
    """Whether the slides are in subfolders."""
    slides: tuple[Path, ...]
    opened: tuple[Found, ...]
    """Those of the first 200 slides that could be opened."""
    broken: tuple[tuple[Path, str], ...]
    """Slides that cannot be opened, and why."""
    patches: tuple[Path, ...]
    """Folders of labelled patches."""
    masked: tuple[Path, ...]
    """Folders that contain ``img/`` and ``mask/``."""
    gpu: str | None
    """Name of the GPU, if there is one."""
    slurm: bool
    cores: int

    @property
    def unscaled(self) -> tuple[Path, ...]:
        """Slides that do not state their µm/px."""
        return tuple(one.path for one in self.opened if one.mpp is None)


def survey_folder(folder: str | Path, progress: Progress | None = None) -> Survey:
    """Find slides, their µm/px and labelled patches in a folder, and a GPU on this machine.

    Parameters
    ----------
    progress
        Called with ("slides", slides opened, slides to open).

    Raises
    ------
    ConfigError
        If `folder` is not a folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(f"{folder}: is not a folder; give the one that holds slides or patches")
    flat = find_slides(folder)
    slides = flat or find_slides(folder, nested=True)
    patches, masked = _find_patches(folder)
    inside = {*patches, *(place / part for place in masked for part in ("img", "mask"))}
    slides = [path for path in slides if path.parent not in inside]  # patches may be TIFF files
    opened, broken = _open_all(slides[:_MAX_OPENED], progress)
    return Survey(
        folder, bool(slides) and not flat, tuple(slides), opened, broken, patches, masked,
        _find_gpu(), shutil.which("sbatch") is not None, os.cpu_count() or 1,
    )  # fmt: skip


def _open_all(
    slides: Sequence[Path], progress: Progress | None
) -> tuple[tuple[Found, ...], tuple[tuple[Path, str], ...]]:
    opened, broken = [], []
    for count, path in enumerate(slides, start=1):
        try:
            with open_slide(path, SlideConfig()) as slide:
                opened.append(Found(path, slide.mpp.x, (slide.size.width, slide.size.height)))
        except SlideOpenError as error:
            broken.append((path, str(error)))
        except WsisegError:  # no µm/px
            opened.append(Found(path, None, (0, 0)))
        if progress is not None:
            progress("slides", count, len(slides))
    return tuple(opened), tuple(broken)


def _find_patches(folder: Path) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Find folders of labelled patches and of patches with masks, at most one level down."""
    places = [folder, *sorted(p for p in folder.iterdir() if p.is_dir() and p.name[:1] != ".")]
    masked = [place for place in places if (place / "img").is_dir() and (place / "mask").is_dir()]
    labelled = [
        place for place in places
        if any(path.suffix.lower() in _IMAGES for path in place.iterdir()) and has_labels(place)
    ]  # fmt: skip
    return tuple(labelled), tuple(masked)


def _find_gpu() -> str | None:
    import torch

    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else None


def write_settings(survey: Survey, path: str | Path | None = None) -> Path:
    """Write commented settings that fit the folder to ``wsiseg.yaml`` in it, or to `path`.

    Raises
    ------
    ConfigError
        If the file exists: it may contain edits.
    """
    path = Path(path or survey.folder / "wsiseg.yaml")
    if path.exists():
        raise ConfigError(f"{path}: already exists; move it, or give another name with --out")
    return write_text(_compose(survey), path)


def _compose(survey: Survey) -> str:
    default = Config()
    lines = [
        f"# Settings for {survey.folder.resolve().name}, written by `wsiseg init`. A setting",
        "# that is removed takes its default; `wsiseg config` prints every setting.",
        *_comment(describe(survey)),
        "",
        "slide:",
        *_scale_lines(survey),
        "tile:",
        "  # Working µm/px; 0.5, at which `tissue` was trained, distinguishes tissue well.",
        f"  mpp: {_plain(default.tile.mpp)}",
        "predict:",
        "  # A checkpoint's file or name, see `wsiseg model list`.",
        f"  checkpoint: {default.predict.checkpoint}",
        f"  device: {default.predict.device}  # {_say_device(survey)}",
        "stitch:",
        "  # The dense CRF follows the edges of the tissue, and takes most of the time.",
        f"  refine: {str(default.stitch.refine).lower()}",
        "outline:",
        "  # Regions smaller than this are absorbed by their neighbours (µm²).",
        f"  min_area_um2: {default.outline.min_area_um2}",
        "",
    ]
    return "\n".join(lines)


def next_command(survey: Survey, settings: Path | None) -> str:
    """Return the command line to run next."""
    if survey.slides:
        nested = ["--nested"] if survey.nested else []
        out = survey.folder.parent / f"{survey.folder.resolve().name}-maps"
        given = [] if settings is None else ["-c", str(settings)]
        return shlex.join(
            ["wsiseg", "annotate", str(survey.folder), "-o", str(out), *given, *nested]
        )
    if survey.patches:
        return shlex.join(["wsiseg", "train", str(survey.patches[0]), "-o", "model.safetensors"])
    if survey.masked:
        return shlex.join(["wsiseg", "evaluate", "tissue", str(survey.masked[0])])
    return "wsiseg demo, which makes its own slides"


def describe(survey: Survey) -> list[str]:
    """Describe the findings, one line each."""
    lines = [_say_slides(survey)] if survey.slides else ["No slides."]
    lines += [f"Cannot be opened: {error}" for _, error in survey.broken[:_MAX_NAMED]]
    if len(survey.broken) > _MAX_NAMED:
        lines.append(f"... and {len(survey.broken) - _MAX_NAMED} more that cannot be opened.")
    lines += [f"Labelled patches: {place}" for place in survey.patches]
    lines += [f"Patches with masks: {place}" for place in survey.masked]
    lines.append(f"{survey.cores} cores, {_say_device(survey)}.")
    if survey.slurm:
        lines.append("SLURM is available: see configs/slurm.yaml for --executor.")
    return lines


def _say_slides(survey: Survey) -> str:
    kinds = Counter(path.suffix.lower() for path in survey.slides)
    kind = ", ".join(f"{count} {suffix}" for suffix, count in sorted(kinds.items()))
    scales = sorted({round(one.mpp, 4) for one in survey.opened if one.mpp is not None})
    wide = f"{scales[0]:g} to {scales[-1]:g}" if len(scales) > 1 else f"{scales[0]:g}"
    scale = f"; {wide} µm/px" if scales else ""
    first = f" (of the first {_MAX_OPENED})" if scale and len(survey.slides) > _MAX_OPENED else ""
    return f"{len(survey.slides)} slide(s): {kind}{scale}{first}."


def _say_device(survey: Survey) -> str:
    return f"GPU {survey.gpu}" if survey.gpu else "no GPU"


def _scale_lines(survey: Survey) -> list[str]:
    missing = [path.name for path in survey.unscaled]
    if not missing:
        return ["  # Every slide that was opened states its µm/px.", "  mpp_override: null"]
    more = f" and {len(missing) - _MAX_NAMED} more" if len(missing) > _MAX_NAMED else ""
    named = ", ".join(missing[:_MAX_NAMED]) + more
    advice = (
        f"{len(missing)} slide(s) do not state their µm/px: {named}. "
        f"Give it here if it is the same for all slides; else in a manifest, a CSV with the "
        f"columns slide and mpp, given on the command line instead of the folder."
    )
    return [*_wrap(advice, "  # "), "  mpp_override: null"]


def _plain(value: float | None) -> str:
    return "null" if value is None else f"{value:g}"


def _comment(lines: Sequence[str]) -> list[str]:
    return ["#", *(part for line in lines for part in _wrap(line, "# "))]


def _wrap(text: str, lead: str) -> list[str]:
    return textwrap.wrap(
        text, 96, initial_indent=lead, subsequent_indent=lead, break_on_hyphens=False
    )
