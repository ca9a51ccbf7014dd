"""From CAMs to labels: which classes are let through, and the dense CRF."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from wsiseg.config.model import Settings

__all__ = ["ContextConfig", "CrfConfig", "StitchConfig"]


class CrfConfig(Settings):
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
    """`numba` only: of so many pixels each way one sends and hears messages; where a border runs,
    every pixel then reads the last messages at its own place and colour."""
    band: int = Field(default=0, ge=0)
    """`numba` only: pixels around the borders between the most probable classes that are refined;
    0 refines all. Farther in there is nobody to disagree."""


class ContextConfig(Settings):
    """Which classes a tile may show, by its neighbours and its slide."""

    neighbours: float = Field(default=0.0, ge=0)
    """How much the mean of the tiles around (within 1.5 tile sides, nearer ones more) counts beside
    a tile's own probability of a class; 0 looks at each tile by itself, which measured best in
    maps, where weights fade from tile to tile anyway."""
    low: float = Field(default=0.05, gt=0, lt=1)
    """A class enters a tile where its averaged probability reaches this, if tiles that do so too
    join it to one that reaches `high`."""
    high: float = Field(default=0.2, gt=0, lt=1)
    """A class enters a tile where its averaged probability reaches this."""
    sharpness: float = Field(default=2.0, ge=0)
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


class StitchConfig(Settings):
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
    crf: CrfConfig = CrfConfig(scale=2, band=32)
    """The CRF's settings; what is not named stays at `scale` 2 and `band` 32. Of a biopsy's pixels
    0.5 % then get another label than at 1 and 0, which takes more than twice as long."""
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
        return {"scale": 2, "band": 32, **value} if isinstance(value, dict) else value

    @field_validator("gate", mode="before")
    @classmethod
    def _rename_gate(cls, value: Any) -> Any:
        return "none" if value == "all" else value
