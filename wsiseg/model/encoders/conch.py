"""The `conch` student: CONCH ViT-B/16 (Lu et al. 2024), from its official file, loaded strictly.

The pyramid sees images normalised by the data set's colours, the region embeddings by CONCH's
own: so the released ConStruct code does (facts: construct.md section 2.7).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from open_clip.transformer import AttentionalPooler, TextTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from wsiseg.model.encoders import LEVELS
from wsiseg.model.encoders.conch_text import (
    find_tokenizer,
    look_up,
    read_texts,
    tokenize,
    write_texts,
)
from wsiseg.model.encoders.vit import (
    build_pyramid,
    check_images,
    normalize,
    pyramid_strides,
    tap_blocks,
)
from wsiseg.model.weights import HUB_PREFIX, find_weights, match_tensors, read_tensors

__all__ = ["BCSS_MEAN", "BCSS_STD", "CONCH_MEAN", "CONCH_STD", "ConchEncoder"]

HUB = f"{HUB_PREFIX}MahmoodLab/CONCH"
_FILES = ("pytorch_model.bin", "model.safetensors")

BCSS_MEAN = (0.66791496, 0.47791372, 0.70623304)
"""Mean colour of the paper's training patches, RGB in [0, 1]."""
BCSS_STD = (0.1736589, 0.22564577, 0.19820057)
"""Their spread."""
CONCH_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Mean colour of CONCH's own preprocessing."""
CONCH_STD = (0.26862954, 0.26130258, 0.27577711)
"""Its spread."""

_M = TypeVar("_M", bound=nn.Module)  # PEP 695 syntax needs Python 3.12

_TRAINED_AT = 448
_PATCH = 16
_DEPTH = 12
_WIDTH = 768
_EMBEDDING = 512
_DECODER = "text_decoder."  # in the authors' own copies, not in the public file
_CAPTION = ("attn_pool_caption", "ln_caption")


class ConchEncoder(nn.Module):
    """The student; keeps the promise `Encoder`. Always in evaluation mode.

    It may be turned to half precision (`.half()`, `.bfloat16()`); what it gives stays float32.

    Parameters
    ----------
    weights
        The official ``pytorch_model.bin``, its folder, or a hub repository (gated).
    revision
        Of the repository.
    image_size
        Side of the images, pixels. CONCH was trained at 448; the paper uses 224. Position
        embeddings are interpolated once, here, as the official loader does.
    tokenizer
        CONCH's tokenizer JSON, needed by `embed_text` only. None: the one inside an installed
        `conch` package, looked for when a text is embedded.
    texts
        A file of `save_texts`; with it `embed_text` needs neither tokenizer nor text tower.
    mean, std
        Colours by which the pyramid's images are normalised, RGB in [0, 1].

    Raises
    ------
    CheckpointError
        If the weights are not found, damaged, or not exactly CONCH's.
    ConfigError
        If `image_size` is not a multiple of 32.
    """

    level_channels = (_WIDTH, _WIDTH, _WIDTH, _WIDTH)
    embedding_dim = _EMBEDDING
    cam_level = 3
    guidance_levels: tuple[int, ...] = (2,)
    equivariant = False
    region_mean = CONCH_MEAN
    region_std = CONCH_STD

    def __init__(
        self,
        weights: str | Path = HUB,
        *,
        revision: str | None = None,
        image_size: int = 224,
        tokenizer: str | Path | None = None,
        texts: str | Path | None = None,
        mean: tuple[float, float, float] = BCSS_MEAN,
        std: tuple[float, float, float] = BCSS_STD,
    ) -> None:
        super().__init__()
        self.level_strides = pyramid_strides(_PATCH, image_size)
        self.image_size, self.mean, self.std = image_size, mean, std
        self.tokenizer = None if tokenizer is None else Path(tokenizer)
        self.weights = find_weights(weights, _FILES, revision=revision)
        self.texts = None if texts is None else read_texts(Path(texts), self.weights.sha256)
        self.identity = f"conch-{image_size}-{self.weights.sha256[:16]}"
        self.visual = _load_visual(_read_conch(self.weights.path), image_size)

    def train(self, mode: bool = True) -> ConchEncoder:
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def pyramid(self, images: Tensor, levels: Sequence[int] = LEVELS) -> list[Tensor]:
        """Maps of 768 channels at strides 4, 8, 16 and 32 of images RGB in [0, 1]."""
        check_images(images, self.image_size, "CONCH")
        return build_pyramid(self.visual.tap(normalize(images, self.mean, self.std)), levels)

    @torch.no_grad()
    def embed_image(self, images: Tensor) -> Tensor:
        """``(B, 512)``, L2-normalised, of images RGB in [0, 1]."""
        return self.embed_normalized(normalize(images, CONCH_MEAN, CONCH_STD))

    def embed_normalized(
        self, images: Tensor, *, project: bool = True, unit: bool = True
    ) -> Tensor:
        """Embed images that already are in CONCH's statistics; gradients reach the images.

        Parameters
        ----------
        images
            ``(B, 3, S, S)`` float, S the image size.
        project
            Whether the contrastive projection is applied (ConStruct: yes).
        unit
            Whether the ``(B, 512)`` rows are L2-normalised.
        """
        check_images(images, self.image_size, "CONCH")
        pooled: Tensor = self.visual(images)
        embedded = (pooled @ self.visual.proj_contrast if project else pooled).float()
        return F.normalize(embedded, dim=1) if unit else embedded

    @torch.no_grad()
    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """``(C, 512)``, L2-normalised.

        Raises
        ------
        CheckpointError
            If there is no tokenizer, or it is not CONCH's; with a file of `texts`, if it lacks one.
        """
        if self.texts is not None:
            return look_up(prompts, self.texts).to(self.visual.proj_contrast.device)
        return self.embed_tokens(tokenize(prompts, find_tokenizer(self.tokenizer)))

    def save_texts(self, prompts: Sequence[str], path: str | Path) -> Path:
        """Embed `prompts` into a small file, for use where no tokenizer is; errors as above."""
        return write_texts(prompts, self.embed_text(prompts), Path(path), self.weights.sha256)

    @torch.no_grad()
    def embed_tokens(self, tokens: Tensor, *, unit: bool = True) -> Tensor:
        """``(C, 512)`` of token ids ``(C, 127)`` or, with CONCH's empty last column, ``(C, 128)``.

        The text tower, 440 MB that only the first prototypes need, is read for this call and
        then let go.
        """
        text = _load_text(_read_conch(self.weights.path))
        embedded: Tensor = text(tokens[:, : text.context_length].cpu())
        embedded = F.normalize(embedded, dim=1) if unit else embedded
        return embedded.to(self.visual.proj_contrast.device)


class _Visual(nn.Module):
    """CONCH's vision tower: a plain ViT and the contrastive pooler over all of its tokens."""

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self.trunk = VisionTransformer(
            img_size=image_size,
            patch_size=_PATCH,
            embed_dim=_WIDTH,
            depth=_DEPTH,
            num_heads=12,
            num_classes=0,
        )
        self.attn_pool_contrast = AttentionalPooler(
            _EMBEDDING, _WIDTH, n_head=8, n_queries=1, norm_layer=nn.LayerNorm
        )
        self.ln_contrast = nn.LayerNorm(_EMBEDDING)
        self.proj_contrast = nn.Parameter(torch.empty(_EMBEDDING, _EMBEDDING))

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
        self.visual = _Visual(_TRAINED_AT)
        self.visual.attn_pool_caption = AttentionalPooler(_WIDTH, _WIDTH, n_head=8, n_queries=256)
        self.visual.ln_caption = nn.LayerNorm(_WIDTH)
        self.text = _make_text()
        self.logit_scale = nn.Parameter(torch.empty(()))


def _make_text() -> TextTransformer:
    # 127: open_clip adds the place of the class token itself. Its default, uncorrected mask of
    # that token is the one that CONCH was trained with.
    return TextTransformer(
        context_length=127,
        vocab_size=32007,
        width=_WIDTH,
        heads=12,
        layers=12,
        output_dim=_EMBEDDING,
        embed_cls=True,
        pad_id=0,
        norm_layer=nn.LayerNorm,
    )


def _read_conch(path: Path) -> dict[str, Tensor]:
    """All tensors of the official file but the decoder's, checked by name and shape."""
    found = read_tensors(path)
    found = {name: tensor for name, tensor in found.items() if not name.startswith(_DECODER)}
    wanted = _on_meta(_Conch).state_dict()
    match_tensors(found, {name: t.shape for name, t in wanted.items()}, path, "CONCH ViT-B/16")
    return found


def _load_visual(tensors: Mapping[str, Tensor], image_size: int) -> _Visual:
    visual = _on_meta(partial(_Visual, image_size))
    kept = {
        name: tensor
        for name, tensor in _below("visual.", tensors).items()
        if not name.startswith(_CAPTION)
    }
    position = "trunk.pos_embed"
    kept[position] = resize_position(kept[position], image_size // _PATCH)
    visual.load_state_dict(kept, assign=True)
    return visual.requires_grad_(False).eval()


def _load_text(tensors: Mapping[str, Tensor]) -> TextTransformer:
    text = _on_meta(_make_text)
    text.load_state_dict(_below("text.", tensors), assign=True)
    text.attn_mask = text.build_causal_mask()  # not in the file, so still without values
    return text.requires_grad_(False).eval()


def _on_meta(make: Callable[[], _M]) -> _M:
    """A module without memory: neither filled with random numbers nor read before it is."""
    with torch.device("meta"):
        return make()


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under a prefix, float32, in memory of their own rather than the mapped file's."""
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
    before = round(grid.shape[1] ** 0.5)
    if before == side:
        return embedding
    maps = grid.mT.reshape(1, -1, before, before)
    maps = F.interpolate(maps, (side, side), mode="bilinear", align_corners=False)
    return torch.cat([token, maps.flatten(2).mT], 1).contiguous()
