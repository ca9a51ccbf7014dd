"""How the model is applied to the tiles of a slide."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from wsiseg.config.model import Precision, Settings

__all__ = ["PredictConfig"]


class PredictConfig(Settings):
    """How the model is applied to the tiles."""

    checkpoint: str = "tissue"
    """Path of a checkpoint, or a name from `wsiseg model list`: `tissue` (H&E: epithelium, stroma,
    immune cells, necrosis, muscle, fat, mucin, blood) or `tiny` (synthetic tissue only)."""
    prompts: str | None = None
    """A prompt file, such as `configs/prompts/breast.yaml`: classes described in words, which need
    no training. Replaces the checkpoint."""
    encoder: str = "conch"
    """The encoder that compares tiles with `prompts`: `conch` or `open_clip`."""
    encoder_options: dict[str, Any] = Field(default={})
    """Location of the weights of the checkpoint's encoder, as `{weights: PATH}`, if they are not on
    the hub; with `prompts`, the options of `encoder`: weights, tokenizer, image_size."""
    prompt_features: Literal["window", "patch"] = "window"
    """What is compared with `prompts`: each window as a whole, for which the encoder was trained,
    or each of its patches (MaskCLIP), which is finer but less reliable."""
    prompt_window: int | None = Field(default=None, ge=16)
    """Side in pixels of the windows of a tile that the encoder sees, resized to its image size if
    necessary; its image size if null. `tile.tile` must be one window, or larger by whole strides.
    """
    prompt_stride: int | None = Field(default=None, ge=1)
    """Distance in pixels between the windows of a tile with several; a cell is the mean of the
    windows over it. Side by side if null; with one window per tile, `tile.stride` makes them
    overlap."""
    context: int | None = Field(default=None, ge=0)
    """Pixels around a tile that the model also sees, so that maps continue across the borders of
    tiles. If null, 64 with the encoders `ensemble`, `lite` and `small`, and 0 with others, which
    see each tile on its own."""
    batch_size: int = Field(default=32, ge=1)
    """Tiles per forward pass; with `context`, some 16 neighbouring tiles count as one."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`; of several, as ``cuda:0,cuda:1``, each block takes the
    least busy one."""
    precision: Precision = "float32"
    """Number format of the model's computations: `bfloat16` and `float16` are faster on a GPU."""
    tta: Literal[1, 6] = 1
    """Test-time augmentations: 1 (none) or the paper's 6."""
