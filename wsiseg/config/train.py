"""Training on patch labels, or on labelled tiles of stores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from wsiseg.config.model import Precision, Settings

__all__ = [
    "LabelConfig",
    "Pooling",
    "Preset",
    "Prototypes",
    "TrainConfig",
    "check_class_names",
]


Pooling = Literal["mean", "smooth"]
"""How a patch's class logit is derived from its CAM: the `mean`, or the logarithm of the mean
exponential, a `smooth` maximum, in which a class that fills part of the patch counts by that part.
"""


Preset = Literal["reference", "paper", "wsiseg"]
"""The version of ConStruct: the released code's, the paper's text, or ours."""


Prototypes = Literal["auto", "text", "images", "both", "random"]
"""What class prototypes start from."""


_Level = Annotated[int, Field(ge=0, le=255)]


class LabelConfig(Settings):
    """Tiles of stores as training data: which are used, and which classes they show."""

    origin: Literal["qupath", "level0"] = "qupath"
    """Origin of coordinates in files that do not say theirs, such as QuPath's and tables: the
    corner of the slide's bounds, as in QuPath, or that of level 0. Files of wsiseg say theirs."""
    class_fraction: float = Field(default=0.05, gt=0, le=1)
    """A window shows a class if annotations of it cover at least this fraction of the labelled or
    checked part."""
    annotated_fraction: float = Field(default=0.5, gt=0, le=1)
    """An area larger than a tile gets a window wherever it covers at least this fraction of a tile;
    a thin one, which does so nowhere, wherever it covers half as much of a tile as at best."""
    corrected_weight: float = Field(default=3.0, gt=0)
    """Weight of a correction relative to a first label."""
    map: dict[str, str] = Field(default={})
    """Names of classes in the label files, and the classes that they become; an empty one is
    ignored. On the command line: `--map "Tumour=Tumor,Tumor: invasive=Tumor"`."""
    tissue_fraction: float = Field(default=0.05, ge=0, le=1)
    """A tile of a store can be used if at least this fraction of it is tissue."""


def check_class_names(names: Sequence[str]) -> Sequence[str]:
    """Return the names of classes; raise `ValueError` if one is blank or occurs twice."""
    for name in names:
        if not name.strip():
            raise ValueError(f"{name!r} is not a class name")
        if names.count(name) > 1:
            raise ValueError(f"{name!r} occurs {names.count(name)} times")
    return names


class TrainConfig(Settings):
    """Training on patch labels."""

    preset: Preset = "wsiseg"
    """`reference`: what the released code computes, including its accidents. `paper`: what the text
    says. `wsiseg`: without parts that have no effect in either, with a contrast that reaches the
    prototypes and a teacher that reaches the CAM."""
    encoder: str = "tiny"
    """The frozen student: `tiny`, `lite`, `small`, these two at once (`ensemble`), `conch`,
    `open_clip`, `timm` (any vision transformer), or one that an installed package adds as an entry
    point of the group `wsiseg.encoders`."""
    encoder_options: dict[str, Any] = Field(default={})
    """Options of the student: `model`, `weights`, `image_size`, ...; an unknown one is an error
    that lists them."""
    teacher: str = ""
    """The frozen teacher: `segformer` or `tiny`; empty for the one that goes with the encoder."""
    teacher_options: dict[str, Any] = Field(default={})
    """Options of the teacher: `weights`, `strides`, ..."""
    classes: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(check_class_names)] = (
        "Tumor", "Stroma", "Immune cells", "Necrosis",
    )  # fmt: skip
    """Class names in label order, without duplicates."""
    prompts: tuple[str, ...] = ()
    """One text per class, from which its prototypes start; empty for built-in ones."""
    prototypes: Prototypes = "auto"
    """What prototypes start from: the embedded prompts (`text`), clusters of the patches that show
    the class (`images`), `both` side by side, or `random` directions (for comparison). `auto` is
    `text`, or `images` for an encoder without a text tower."""
    colors: tuple[tuple[_Level, _Level, _Level], ...] = ()
    """RGB per class for labels and polygons; empty for QuPath's own."""
    mpp: float = Field(default=0.5, gt=0)
    """µm/px of the patches, which is stored in the checkpoint. Stores have their own."""
    labels: LabelConfig = LabelConfig()
    """How tiles of stores get their labels."""
    background: tuple[str, ...] = ()
    """Classes that are learned but are not tissue, such as glass; they must be the last of
    `classes`. They compete with the others, and where they win a map shows nothing."""
    balance: bool = False
    """Whether rare classes count more: for each class, the weights of patches with and without it
    are brought closer by the square root of what would make them equal, at most five times."""
    pooling: Pooling = "mean"
    """A patch's class logit: the `mean` of its CAM, as in the paper, or a `smooth` maximum, for
    classes that fill only part of a labelled patch."""
    prototypes_per_class: int = Field(default=1, ge=1)
    """Prototypes per class; `both` has this many of each kind."""
    diversity_weight: float = Field(default=0.0, ge=0)
    """Weight of the term that keeps the prototypes of a class apart (LPD): it is high if two of
    them respond alike within the class's region."""
    cam_levels: tuple[Annotated[int, Field(ge=0, le=3)], ...] = ()
    """Pyramid levels (0 is the finest) that the CAM reads; empty for the encoder's default. Several
    are fused top-down, and the CAM has the grid of the finest. With `tiny`, fusing levels 1 and 2
    was better than its default after 96 steps on 64 patches, and worse after 150 on 400, so the
    default is one level."""
    cam_overlap: Literal[1, 2] = 1
    """2: the finished model sees an image four times, shifted by a quarter of a cell, so that its
    CAM has twice the rows and columns; training is the same."""
    guidance_levels: tuple[Annotated[int, Field(ge=0, le=3)], ...] = ()
    """Pyramid levels (0 is the finest) that the teacher guides; empty for the encoder's default.
    Preset `wsiseg` guides only the level that the CAM reads, as guiding others does not change the
    CAM."""
    turns: bool = True
    """Whether to flip and rotate patches. If not, the features of a frozen encoder are computed
    only once: much faster, for encoders that were trained to ignore rotation."""
    epochs: int = Field(default=12, ge=1)
    """Passes over the patches."""
    batch_size: int = Field(default=16, ge=1)
    """Patches per step."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """AdamW's learning rate before decay."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps over which the learning rate rises from almost 0."""
    weight_decay: float = Field(default=1e-3, ge=0)
    """AdamW's decoupled weight decay."""
    struct_weight: float = Field(default=1.5, ge=0)
    """Weight of the relational (teacher) loss."""
    contrast_weight: float = Field(default=0.2, ge=0)
    """Weight of the foreground/background contrastive loss."""
    contrast_shrink: int = Field(default=2, ge=1)
    """The factor by which patches are shrunk before the contrast's regions are cut out: faster,
    with less detail. Presets `reference` and `paper` do not shrink."""
    exemplars: int = Field(default=0, ge=0)
    """This many patches of each class leave their features (not their pixels) in the checkpoint,
    some 25 kB each with `ensemble`, so that `learn --from` does not forget what they taught. Only
    with preset `wsiseg` and one of `cam_levels`."""
    recall_weight: float = Field(default=0.1, ge=0)
    """When training goes on from a checkpoint with exemplars: weight of the term that keeps its
    CAMs of them as they were; 0 lets classes that the new labels do not show fade."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`; only CPU runs are repeatable bit by bit."""
    precision: Precision = "float32"
    """Precision of the frozen encoders, and of products in the trained part; weights stay float32.
    With `float16` the loss is scaled, and steps whose gradients overflow are skipped."""
    seed: int = Field(default=42, ge=0, lt=2**63)
    """Seed of initialisation, shuffling and augmentation."""
