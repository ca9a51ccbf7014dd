"""Training on patch labels, and on labelled tiles of stores."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from wsiseg.config.model import Precision, Settings

__all__ = ["LabelConfig", "Pooling", "Preset", "Prototypes", "TrainConfig"]


Pooling = Literal["mean", "smooth"]
"""What a patch's class logit is of its CAM: the `mean`, or the logarithm of the mean exponential,
a `smooth` maximum, so that a class that fills a part of the patch counts by that part."""


Preset = Literal["reference", "paper", "wsiseg"]
"""Whose reading of ConStruct is computed: the released code's, the paper's text, or ours."""


Prototypes = Literal["auto", "text", "images", "both", "random"]
"""What the prototypes of classes begin as."""


_Level = Annotated[int, Field(ge=0, le=255)]


class LabelConfig(Settings):
    """Tiles of stores as training data: which are used, and which classes show in them."""

    origin: Literal["qupath", "level0"] = "qupath"
    """Where coordinates begin: at the slide's bounds corner, as QuPath has it, or at level 0's."""
    class_fraction: float = Field(default=0.05, gt=0, le=1)
    """A window shows a class if annotations of it cover at least this fraction of what was labelled
    or checked there."""
    annotated_fraction: float = Field(default=0.5, gt=0, le=1)
    """An area larger than a tile has windows where it covers at least this fraction of a tile; one
    that does so nowhere has one."""
    corrected_weight: float = Field(default=3.0, gt=0)
    """How much a correction counts, beside one of the first labels."""
    map: dict[str, str] = Field(default={})
    """Classes of the label files by what they are to be called; empty leaves one out. On the
    command line: `--map "Tumour=Tumor,Tumor: invasive=Tumor"`."""
    tissue_fraction: float = Field(default=0.05, ge=0, le=1)
    """A tile of a store can be used if at least this fraction of it is tissue."""


def _check_names(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not name.strip():
            raise ValueError(f"{name!r} is no name of a class")
        if names.count(name) > 1:
            raise ValueError(f"{name!r} is there {names.count(name)} times")
    return names


class TrainConfig(Settings):
    """Training on patch labels."""

    preset: Preset = "wsiseg"
    """`reference`: what the released code computes, its accidents included. `paper`: what the text
    says. `wsiseg`: neither's dead weight, contrast that reaches the prototypes, and a teacher that
    reaches the CAM."""
    encoder: str = "tiny"
    """The frozen student: `tiny`, `small`, `conch`, `open_clip`, `timm` (any vision transformer),
    or one that an installed package adds as an entry point of the group `wsiseg.encoders`."""
    encoder_options: dict[str, Any] = Field(default={})
    """What the student takes: `model`, `weights`, `image_size`, ... ; an unknown one lists the
    known."""
    teacher: str = ""
    """The frozen teacher: `segformer` or `tiny`; empty for the one that goes with the encoder."""
    teacher_options: dict[str, Any] = Field(default={})
    """What the teacher takes: `weights`, `strides`, ..."""
    classes: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_check_names)] = (
        "Tumor", "Stroma", "Immune cells", "Necrosis",
    )  # fmt: skip
    """Class names in label order, none twice."""
    prompts: tuple[str, ...] = ()
    """A text a class, which its prototypes begin as; empty for wsiseg's own."""
    prototypes: Prototypes = "auto"
    """What prototypes begin as: the embedded prompts (`text`), clusters of the patches that show
    the class (`images`), `both` side by side, or `random` directions (for comparison). `auto` is
    `text`, or `images` with an encoder that has no text tower."""
    colors: tuple[tuple[_Level, _Level, _Level], ...] = ()
    """RGB a class for labels and polygons; empty for QuPath's own."""
    mpp: float = Field(default=0.5, gt=0)
    """µm/px of the patches; the checkpoint remembers it. Stores know their own."""
    labels: LabelConfig = LabelConfig()
    """How tiles of stores get their labels."""
    background: tuple[str, ...] = ()
    """Classes that are learned but are no tissue, such as glass: the last of `classes`. They
    compete with the others, and where they win a map shows nothing."""
    balance: bool = False
    """Whether rare classes count more: both answers of a class, shown or not, are brought nearer to
    each other, by the square root of what would make them alike, and at most five times."""
    pooling: Pooling = "mean"
    """A patch's class logit: the `mean` of its CAM, as in the paper, or a `smooth` maximum, for
    labels of classes that fill only a part of the patch."""
    prototypes_per_class: int = Field(default=1, ge=1)
    """k of the prototype bank; `both` has k of each kind."""
    diversity_weight: float = Field(default=0.0, ge=0)
    """Weight of the term that keeps a class's several prototypes apart: it is high where two of
    them respond alike within the class's region (LPD)."""
    cam_levels: tuple[Annotated[int, Field(ge=0, le=3)], ...] = ()
    """Pyramid levels (0 the finest) that the CAM reads; empty for the encoder's own. Several are
    fused top-down, and the CAM has the grid of the finest."""
    cam_overlap: Literal[1, 2] = 1
    """2: the finished model looks at an image four times, a quarter cell off each way, so that its
    CAM has twice the rows and columns; training is the same."""
    guidance_levels: tuple[Annotated[int, Field(ge=0, le=3)], ...] = ()
    """Pyramid levels (0 the finest) that the teacher guides; empty for the encoder's own. Preset
    `wsiseg` guides the level that the CAM reads and no other, as guiding others changes no CAM."""
    turns: bool = True
    """Whether patches are flipped and turned. If not, what any frozen encoder sees of them is
    computed once: much faster, for encoders that were taught so that turning tells them nothing."""
    epochs: int = Field(default=12, ge=1)
    """Passes over the patches."""
    batch_size: int = Field(default=16, ge=1)
    """Patches a step."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """AdamW's learning rate before decay."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps over which the learning rate rises from almost nothing."""
    weight_decay: float = Field(default=1e-3, ge=0)
    """AdamW's decoupled weight decay."""
    struct_weight: float = Field(default=1.5, ge=0)
    """Weight of the relational (teacher) loss."""
    contrast_weight: float = Field(default=0.2, ge=0)
    """Weight of the foreground/background contrastive loss."""
    contrast_shrink: int = Field(default=2, ge=1)
    """Its regions are cut from patches this many times smaller: faster, less detail. Presets
    `reference` and `paper` take them whole."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`; only a CPU repeats bit by bit."""
    precision: Precision = "float32"
    """Of the frozen encoders and of products in the trained part; weights stay float32. With
    `float16` the loss is scaled, and a step whose gradients overflow is left out."""
    seed: int = 42
    """Seed of initialisation, shuffling and augmentation."""
