"""Inference on patches: evaluation and pseudo-masks."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from wsiseg.config.model import Settings
from wsiseg.config.stitch import ContextConfig, CrfConfig

__all__ = ["EvaluateConfig", "InferenceConfig", "MasksConfig"]


class InferenceConfig(Settings):
    """The paper's inference on patches: augmentations, gate, and a CRF per patch."""

    batch_size: int = Field(default=10, ge=1)
    """Patches per forward pass."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    encoder_options: dict[str, Any] = Field(default={})
    """Further options of the checkpoint's encoder: `weights`, if they are not on the hub."""
    tta: Literal[1, 6] = 6
    """Test-time augmentations: 1 (none) or the paper's 6."""
    gate_threshold: float = Field(default=0.25, gt=0, lt=1)
    """Without labels, a class is predicted if the sigmoid of its logit reaches this."""
    crf: CrfConfig = CrfConfig(backend="numba")
    """The CRF's settings. `pydensecrf` is what the released code uses, and reproduces its labels
    exactly; `numba`, which is always available, gave other labels for up to 0.46 % of a patch's
    pixels. Without `backend`, `numba` is used."""

    @field_validator("crf", mode="before")
    @classmethod
    def _keep_backend(cls, value: Any) -> Any:
        return {"backend": "numba", **value} if isinstance(value, dict) else value


_PATCH_CONTEXT = {"neighbours": 0.5, "low": 0.1, "high": 0.2, "sharpness": 0.5}


class EvaluateConfig(InferenceConfig):
    """Evaluation on patches whose masks are known."""

    protocols: tuple[Literal["oracle", "deploy", "slide"], ...] = Field(
        default=("oracle", "deploy"), min_length=1
    )
    """`oracle`: gated by the true labels, as in the paper's tables; `deploy`: gated by the classes
    that the model predicts, as on an unlabelled slide; `slide`: weighted by how likely classes are
    given the surrounding patches, if the position of patches on their slide is known."""
    context: ContextConfig = ContextConfig(**_PATCH_CONTEXT)
    """How surrounding patches count in `slide`. Omitted values stay at `neighbours` 0.5, `low` 0.1,
    `high` 0.2 and `sharpness` 0.5, as here each map is scaled to its own range."""
    pitch: float | None = Field(default=None, gt=0)
    """In `slide`: side of a patch in the units of the patches' positions. If null, the smallest
    distance between two patches of a slide."""
    resamples: int = Field(default=1000, ge=1)
    """Bootstrap resamples for the confidence intervals: of cases if the patches' names give them,
    otherwise of patches."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of the bootstrap."""

    @field_validator("context", mode="before")
    @classmethod
    def _keep_context(cls, value: Any) -> Any:
        return {**_PATCH_CONTEXT, **value} if isinstance(value, dict) else value


class MasksConfig(InferenceConfig):
    """Pseudo-masks of patches."""

    gate: Literal["auto", "labels", "predicted", "none"] = "auto"
    """Classes that a patch may show: those of its `labels`, those `predicted` by the model, or any
    (`none`); `auto` uses labels if the patches have them."""
    refine: bool = True
    """Whether to refine masks with the dense CRF."""
    confidence: bool = False
    """Whether to write each pixel's confidence to a second PNG."""
