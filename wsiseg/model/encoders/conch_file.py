"""CONCH's official file, read strictly, and the modules that its tensors fill by their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from open_clip.transformer import AttentionalPooler, TextTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from wsiseg.model.encoders.vit import tap_blocks
from wsiseg.model.weights import match_tensors, read_tensors

__all__ = [
    "EMBEDDING",
    "PATCH",
    "WIDTH",
    "Visual",
    "load_caption",
    "load_text",
    "load_visual",
    "read_conch",
    "resize_position",
]

PATCH = 16
"""Pixels per token of the vision tower."""
WIDTH = 768
"""Width of its tokens."""
EMBEDDING = 512
"""Length of image and text embeddings."""

_M = TypeVar("_M", bound=nn.Module)  # PEP 695 syntax needs Python 3.12

_TRAINED_AT = 448
_DEPTH = 12
_DECODER = "text_decoder."  # in the authors' own copies, not in the public file
_CAPTION = ("attn_pool_caption", "ln_caption")


class Visual(nn.Module):
    """CONCH's vision tower: a plain ViT and the contrastive pooler over all of its tokens."""

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self.trunk = VisionTransformer(
            img_size=image_size,
            patch_size=PATCH,
            embed_dim=WIDTH,
            depth=_DEPTH,
            num_heads=12,
            num_classes=0,
        )
        self.attn_pool_contrast = AttentionalPooler(
            EMBEDDING, WIDTH, n_head=8, n_queries=1, norm_layer=nn.LayerNorm
        )
        self.ln_contrast = nn.LayerNorm(EMBEDDING)
        self.proj_contrast = nn.Parameter(torch.empty(EMBEDDING, EMBEDDING))

    def tap(self, images: Tensor) -> list[Tensor]:
        """Raw float32 outputs ``(B, 768, h, w)`` of the tapped blocks, without class token."""
        taps = self.trunk.forward_intermediates(
            images.to(self.proj_contrast.dtype),
            indices=tap_blocks(_DEPTH),
            norm=False,
            intermediates_only=True,
        )
        assert isinstance(taps, list)
        return [tap.float() for tap in taps]

    def forward(self, images: Tensor) -> Tensor:
        """``(B, 512)`` before the projection; the pooler sees the class token too."""
        tokens = self.trunk.forward_features(images.to(self.proj_contrast.dtype))
        pooled: Tensor = self.attn_pool_contrast(tokens)
        normed: Tensor = self.ln_contrast(pooled[:, 0])
        return normed


class _Conch(nn.Module):
    """Every tensor of the official file by its name, for its shape."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = Visual(_TRAINED_AT)
        self.visual.attn_pool_caption, self.visual.ln_caption = _make_caption()
        self.text = _make_text()
        self.logit_scale = nn.Parameter(torch.empty(()))


def _make_caption() -> tuple[AttentionalPooler, nn.LayerNorm]:
    return AttentionalPooler(WIDTH, WIDTH, n_head=8, n_queries=256), nn.LayerNorm(WIDTH)


def _make_text() -> TextTransformer:
    # 127: open_clip adds the place of the class token itself. Its default, uncorrected mask of
    # that token is the one that CONCH was trained with.
    return TextTransformer(
        context_length=127,
        vocab_size=32007,
        width=WIDTH,
        heads=12,
        layers=12,
        output_dim=EMBEDDING,
        embed_cls=True,
        pad_id=0,
        norm_layer=nn.LayerNorm,
    )


def read_conch(path: Path) -> dict[str, Tensor]:
    """Read all tensors of the official file but the decoder's, checked by name and shape.

    Raises
    ------
    CheckpointError
        If the file is damaged, or a tensor is missing, left over or of another shape.
    """
    tensors = read_tensors(path)
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(_DECODER)}
    expected = _on_meta(_Conch).state_dict()
    match_tensors(tensors, {name: t.shape for name, t in expected.items()}, path, "CONCH ViT-B/16")
    return tensors


def load_visual(tensors: Mapping[str, Tensor], image_size: int) -> Visual:
    """Load the vision tower for square images of `image_size` pixels, frozen."""
    visual = _on_meta(partial(Visual, image_size))
    state = {
        name: tensor
        for name, tensor in _below("visual.", tensors).items()
        if not name.startswith(_CAPTION)
    }
    position = "trunk.pos_embed"
    state[position] = resize_position(state[position], image_size // PATCH)
    visual.load_state_dict(state, assign=True)
    return visual.requires_grad_(False).eval()


def load_caption(tensors: Mapping[str, Tensor]) -> nn.Sequential:
    """Load the caption pooler and its norm: ``(B, 1 + N, 768)`` to ``(B, 256, 768)``, frozen."""
    caption = _on_meta(lambda: nn.Sequential(*_make_caption()))
    for module, name in zip(caption, _CAPTION, strict=True):
        module.load_state_dict(_below(f"visual.{name}.", tensors), assign=True)
    return caption.requires_grad_(False).eval()


def load_text(tensors: Mapping[str, Tensor]) -> TextTransformer:
    """Load the text tower: token ids ``(C, 127)`` to embeddings ``(C, 512)``, frozen."""
    text = _on_meta(_make_text)
    text.load_state_dict(_below("text.", tensors), assign=True)
    text.attn_mask = text.build_causal_mask()  # not in the file, so still without values
    return text.requires_grad_(False).eval()


def _on_meta(make: Callable[[], _M]) -> _M:
    """Build a module without memory, so that it is not filled with random numbers first."""
    with torch.device("meta"):
        return make()


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy the tensors under a prefix, as float32, out of the mapped file."""
    return {
        name.removeprefix(prefix): tensor.to(torch.float32, copy=True)
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def resize_position(embedding: Tensor, side: int) -> Tensor:
    """Interpolate ``(1, 1 + n * n, C)`` to ``(1, 1 + side * side, C)``; the class token stays.

    Bilinear without antialiasing, as the official loader does; timm's own way (bicubic,
    antialiased) is not the same model.
    """
    token, grid = embedding[:, :1], embedding[:, 1:]
    old_side = round(grid.shape[1] ** 0.5)
    if old_side == side:
        return embedding
    maps = grid.mT.reshape(1, -1, old_side, old_side)
    maps = F.interpolate(maps, (side, side), mode="bilinear", align_corners=False)
    return torch.cat([token, maps.flatten(2).mT], 1).contiguous()
