"""Frozen encoders by name, and the protocols that ConStruct expects of them.

Images enter as ``(B, 3, H, W)`` float32 RGB in [0, 1]; each encoder normalises for itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

from torch import Tensor

from wsiseg.errors import ConfigError, MissingDependencyError
from wsiseg.model.weights import FILE_ENDINGS, HUB_PREFIX

__all__ = [
    "ENCODERS",
    "LEVELS",
    "TEACHERS",
    "Encoder",
    "Entry",
    "PromptEncoder",
    "Teacher",
    "TextEncoder",
    "check_options",
    "check_teacher",
    "default_teacher",
    "has_texts",
    "keep_portable",
    "load_encoder",
    "load_prompt_encoder",
    "load_teacher",
]


LEVELS = (0, 1, 2, 3)
"""All levels of a pyramid, and all stages of a teacher."""


class Encoder(Protocol):
    """The frozen student: feature pyramid, and embeddings of whole images.

    Levels are counted from 0, the finest.
    """

    identity: str
    """Name and version of the frozen weights; a checkpoint fits only the one it was trained on."""
    level_channels: tuple[int, int, int, int]
    """Channels of each pyramid level."""
    level_strides: tuple[int, int, int, int]
    """Input pixels per cell of each level; a tile is a multiple of the last."""
    embedding_dim: int
    """E: length of the embeddings."""
    cam_level: int
    """Level that the CAMs are taken from (the paper: 3)."""
    guidance_levels: tuple[int, ...]
    """Levels that the teacher guides (the paper: 2)."""
    mean: tuple[float, float, float]
    """Mean of the pyramid's normalisation, RGB in [0, 1]; brightness is scaled about it."""
    equivariant: bool
    """Whether flips and quarter turns of the image only flip and turn the pyramid."""
    region_mean: tuple[float, float, float]
    """Mean of the normalisation that `embed_normalized` expects, RGB in [0, 1]."""
    region_std: tuple[float, float, float]
    """Standard deviation of that normalisation."""

    def pyramid(self, images: Tensor, levels: Sequence[int] = LEVELS) -> list[Tensor]:
        """Maps ``(B, C_i, H / stride_i, W / stride_i)`` of `levels` i, in their order; no gradient.

        What only other levels need is not computed.
        """
        ...

    def embed_image(self, images: Tensor) -> Tensor:
        """``(B, E)`` L2-normalised; no gradient."""
        ...

    def embed_normalized(self, images: Tensor) -> Tensor:
        """`embed_image` of images normalised by `region_mean` and `region_std`, with gradients."""
        ...


class TextEncoder(Encoder, Protocol):
    """An encoder that puts texts into the space of its image embeddings, by whatever means."""

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """``(C, E)`` L2-normalised, one row per prompt; no gradient."""
        ...


class PromptEncoder(TextEncoder, Protocol):
    """An encoder whose text tower was trained with its image tower: prompts mean something to it.

    Its statistics are `Encoder.region_mean` and `Encoder.region_std`.
    """

    image_size: int
    """Side of the images that it takes, pixels."""
    patch: int
    """Side of its patches, pixels."""
    logit_scale: float
    """Factor of the cosines of images and texts in its training."""

    def embed_patches(self, images: Tensor) -> Tensor:
        """``(B, E, S / patch, S / patch)`` of ``(B, 3, S, S)``, L2-normalised; no gradient.

        In the space of `embed_text`, after Zhou et al. 2022 (MaskCLIP).
        """
        ...


class Teacher(Protocol):
    """The frozen teacher whose token affinities the student's guided levels imitate."""

    stage_channels: tuple[int, int, int, int]
    """Channels of each stage."""
    equivariant: bool
    """As `Encoder.equivariant`."""

    def stages(self, images: Tensor, levels: Sequence[int] = LEVELS) -> list[Tensor]:
        """Maps ``(B, D_i, h_i, w_i)`` of `levels` i, in their order; no gradient."""
        ...


class Entry(NamedTuple):
    """Where to find an encoder or a teacher: ``module:name`` of its class."""

    place: str
    install: str = "wsiseg"
    """What `pip install` needs if the module does not import."""
    options: tuple[str, ...] | None = ()
    """Options that the class takes, listed here because importing its module takes seconds. None:
    ask the class itself."""
    teacher: str = ""
    """Of an encoder: its teacher, if the settings name none."""
    texts: bool | None = True
    """Of an encoder: whether it embeds texts. None: ask the class itself."""
    check_texts: str = ""
    """A function that raises, before any tower is loaded, if texts could not be embedded."""


ENCODERS: dict[str, Entry] = {
    "conch": Entry(
        "wsiseg.model.encoders.conch:ConchEncoder",
        "wsiseg[encoders]",
        ("weights", "revision", "image_size", "tokenizer", "texts", "mean", "std"),
        teacher="segformer",
        check_texts="wsiseg.model.encoders.conch_text:check_texts",
    ),
    "ensemble": Entry(
        "wsiseg.model.encoders.ensemble:EnsembleEncoder", options=("weights",), teacher="tiny"
    ),
    "lite": Entry("wsiseg.model.encoders.lite:LiteEncoder", options=("weights",), teacher="tiny"),
    "open_clip": Entry(
        "wsiseg.model.encoders.open_clip:OpenClipEncoder",
        "wsiseg[encoders]",
        ("model", "weights", "revision"),
        teacher="segformer",
    ),
    "small": Entry(
        "wsiseg.model.encoders.small:SmallEncoder", options=("weights",), teacher="tiny"
    ),
    "timm": Entry(
        "wsiseg.model.encoders.timm:TimmEncoder",
        "wsiseg[encoders]",
        ("model", "weights", "revision", "image_size", "mean", "std", "arguments"),
        teacher="segformer",
        texts=False,
    ),
    "tiny": Entry("wsiseg.model.encoders.tiny:TinyEncoder", teacher="tiny"),
}
"""Encoders by name; one file each. Packages add theirs as entry points, ``wsiseg.encoders``."""

TEACHERS: dict[str, Entry] = {
    "segformer": Entry(
        "wsiseg.model.encoders.segformer:SegformerTeacher",
        "wsiseg[encoders]",
        ("weights", "revision", "strides"),
    ),
    "tiny": Entry("wsiseg.model.encoders.tiny:TinyTeacher"),
}
"""Teachers likewise; the entry points are ``wsiseg.teachers``."""


def load_encoder(name: str, **options: Any) -> Encoder:
    """Make the frozen student `name`; `options` are what its class takes.

    Raises
    ------
    ConfigError
        If the name or an option is unknown; lists the known ones.
    MissingDependencyError
        If it needs a package that is not installed; gives the install line.
    CheckpointError
        If its weights are not found or are not its own.
    """
    return cast(Encoder, _make("encoder", name, options))


def load_prompt_encoder(name: str, **options: Any) -> PromptEncoder:
    """Make the encoder `name` for use with prompts; errors as `load_encoder`.

    Raises
    ------
    ConfigError
        If it has no text tower that was trained with its image tower.
    """
    encoder = load_encoder(name, **options)
    if not hasattr(encoder, "embed_patches"):
        raise ConfigError(
            f"encoder {name!r} cannot be used with prompts: it has no text tower, so its text "
            f"embeddings say nothing about images; use conch or open_clip"
        )
    return cast(PromptEncoder, encoder)


def load_teacher(name: str, **options: Any) -> Teacher:
    """Make the frozen teacher `name`; errors as `load_encoder`."""
    return cast(Teacher, _make("teacher", name, options))


def default_teacher(encoder: str) -> str:
    """Return an encoder's own teacher; for an added encoder `tiny`, which needs no download."""
    return _find("encoder", encoder).teacher or "tiny"


def has_texts(name: str) -> bool:
    """Whether the encoder `name` embeds texts."""
    entry = _find("encoder", name)
    if entry.texts is not None:
        return entry.texts
    return hasattr(_import("encoder", name, entry.place), "embed_text")


def check_options(name: str, options: Mapping[str, Any], *, texts: bool = False) -> None:
    """Refuse what `load_encoder` would, without loading anything.

    Parameters
    ----------
    texts
        Whether texts will be embedded; then what that needs is checked as well.

    Raises
    ------
    ConfigError
        If the name or an option is unknown, or there is no text tower for texts.
    CheckpointError
        If texts cannot be embedded because the tokenizer is missing or another model's.
    """
    entry = _find("encoder", name)
    _refuse_unknown("encoder", name, options)
    if texts and not has_texts(name):
        raise ConfigError(
            f"encoder {name!r} has no text tower, so prototypes cannot start as texts; set "
            f"prototypes to images (what the labelled patches look like) or random"
        )
    if texts and entry.check_texts:
        _import("encoder", name, entry.check_texts)(**options)


def check_teacher(name: str, options: Mapping[str, Any]) -> None:
    """Refuse what `load_teacher` would, without loading anything; errors as `check_options`."""
    _refuse_unknown("teacher", name, options)


def keep_portable(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that mean the same on another machine: all but paths of this one.

    A path is recognised by its form, not by looking for a file: the same options must give the
    same digest in whatever directory a run is started.
    """
    return {name: value for name, value in options.items() if not _names_a_file(value)}


def _names_a_file(value: object) -> bool:
    """Whether a value is a path; ``owner/name`` is a hub repository, one word an architecture."""
    if isinstance(value, Path):
        return True
    if not isinstance(value, str) or value.startswith(HUB_PREFIX):
        return False
    rooted = value.startswith((".", "~")) or Path(value).is_absolute()
    return rooted or value.endswith(FILE_ENDINGS) or value.count("/") > 1 or "\\" in value


def _find(kind: str, name: str) -> Entry:
    """Find the entry of an encoder or a teacher: wsiseg's own, or one that a package added."""
    own = ENCODERS if kind == "encoder" else TEACHERS
    if name in own:
        return own[name]
    added = {point.name: point for point in entry_points(group=f"wsiseg.{kind}s")}
    if name in added:
        package = added[name].dist
        return Entry(added[name].value, name if package is None else package.name, None, texts=None)
    known = ", ".join(sorted({*own, *added}))
    raise ConfigError(f"{kind} {name!r} is unknown; known are {known}")


def _make(kind: str, name: str, options: Mapping[str, Any]) -> object:
    _refuse_unknown(kind, name, options)
    make = _import(kind, name, _find(kind, name).place)
    # YAML knows lists only; the encoders' own values are tuples.
    settled = {key: tuple(v) if isinstance(v, list) else v for key, v in options.items()}
    return make(**settled)


def _refuse_unknown(kind: str, name: str, options: Mapping[str, Any]) -> None:
    entry = _find(kind, name)
    accepted = entry.options
    if accepted is None:
        accepted = tuple(inspect.signature(_import(kind, name, entry.place)).parameters)
    unknown = [option for option in options if option not in accepted]
    if unknown:
        raise ConfigError(
            f"{entry.place.split(':')[1]} of {kind} {name!r} has no option "
            f"{', '.join(map(repr, unknown))}; it takes {', '.join(accepted) or 'none'}"
        )


def _import(kind: str, name: str, place: str) -> Any:
    module, _, attribute = place.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{kind} {name!r} needs {error.name}: pip install '{_find(kind, name).install}'"
        ) from error
