"""Inference on patches: scores, and pseudo-masks."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from wsiseg.config.model import Settings
from wsiseg.config.stitch import ContextConfig, CrfConfig

__all__ = ["EvaluateConfig", "InferenceConfig", "MasksConfig"]


class InferenceConfig(Settings):
    """The paper's inference on patches: augmentations, gate, CRF patch by patch."""

    batch_size: int = Field(default=10, ge=1)
    """Patches a forward pass."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    encoder_options: dict[str, Any] = Field(default={})
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


_PATCH_CONTEXT = {"neighbours": 0.5, "low": 0.1, "high": 0.2, "sharpness": 0.5}


class EvaluateConfig(InferenceConfig):
    """Scoring a model on patches whose masks are known."""

    protocols: tuple[Literal["oracle", "deploy", "slide"], ...] = Field(
        default=("oracle", "deploy"), min_length=1
    )
    """`oracle`: classes let through by the true labels, as in the paper's tables; `deploy`: by
    those that the model predicts, as on a slide that nobody has labelled; `slide`: weighed by how
    likely they are with the patches around, where it is known where on a slide patches lie."""
    context: ContextConfig = ContextConfig(**_PATCH_CONTEXT)
    """How patches around decide, in `slide`; what is not named stays at `neighbours` 0.5, `low`
    0.1, `high` 0.2 and `sharpness` 0.5: here each map is scaled to its own range."""
    pitch: float | None = Field(default=None, gt=0)
    """In `slide`: the side of a patch in the units of the patches' places. If null, the smallest
    distance between two patches of a slide."""
    resamples: int = Field(default=1000, ge=1)
    """Bootstrap resamples, for the confidence intervals: of cases where the patches' names tell
    them apart, else of patches."""
    seed: int = 0
    """Seed of the bootstrap."""

    @field_validator("context", mode="before")
    @classmethod
    def _keep_context(cls, value: Any) -> Any:
        return {**_PATCH_CONTEXT, **value} if isinstance(value, dict) else value


class MasksConfig(InferenceConfig):
    """Pseudo-masks of patches."""

    gate: Literal["auto", "labels", "predicted", "none"] = "auto"
    """Which classes a patch may show: those of its `labels`, those that the model predicts, or any
    (`none`); `auto` takes the labels where the patches have them."""
    refine: bool = True
    """Whether the dense CRF follows the edges in the image."""
    confidence: bool = False
    """Whether a second PNG holds each pixel's confidence."""
