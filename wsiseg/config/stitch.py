"""From CAMs to labels: gating, and the dense CRF."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from wsiseg.config.model import Settings

__all__ = ["ContextConfig", "CrfConfig", "StitchConfig"]


class CrfConfig(Settings):
    """The dense CRF's energy (Kraehenbuehl and Koltun 2011) and its back end."""

    backend: Literal["auto", "triton", "torch", "numba", "pydensecrf"] = "auto"
    """`auto`: triton on CUDA, numba on a CPU, otherwise torch."""
    mode: Literal["exact", "fast"] = "fast"
    """Key sampling of the windowed back ends (`triton`, `torch`)."""
    iterations: int = Field(default=5, ge=0)
    """Mean-field iterations; the result depends on their number, as 5 do not converge."""
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
    """`numba` only, for labels: with 2, only every second pixel in x and y sends and receives
    messages. Along borders, every pixel then reads the last messages at its own position and
    colour."""
    band: int = Field(default=0, ge=0)
    """`numba` only, for labels: distance in pixels from borders between the most probable classes
    within which pixels are refined; 0 refines all. Beyond it, all neighbours agree."""


class ContextConfig(Settings):
    """Which classes a tile may show, given its neighbours and its slide."""

    neighbours: float = Field(default=0.0, ge=0)
    """Weight of the mean over surrounding tiles (within 1.5 tile sides, nearer ones more) relative
    to a tile's own probability of a class. 0 uses each tile on its own, which was best for maps,
    where weights fade from tile to tile anyway."""
    low: float = Field(default=0.05, gt=0, lt=1)
    """A class is allowed in a tile if its averaged probability reaches this, and tiles for which
    this also holds connect it to one that reaches `high`."""
    high: float = Field(default=0.2, gt=0, lt=1)
    """A class is allowed in a tile if its averaged probability reaches this."""
    sharpness: float = Field(default=2.0, ge=0)
    """The weight of an allowed class is this power of its averaged probability: with 0 all weigh
    the same, 1 acts as a prior."""
    slide_prior: float = Field(default=0.0, ge=0, le=1)
    """How far probabilities are shifted towards the estimated share of the slide's tiles that show
    each class (expectation-maximisation), assuming a share of one half in training; 0 for not at
    all."""

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low = {self.low:g} is above high = {self.high:g}; lower it")
        return self


class StitchConfig(Settings):
    """From CAMs to label and confidence rasters."""

    gate: Literal["predicted", "context", "none"] = "predicted"
    """Which classes a tile may show: those that its own logits predict; `context`: those that are
    likely given its neighbours and its slide, weighted by how likely they are; `none` or `all`:
    every class."""
    context: ContextConfig = ContextConfig()
    """How neighbours and slide count with `gate: context`. No map is started before the model has
    seen the whole slide."""
    gate_threshold: float = Field(default=0.25, gt=0, lt=1)
    """With `gate: predicted`, a class is predicted if the sigmoid of its logit reaches this. A
    tile's logit is the mean of its CAM, so it is low for a class that only touches the tile: hence
    less than one half."""
    refine: bool = True
    """Whether the dense CRF refines the probabilities."""
    margin: int = Field(default=64, ge=0)
    """Pixels read around a block for the CRF."""
    crf: CrfConfig = CrfConfig(scale=2, band=24)
    """The CRF's settings; without `scale` and `band`, 2 and 24 are used. Compared with 1 and 0, 0.5
    % of a biopsy's pixels get another label, in about a third of the time."""
    smooth_um: float = Field(default=3.0, ge=0)
    """Every pixel takes the most frequent label within this distance (µm), which removes specks
    that would slow down a viewer; 0 keeps the CRF's labels."""
    min_confidence: float = Field(default=0.0, ge=0, lt=1)
    """Tissue where no class is at least this probable is labelled `Unsure`; 0 labels everything.
    The confidence of a label is the model's, before the CRF, and calibrated if the checkpoint is.
    CRF and `smooth_um` then move the borders of `Unsure` like any other's."""
    probabilities: bool = False
    """Whether to store every class's probability as a raster too; it is the model's, before the CRF
    and `smooth_um`."""

    @field_validator("crf", mode="before")
    @classmethod
    def _keep_speed(cls, value: Any) -> Any:
        return {"scale": 2, "band": 24, **value} if isinstance(value, dict) else value

    @field_validator("gate", mode="before")
    @classmethod
    def _rename_gate(cls, value: Any) -> Any:
        return "none" if value == "all" else value
