"""Settings of the second stage."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from wsiseg.config.model import Settings

__all__ = ["DistillConfig"]


class DistillConfig(Settings):
    """The second stage: a compact network trained on the labels of a first stage."""

    network: Literal["ensemble", "lite", "small", "segformer-b0", "segformer-b1"] = "ensemble"
    """`ensemble`, `lite`, `small`: a U-Net on the encoder of that name, for CPUs; or SegFormer,
    which should start from `weights`."""
    network_options: dict[str, Any] = Field(default={})
    """`weights`: a file from which the network's body starts: MiT-B0 or B1 for SegFormer, which is
    otherwise random; for the others, an encoder other than the one that ships (for `ensemble` the
    folder of its two files)."""
    background: Literal["learn", "ignore"] = "learn"
    """Whether the first stage's background is learned as a class, or ignored."""
    least_sure: float = Field(default=0.2, ge=0, lt=1)
    """This share of the pixels of each class, those with the lowest confidence, is not used. Needs
    the first stage's confidence."""
    min_confidence: float = Field(default=0.0, ge=0, lt=1)
    """Pixels with a lower confidence than this are not used."""
    window: int | None = Field(default=None, ge=32)
    """Side in pixels of the training windows. If null, that of the patches; for slides two tiles,
    so that the surroundings of a tile are included."""
    stains: bool = True
    """Whether to augment stain, light, focus and JPEG artefacts."""
    scales: tuple[float, float] = (0.7, 1.4)
    """Smallest and largest factor by which a window is scaled; 1 and 1 keep its size."""
    mosaics: float = Field(default=0.5, ge=0, le=1)
    """This share of the windows is put together of parts of four, so that the network sees tissues
    beside each other that seldom are, and learns where they end."""
    mpp: float | None = Field(default=None, gt=0)
    """µm/px of the patches, if their masks do not give it; slides have their own."""
    epochs: int = Field(default=12, ge=1)
    """Passes over the windows."""
    batch_size: int = Field(default=8, ge=1)
    """Windows per step."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """AdamW's highest learning rate: it rises over a tenth of the steps, then falls to 0."""
    body_rate: float | None = Field(default=None, ge=0)
    """Learning rate of a body that started from weights, as a share of `learning_rate`; 0 freezes
    it. If null, the network's own: 0.2 for SegFormer, 0 for the others, whose bodies know tissue
    of more slides than a first stage labels."""
    weight_decay: float = Field(default=0.01, ge=0)
    """AdamW's decoupled weight decay, except for biases and norms."""
    balance: bool = True
    """Whether pixels of rare classes count more, as in `TrainConfig`."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`; only CPU runs are repeatable bit by bit."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of products; weights stay float32."""
    seed: int = Field(default=42, ge=0, lt=2**63)
    """Seed of initialisation, shuffling and augmentation."""

    @field_validator("scales")
    @classmethod
    def _check_scales(cls, ends: tuple[float, float]) -> tuple[float, float]:
        if not 0.25 <= ends[0] <= ends[1] <= 4:
            raise ValueError(f"{ends[0]:g} to {ends[1]:g}: smallest first, both from 0.25 to 4")
        return ends
