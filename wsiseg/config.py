"""Settings: one frozen model per step, unknown keys refused, and their digest."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from wsiseg.formats import ExportFormat
from wsiseg.settings import load_config, parse_config

__all__ = [
    "ClusterConfig",
    "Config",
    "ContextConfig",
    "CrfConfig",
    "DistillConfig",
    "EvaluateConfig",
    "ExportConfig",
    "ExportFormat",
    "InferenceConfig",
    "LabelConfig",
    "MasksConfig",
    "OutlineConfig",
    "Pooling",
    "Precision",
    "PredictConfig",
    "Preset",
    "Prototypes",
    "SlideConfig",
    "StitchConfig",
    "TileConfig",
    "Tiling",
    "TissueConfig",
    "TrainConfig",
    "digest_of",
    "load_config",
    "parse_config",
]


Precision = Literal["float32", "bfloat16", "float16"]
"""What a model computes in; the lower two are for GPUs."""


class _Step(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True,
        defer_build=True,  # no command needs all of them
    )  # fmt: skip


class SlideConfig(_Step):
    """How slides are opened."""

    reader: Literal["auto", "direct", "openslide", "tiffslide"] = "auto"
    """What reads the slide; `auto` takes the first that opens it. `direct` decodes the JPEG or
    JPEG 2000 tiles of a TIFF itself: OpenSlide's pixels, several times as fast. It also takes the
    TIFFs that another does not open, or would misread (strips, planes, 16 bits, palettes)."""
    scaled_decode: bool = True
    """`direct` lets the JPEG decoder shrink by 2, 4 or 8 where so many pixels make one: 1.7 times
    as fast as the mean of decoded pixels, 50 dB from it, and as near to what was scanned."""
    damaged: Literal["fail", "blank"] = "fail"
    """What becomes of a slide of which a tile cannot be decoded: it fails, or the tile is taken for
    glass, counted and told. A slide none of whose tiles can be decoded fails either way."""
    mpp_override: float | None = Field(default=None, gt=0)
    """Level-0 µm/px to use instead of the metadata (both axes)."""
    white_level: int | None = Field(default=None, gt=0, le=65535)
    """The sample that is white in TIFFs of more than 8 bits (4095 of 12 bits in 16), over what the
    file says; null: SMaxSampleValue or OME's SignificantBits, without which they are refused."""


class TissueConfig(_Step):
    """Where tissue is looked for."""

    mpp: float = Field(default=8.0, gt=0)
    """µm/px of the tissue mask."""
    min_density: float = Field(default=0.02, gt=0)
    """Optical density (log10, green, against bare glass) from which a pixel counts as stained."""
    closing_um: float = Field(default=24.0, ge=0)
    """Gaps narrower than twice this (µm) are closed: fat cells between their membranes."""
    min_area_um2: float = Field(default=10_000.0, ge=0)
    """Pieces of tissue smaller than this (µm²) are dropped."""
    min_hole_um2: float = Field(default=10_000.0, ge=0)
    """Holes smaller than this (µm²) are filled."""
    min_fraction: float = Field(default=0.05, ge=0, le=1)
    """A tile is kept if at least this fraction of it is tissue."""


class Tiling(NamedTuple):
    """How a slide is cut, in numbers; as in `TileConfig`."""

    mpp: float
    tile: int
    stride: int
    block: int


_MPP, _TILE, _BLOCK = 0.5, 224, 1792


def _choose_block(unit: int) -> int:
    """A multiple of `unit`, by a power of two if 1792 is none: pyramids halve whole blocks."""
    if _BLOCK % unit == 0 or unit > 2 * _BLOCK:  # the grid says what is wrong with the latter
        return _BLOCK
    return unit << max(0, (_BLOCK // unit).bit_length() - 1)


class TileConfig(_Step):
    """The tile grid and the tile store."""

    mpp: float | None = Field(default=None, gt=0)
    """Working µm/px. If null, that of the patches that taught the checkpoint; 0.5 with prompts."""
    mpp_tolerance: float = Field(default=0.02, ge=0, lt=0.5)
    """A whole multiple of the slide's own µm/px within this share of `mpp` is used instead of it:
    sharper and faster."""
    tile: int | None = Field(default=None, ge=16)
    """Tile side in pixels at the working resolution. If null, that of the patches that taught the
    checkpoint; with prompts `predict.prompt_window`, or 224."""
    stride: int | None = Field(default=None, ge=1)
    """Distance between tile corners in pixels; smaller than `tile` overlaps. `tile` if null."""
    block: int | None = Field(default=None, ge=16)
    """Side in pixels of the unit of work and storage: a multiple of `tile` and of `stride`. If
    null, 1792 (eight tiles of 224) or the nearest below that is one."""
    codec: Literal["zstd", "lz4", "none"] = "lz4"
    """How a new store packs its pixels, always without loss: `lz4` is written and read several
    times as fast as `zstd`, which is some 15 to 25 % smaller. A store that is there keeps its own.
    """

    @property
    def tiling(self) -> Tiling:
        """The numbers, with wsiseg's own for what is null: what no checkpoint decides."""
        mpp = _MPP if self.mpp is None else self.mpp
        tile = self.tile or _TILE
        stride = self.stride or tile
        return Tiling(mpp, tile, stride, self.block or _choose_block(math.lcm(tile, stride)))


class PredictConfig(_Step):
    """The model over the tiles."""

    checkpoint: str = "tissue"
    """The path of a checkpoint, or a name of `wsiseg model list`: `tissue` (H&E: epithelium,
    stroma, immune cells, necrosis, muscle, fat, mucin, blood) or `tiny` (synthetic tissue only)."""
    prompts: str | None = None
    """A prompt file, such as `configs/prompts/breast.yaml`: classes named in words, which need no
    training. It takes the checkpoint's place."""
    encoder: str = "conch"
    """What compares tiles and `prompts`: `conch` or `open_clip`."""
    encoder_options: dict[str, Any] = {}
    """Where the weights of the checkpoint's encoder are, as `{weights: PATH}`, if not on the hub;
    with `prompts` whatever `encoder` takes: weights, tokenizer, image_size."""
    prompt_features: Literal["window", "patch"] = "window"
    """What is compared with `prompts`: each window as a whole, which is what the encoder was
    trained for, or each of its patches by itself (MaskCLIP): finer, and less sure."""
    prompt_window: int | None = Field(default=None, ge=16)
    """Side in pixels of the windows in which the encoder looks at a tile, resized to its image size
    if need be; its image size if null. `tile.tile` is one window, or more by whole strides."""
    prompt_stride: int | None = Field(default=None, ge=1)
    """Pixels between the windows of a tile that is larger than one; a cell is the mean of those
    over it. Side by side if null: `tile.stride` overlaps windows that are a tile each."""
    context: int | None = Field(default=None, ge=0)
    """Pixels around a tile that the model sees with it, so that its map goes on across the tile's
    border; null for what its encoder takes: 64 with `small`, none with others, which see each tile
    by itself, as with 0."""
    batch_size: int = Field(default=32, ge=1)
    """Tiles a forward pass; with `context`, some 16 neighbours are one."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    precision: Precision = "float32"
    """What the model computes in: `bfloat16` and `float16` are faster on a GPU."""
    tta: Literal[1, 6] = 1
    """Test-time augmentations: 1 (none) or the paper's 6."""


class CrfConfig(_Step):
    """The dense CRF's energy (Kraehenbuehl and Koltun 2011) and its back end."""

    backend: Literal["auto", "triton", "torch", "numba", "pydensecrf"] = "auto"
    """`auto`: triton on CUDA, numba on a CPU, else torch."""
    mode: Literal["exact", "fast"] = "fast"
    """Key sampling of the windowed back ends (`triton`, `torch`)."""
    iterations: int = Field(default=5, ge=0)
    """Mean-field iterations; not converged at 5, so the count matters."""
    smooth_sxy: float = Field(default=15.0, gt=0)
    """Smoothness kernel: standard deviation in pixels."""
    smooth_weight: float = Field(default=30.0, ge=0)
    """Smoothness kernel: Potts weight."""
    appearance_sxy: float = Field(default=10.0, gt=0)
    """Appearance kernel: spatial standard deviation in pixels."""
    appearance_srgb: float = Field(default=20.0, gt=0)
    """Appearance kernel: colour standard deviation in grey levels."""
    appearance_weight: float = Field(default=50.0, ge=0)
    """Appearance kernel: Potts weight."""
    scale: Literal[1, 2] = 1
    """`numba` only, for labels: of so many pixels each way one sends and hears messages; where a
    border runs, every pixel then reads the last messages at its own place and colour."""
    band: int = Field(default=0, ge=0)
    """`numba` only, for labels: pixels around the borders between the most probable classes that
    are refined; 0 refines all. Farther in there is nobody to disagree."""


class ContextConfig(_Step):
    """Which classes a tile may show, by its neighbours and its slide."""

    neighbours: float = Field(default=0.5, ge=0)
    """How much the mean of the tiles around (within 1.5 tile sides, nearer ones more) counts beside
    a tile's own probability of a class; 0 looks at each tile by itself."""
    low: float = Field(default=0.15, gt=0, lt=1)
    """A class enters a tile where its averaged probability reaches this, if tiles that do so too
    join it to one that reaches `high`."""
    high: float = Field(default=0.3, gt=0, lt=1)
    """A class enters a tile where its averaged probability reaches this."""
    sharpness: float = Field(default=1.5, ge=0)
    """Classes that enter weigh by this power of the averaged probability: 0 weighs all alike, 1 as
    a prior would."""
    slide_prior: float = Field(default=0.0, ge=0, le=1)
    """How far probabilities are shifted to the share of the slide's tiles that each class is
    estimated to show in (expectation-maximisation), from the half that is taken for the share in
    training; 0 not at all."""

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low = {self.low:g} is above high = {self.high:g}; lower it")
        return self


class StitchConfig(_Step):
    """From CAMs to label and confidence rasters."""

    gate: Literal["predicted", "context", "none"] = "predicted"
    """Classes let through: those that the tile's own logits predict; `context`: those that are
    likely by its neighbours and its slide too; `none` or `all`: every class."""
    context: ContextConfig = ContextConfig()
    """How neighbours and slide decide, with `gate: context`."""
    gate_threshold: float = Field(default=0.25, gt=0, lt=1)
    """With `gate: predicted`, a class is predicted where the sigmoid of its logit reaches this. A
    tile's logit is the mean of its CAM, so it is low for a class that only touches the tile: hence
    less than one half."""
    refine: bool = True
    """Whether the dense CRF refines the probabilities."""
    margin: int = Field(default=64, ge=0)
    """Pixels read around a block for the CRF."""
    crf: CrfConfig = CrfConfig(scale=2, band=24)
    """The CRF's settings; what is not named stays at `scale` 2 and `band` 24. Of a biopsy's pixels
    0.5 % then get another label than at 1 and 0, which takes some five times as long."""
    smooth_um: float = Field(default=3.0, ge=0)
    """Every pixel takes the most frequent label within this distance (µm): no specks that would
    choke a viewer; 0 leaves the CRF's labels as they are."""
    min_confidence: float = Field(default=0.0, ge=0, lt=1)
    """Tissue of which no class is at least so probable is labelled `Unsure`; 0 labels all. The
    confidence of a label is the model's, before the CRF: calibrated where its checkpoint is."""
    probabilities: bool = False
    """Whether every class's probability is kept as a raster too, as the model has it: before the
    CRF and `smooth_um`."""

    @field_validator("crf", mode="before")
    @classmethod
    def _keep_speed(cls, value: Any) -> Any:
        return {"scale": 2, "band": 24, **value} if isinstance(value, dict) else value

    @field_validator("gate", mode="before")
    @classmethod
    def _rename_gate(cls, value: Any) -> Any:
        return "none" if value == "all" else value


class OutlineConfig(_Step):
    """From labels to regions."""

    min_area_um2: float = Field(default=0.0, ge=0)
    """Regions smaller than this (µm²) take the class that they border most, without a gap; 0 keeps
    all, so that polygon areas equal the raster's. The raster itself stays as it is."""
    min_hole_um2: float = Field(default=0.0, ge=0)
    """Holes of background smaller than this (µm²) are filled with the class around them."""
    simplify_um: float = Field(default=0.0, ge=0)
    """Coarseness of the borders (µm): the square of it is the largest triangle that is cut off.
    Neighbours keep one common border; 0 keeps every pixel edge."""
    smooth: int = Field(default=0, ge=0, le=3)
    """How often the corners of the borders are rounded off, after simplifying; neighbours keep one
    common border. Each time doubles the vertices."""


class ExportConfig(_Step):
    """What is written, and how."""

    formats: tuple[ExportFormat, ...] = ("geojson",)
    """What `wsiseg annotate` writes of each slide, each in a folder of its own: `geojson` for
    QuPath; `ome-tiff`: label and confidence pyramids; `parquet`: the regions as a GeoParquet table;
    `png`: one picture, coloured by class; `masks`: a mask a class; `coco`: tiles with masks."""

    origin: Literal["qupath", "level0"] = "qupath"
    """`qupath` takes off the slide's bounds corner, as QuPath shows it; `level0` does not."""
    gzip: bool = False
    """Write `.geojson.gz`."""
    tiff_compression: Literal["deflate", "zstd"] = "deflate"
    """Of the OME-TIFF: every reader knows `deflate`; `zstd` is faster, but older ones refuse it."""
    mask_mpp: float | None = Field(default=None, gt=0)
    """µm/px of `png` and `masks`; the raster's own if null, for `png` doubled until it fits."""
    coco_tile: int | None = Field(default=None, ge=16)
    """Side of COCO's tiles in raster pixels; the grid's own tile if null."""
    coco_images: Literal["png", "jpeg"] = "png"
    """COCO's pictures: `png` keeps the store's pixels, `jpeg` takes a sixth of the room."""
    max_objects: int = Field(default=5_000, ge=0)
    """More regions are written as detections, which QuPath takes by the hundred thousand, instead
    of annotations."""
    max_vertices: int = Field(default=4_000_000, ge=1)
    """More are written in parts, each a place of the slide, which the import script loads where one
    looks: QuPath takes about half a minute and 2 GB for so many."""
    max_mb: float = Field(default=100.0, gt=0)
    """A larger file (MB) is packed as `.geojson.gz`; if that is still larger, written in parts."""


Pooling = Literal["mean", "smooth"]
"""What a patch's class logit is of its CAM: the `mean`, or the logarithm of the mean exponential,
a `smooth` maximum, so that a class that fills a part of the patch counts by that part."""

Preset = Literal["reference", "paper", "wsiseg"]
"""Whose reading of ConStruct is computed: the released code's, the paper's text, or ours."""


Prototypes = Literal["auto", "text", "images", "both", "random"]
"""What the prototypes of classes begin as."""


def _check_names(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not name.strip():
            raise ValueError(f"{name!r} is no name of a class")
        if names.count(name) > 1:
            raise ValueError(f"{name!r} is there {names.count(name)} times")
    return names


_Level = Annotated[int, Field(ge=0, le=255)]


class LabelConfig(_Step):
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
    map: dict[str, str] = {}
    """Classes of the label files by what they are to be called; empty leaves one out. On the
    command line: `--map "Tumour=Tumor,Tumor: invasive=Tumor"`."""
    tissue_fraction: float = Field(default=0.05, ge=0, le=1)
    """A tile of a store can be used if at least this fraction of it is tissue."""


class TrainConfig(_Step):
    """Training on patch labels."""

    preset: Preset = "wsiseg"
    """`reference`: what the released code computes, its accidents included. `paper`: what the text
    says. `wsiseg`: neither's dead weight, contrast that reaches the prototypes, and a teacher that
    reaches the CAM."""
    encoder: str = "tiny"
    """The frozen student: `tiny`, `small`, `conch`, `open_clip`, `timm` (any vision transformer),
    or one that an installed package adds as an entry point of the group `wsiseg.encoders`."""
    encoder_options: dict[str, Any] = {}
    """What the student takes: `model`, `weights`, `image_size`, ... ; an unknown one lists the
    known."""
    teacher: str = ""
    """The frozen teacher: `segformer` or `tiny`; empty for the one that goes with the encoder."""
    teacher_options: dict[str, Any] = {}
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


class InferenceConfig(_Step):
    """The paper's inference on patches: augmentations, gate, CRF patch by patch."""

    batch_size: int = Field(default=10, ge=1)
    """Patches a forward pass."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    encoder_options: dict[str, Any] = {}
    """What the checkpoint's encoder takes beside what the checkpoint says: `weights`, if they are
    not on the hub."""
    tta: Literal[1, 6] = 6
    """Test-time augmentations: 1 (none) or the paper's 6."""
    gate_threshold: float = Field(default=0.25, gt=0, lt=1)
    """Where nobody says which classes show, those whose logit's sigmoid reaches this do."""
    crf: CrfConfig = CrfConfig(backend="numba")
    """The CRF's settings; `pydensecrf` is what the released code calls, and gives its labels to the
    last pixel; `numba`, which is always there, gave other labels for up to 0.46 % of a patch's
    pixels. A `backend` that is not named stays `numba`."""

    @field_validator("crf", mode="before")
    @classmethod
    def _keep_backend(cls, value: Any) -> Any:
        return {"backend": "numba", **value} if isinstance(value, dict) else value


class EvaluateConfig(InferenceConfig):
    """Scoring a model on patches whose masks are known."""

    protocols: tuple[Literal["oracle", "deploy", "slide"], ...] = Field(
        default=("oracle", "deploy"), min_length=1
    )
    """`oracle`: classes let through by the true labels, as in the paper's tables; `deploy`: by
    those that the model predicts, as on a slide that nobody has labelled; `slide`: by what the
    patches around show as well, for patches of which it is known where on a slide they lie."""
    context: ContextConfig = ContextConfig()
    """How patches around decide, in `slide`."""
    pitch: float | None = Field(default=None, gt=0)
    """In `slide`: the side of a patch in the units of the patches' places. If null, the smallest
    distance between two patches of a slide."""
    resamples: int = Field(default=1000, ge=1)
    """Bootstrap resamples, for the confidence intervals: of cases where the patches' names tell
    them apart, else of patches."""
    seed: int = 0
    """Seed of the bootstrap."""


class MasksConfig(InferenceConfig):
    """Pseudo-masks of patches."""

    gate: Literal["auto", "labels", "predicted", "none"] = "auto"
    """Which classes a patch may show: those of its `labels`, those that the model predicts, or any
    (`none`); `auto` takes the labels where the patches have them."""
    refine: bool = True
    """Whether the dense CRF follows the edges in the image."""
    confidence: bool = False
    """Whether a second PNG holds each pixel's confidence."""


class DistillConfig(_Step):
    """The second stage: a compact network that learns from the labels of a first one."""

    network: Literal["small", "segformer-b0", "segformer-b1"] = "small"
    """`small`: a U on the encoder `small`, for CPUs; or SegFormer, which wants `weights`."""
    network_options: dict[str, Any] = {}
    """`weights`: a file that its body begins as: MiT-B0 or B1 for SegFormer, which else begins at
    random; for `small` another than the encoder that ships."""
    background: Literal["learn", "ignore"] = "learn"
    """What is learned where the first stage says background: that nothing is there, or nothing."""
    least_sure: float = Field(default=0.2, ge=0, lt=1)
    """This share of the pixels of each class, those that the first stage is least sure of, teach
    nothing. Needs its confidence."""
    min_confidence: float = Field(default=0.0, ge=0, lt=1)
    """Nor do pixels of which it is less sure than this."""
    window: int | None = Field(default=None, ge=32)
    """Side in pixels of what is learned from at a time; if null, that of the patches, or of slides
    two tiles, so that what lies around a tile is known."""
    stains: bool = True
    """Whether windows are shown in other dyes, light, focus and coding."""
    scales: tuple[float, float] = (0.7, 1.4)
    """Least and most by which a window is enlarged; 1 and 1: as it is."""
    mpp: float | None = Field(default=None, gt=0)
    """µm/px of the patches, where their masks do not say; slides know their own."""
    epochs: int = Field(default=12, ge=1)
    """Passes over the windows."""
    batch_size: int = Field(default=8, ge=1)
    """Windows a step."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """AdamW's largest: it rises over a tenth of the steps, and falls to nothing."""
    body_rate: float = Field(default=0.2, ge=0)
    """Of a body that began as weights, as a share of `learning_rate`; 0 leaves it as it is."""
    weight_decay: float = Field(default=0.01, ge=0)
    """AdamW's decoupled weight decay, of all but biases and norms."""
    balance: bool = True
    """Whether pixels of rare classes count more, as in `TrainConfig`."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`; only a CPU repeats bit by bit."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of products; weights stay float32."""
    seed: int = 42
    """Seed of initialisation, shuffling and augmentation."""

    @field_validator("scales")
    @classmethod
    def _check_scales(cls, ends: tuple[float, float]) -> tuple[float, float]:
        if not 0.25 <= ends[0] <= ends[1] <= 4:
            raise ValueError(f"{ends[0]:g} to {ends[1]:g}: least first, both from 0.25 to 4")
        return ends


class ClusterConfig(_Step):
    """Machines that dask gets from a job queue: what `--executor FILE.yaml` reads."""

    executor: Literal["slurm"] = "slurm"
    """Who is asked for machines."""
    minimum_jobs: int = Field(default=0, ge=0)
    """Jobs that are kept even while there is little to do."""
    maximum_jobs: int = Field(default=10, ge=1)
    """Most jobs at a time; as many are asked for as the blocks in flight keep busy."""
    wait_s: float = Field(default=3600.0, gt=0)
    """Seconds to wait for the first worker before the run gives up."""
    job: dict[str, Any] = {"cores": 8, "processes": 8, "memory": "32GB", "walltime": "08:00:00"}
    """One job, in the words of `dask_jobqueue.SLURMCluster`: queue, account, cores, processes
    (workers), memory, walltime, job_extra_directives, worker_extra_args, ..."""


class Config(_Step):
    """Everything that `wsiseg annotate` needs."""

    slide: SlideConfig = SlideConfig()
    """How slides are opened."""
    tissue: TissueConfig = TissueConfig()
    """Where tissue is looked for."""
    tile: TileConfig = TileConfig()
    """The tile grid and store."""
    predict: PredictConfig = PredictConfig()
    """The model over the tiles."""
    stitch: StitchConfig = StitchConfig()
    """CAMs to label rasters."""
    outline: OutlineConfig = OutlineConfig()
    """Labels to regions."""
    export: ExportConfig = ExportConfig()
    """What is written, and how."""


def digest_of(*parts: Any) -> str:
    """Hex sha256 of `parts` (models, strings, numbers, plain containers), order kept."""
    plain = [
        part.model_dump(mode="json") if isinstance(part, BaseModel) else part for part in parts
    ]
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
