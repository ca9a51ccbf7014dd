"""The model over the tiles of a slide."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from wsiseg.config.model import Precision, Settings

__all__ = ["PredictConfig"]


class PredictConfig(Settings):
    """The model over the tiles."""

    checkpoint: str = "tissue"
    """The path of a checkpoint, or a name of `wsiseg model list`: `tissue` (H&E: epithelium,
    stroma, immune cells, necrosis, muscle, fat, mucin, blood) or `tiny` (synthetic tissue only)."""
    prompts: str | None = None
    """A prompt file, such as `configs/prompts/breast.yaml`: classes named in words, which need no
    training. It takes the checkpoint's place."""
    encoder: str = "conch"
    """What compares tiles and `prompts`: `conch` or `open_clip`."""
    encoder_options: dict[str, Any] = Field(default={})
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
    """`auto`, `cpu`, `cuda` or `cuda:N`; of several, as ``cuda:0,cuda:1``, each block takes the one
    that has the fewest."""
    precision: Precision = "float32"
    """What the model computes in: `bfloat16` and `float16` are faster on a GPU."""
    tta: Literal[1, 6] = 1
    """Test-time augmentations: 1 (none) or the paper's 6."""
