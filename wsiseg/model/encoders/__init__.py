"""Frozen encoders by name, and the two promises that ConStruct needs of them.

Images enter as ``(B, 3, H, W)`` float32 RGB in [0, 1]; each encoder normalises for itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

from torch import Tensor

from wsiseg.errors import ConfigError, MissingDependencyError
from wsiseg.model.weights import FILE_ENDINGS, HUB_PREFIX

__all__ = [
    "ENCODERS",
    "LEVELS",
    "Encoder",
    "Pair",
    "PromptEncoder",
    "Teacher",
    "check_options",
    "keep_portable",
    "load_encoder",
    "load_prompt_encoder",
    "load_teacher",
]


LEVELS = (0, 1, 2, 3)
"""All levels of a pyramid, and all stages of a teacher."""


class Encoder(Protocol):
    """The frozen student: feature pyramid, and one space for regions and texts.

    Levels are counted from 0, the finest.
    """

    identity: str
    """Name and version of the frozen weights; a checkpoint fits only the one it was trained on."""
    level_channels: tuple[int, int, int, int]
    """Channels of each pyramid level."""
    level_strides: tuple[int, int, int, int]
    """Input pixels a cell of each level; a tile is a multiple of the last."""
    embedding_dim: int
    """E: length of image and text embeddings."""
    cam_level: int
    """Level that the CAMs are taken from (the paper: 3)."""
    guidance_levels: tuple[int, ...]
    """Levels that the teacher guides (the paper: 2)."""
    mean: tuple[float, float, float]
    """Mean of the normalisation before the pyramid, RGB in [0, 1]; brightness turns about it."""
    equivariant: bool
    """Whether flips and quarter turns of the image only flip and turn the pyramid."""
    region_mean: tuple[float, float, float]
    """Mean of the normalisation that `embed_normalized` expects, RGB in [0, 1]."""
    region_std: tuple[float, float, float]
    """Its spread."""

    def pyramid(self, images: Tensor, levels: Sequence[int] = LEVELS) -> list[Tensor]:
        """Maps ``(B, C_i, H / stride_i, W / stride_i)`` of `levels` i, in their order; no gradient.

        What only other levels need is not computed.
        """
        ...

    def embed_image(self, images: Tensor) -> Tensor:
        """``(B, E)`` L2-normalised; no gradient."""
        ...

    def embed_normalized(self, images: Tensor) -> Tensor:
        """The same of images normalised by `region_mean` and `region_std`; gradients reach them."""
        ...

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """``(C, E)`` L2-normalised, one row a prompt; no gradient."""
        ...


class PromptEncoder(Encoder, Protocol):
    """An encoder whose text tower was trained with its image tower: prompts mean something to it.

    Its statistics are `Encoder.region_mean` and `Encoder.region_std`.
    """

    image_size: int
    """Side of the images that it takes, pixels."""
    patch: int
    """Pixels a patch of it."""
    logit_scale: float
    """What cosines of images and texts were multiplied by in its training."""

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


class Pair(NamedTuple):
    """Where a student and its teacher are found, as ``module:name`` of what makes them."""

    student: str
    teacher: str
    install: str
    """What `pip install` needs if their module does not import."""
    student_options: tuple[str, ...] = ()
    """What the student's class takes: known before its module is imported, which takes seconds."""
    teacher_options: tuple[str, ...] = ()
    """What the teacher's takes."""
    check_texts: str = ""
    """What raises, before any tower is loaded, if texts could not be embedded."""


ENCODERS: dict[str, Pair] = {
    "conch": Pair(
        "wsiseg.model.encoders.conch:ConchEncoder",
        "wsiseg.model.encoders.segformer:SegformerTeacher",
        "wsiseg[encoders]",
        ("weights", "revision", "image_size", "tokenizer", "texts", "mean", "std"),
        ("weights", "revision", "strides"),
        "wsiseg.model.encoders.conch_text:check_texts",
    ),
    "open_clip": Pair(
        "wsiseg.model.encoders.open_clip:OpenClipEncoder",
        "wsiseg.model.encoders.segformer:SegformerTeacher",
        "wsiseg[encoders]",
        ("model", "weights", "revision"),
        ("weights", "revision", "strides"),
    ),
    "small": Pair(
        "wsiseg.model.encoders.small:SmallEncoder",
        "wsiseg.model.encoders.tiny:TinyTeacher",
        "wsiseg",
        ("weights",),
    ),
    "tiny": Pair(
        "wsiseg.model.encoders.tiny:TinyEncoder",
        "wsiseg.model.encoders.tiny:TinyTeacher",
        "wsiseg",
    ),
}
"""Encoder pairs by name; one file each."""


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
    pair = _find(name)
    return cast(Encoder, _make(name, pair.student, pair.student_options, options))


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
            f"encoder {name!r} cannot be used with prompts: it has no text tower, and what it "
            f"makes of a text has no meaning for an image; take conch or open_clip"
        )
    return cast(PromptEncoder, encoder)


def load_teacher(name: str, **options: Any) -> Teacher:
    """Make the frozen teacher that goes with the student `name`; errors as `load_encoder`."""
    pair = _find(name)
    return cast(Teacher, _make(name, pair.teacher, pair.teacher_options, options))


def check_options(
    name: str, student: Mapping[str, Any], teacher: Mapping[str, Any] | None = None, *,
    texts: bool = False,
) -> None:  # fmt: skip
    """Refuse what `load_encoder` and `load_teacher` would, without loading anything.

    Parameters
    ----------
    student, teacher
        Their options; None where there is no teacher.
    texts
        Whether texts will be embedded: what that needs is looked for as well.

    Raises
    ------
    ConfigError
        If the name or an option is unknown.
    CheckpointError
        If texts cannot be embedded, as a tokenizer is missing or another's.
    """
    pair = _find(name)
    _refuse_unknown(name, pair.student, pair.student_options, student)
    _refuse_unknown(name, pair.teacher, pair.teacher_options, teacher or {})
    if texts and pair.check_texts:
        _import(name, pair.check_texts)(**student)


def keep_portable(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that mean the same on another machine: all but paths of this one.

    Told by how a value is written, not by what lies in the working directory: the same options
    must give the same digest wherever a run is started.
    """
    return {name: value for name, value in options.items() if not _names_a_file(value)}


def _names_a_file(value: object) -> bool:
    """``owner/name`` is a repository of the hub, and a word is an architecture."""
    if isinstance(value, Path):
        return True
    if not isinstance(value, str) or value.startswith(HUB_PREFIX):
        return False
    led = value.startswith((".", "~")) or Path(value).is_absolute()
    return led or value.endswith(FILE_ENDINGS) or value.count("/") > 1 or "\\" in value


def _find(name: str) -> Pair:
    if name not in ENCODERS:
        raise ConfigError(f"encoder {name!r} is unknown; known are {', '.join(sorted(ENCODERS))}")
    return ENCODERS[name]


def _make(name: str, place: str, accepted: Sequence[str], options: Mapping[str, Any]) -> object:
    _refuse_unknown(name, place, accepted, options)
    make = _import(name, place)
    # YAML knows lists only; the encoders' own values are tuples.
    settled = {key: tuple(v) if isinstance(v, list) else v for key, v in options.items()}
    return make(**settled)


def _refuse_unknown(
    name: str, place: str, accepted: Sequence[str], options: Mapping[str, Any]
) -> None:
    unknown = [option for option in options if option not in accepted]
    if unknown:
        raise ConfigError(
            f"{place.split(':')[1]} of encoder {name!r} has no option "
            f"{', '.join(map(repr, unknown))}; it takes {', '.join(accepted) or 'none'}"
        )


def _import(name: str, place: str) -> Any:
    module, attribute = place.split(":")
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"encoder {name!r} needs {error.name}: pip install '{ENCODERS[name].install}'"
        ) from error
