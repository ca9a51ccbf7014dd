"""The second stage."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from wsiseg.config.model import Settings

__all__ = ["DistillConfig"]


class DistillConfig(Settings):
    """The second stage: a compact network that learns from the labels of a first one."""

    network: Literal["small", "segformer-b0", "segformer-b1"] = "small"
    """`small`: a U on the encoder `small`, for CPUs; or SegFormer, which wants `weights`."""
    network_options: dict[str, Any] = Field(default={})
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
