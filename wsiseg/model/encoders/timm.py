"""The student `timm`: any vision transformer of timm or the hub, frozen. It has no text tower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsiseg.errors import ConfigError
from wsiseg.model.encoders import LEVELS
from wsiseg.model.encoders.conch15_pooler import load_pooler
from wsiseg.model.encoders.timm_file import Color, build_vit, fill_vit, find_recipe, read_vit
from wsiseg.model.encoders.vit import (
    build_pyramid,
    check_images,
    normalize,
    pyramid_strides,
    tap_blocks,
)
from wsiseg.model.vits import VITS

__all__ = ["TimmEncoder"]


class TimmEncoder(nn.Module):
    """The student, an `Encoder`. Always in evaluation mode.

    Levels are those of the other vision transformers: the last block of each quarter of the depth,
    before the last norm. Class and register tokens are not part of the maps. An image's embedding
    is its tokens pooled as the model itself does; the class token if it does not pool.

    It may be converted to half precision; its output stays float32.

    Parameters
    ----------
    model
        A name of `wsiseg.model.vits`, a repository of the hub (``hf-hub:owner/name``), a folder
        with ``config.json`` and weights, or an architecture of timm, best with its tag
        (``vit_base_patch16_224.dino``).
    weights
        A file, folder or repository to take instead of the weights that go with the name.
    revision
        Revision of the repository.
    image_size
        Side of the images, pixels; None for the model's own. Positions are resampled once, here.
    mean, std
        Colours of the normalisation, RGB in [0, 1]; None for the model's own, which are ImageNet's
        where its configuration names none.
    arguments
        Arguments of timm's constructor, over the known ones (``reg_tokens``, ``patch_size``, ...).

    Raises
    ------
    ConfigError
        If no model is named, there is none of that name, it is not a plain vision transformer, or
        its pyramid would not have whole sides.
    CheckpointError
        If its weights are not found, or do not fit the model.
    """

    cam_level = 3
    guidance_levels: tuple[int, ...] = (2,)
    equivariant = False

    def __init__(
        self,
        model: str | Path = "",
        weights: str | Path | None = None,
        *,
        revision: str | None = None,
        image_size: int | None = None,
        mean: Color | None = None,
        std: Color | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not str(model):
            raise ConfigError(
                f"encoder 'timm' needs encoder_options.model: one of "
                f"{', '.join(vit.name for vit in VITS)}, hf-hub:owner/name, a folder, or an "
                f"architecture of timm"
            )
        recipe = find_recipe(str(model), weights, revision)
        self.weights = recipe.weights
        self.image_size = image_size or recipe.image_size
        self.mean, self.std = mean or recipe.mean, std or recipe.std
        self.region_mean, self.region_std = self.mean, self.std
        made = build_vit(recipe, self.image_size, arguments or {})
        self.patch = int(made.patch_embed.patch_size[0])
        self.level_strides = pyramid_strides(self.patch, self.image_size)
        trunk, extra = read_vit(recipe.weights.path)
        self.vit = fill_vit(made, trunk, recipe.weights.path, smooth=not extra)
        width = int(self.vit.embed_dim)
        self.level_channels = (width, width, width, width)
        self.pooler = load_pooler(extra, width, recipe.weights.path) if extra else None
        self.embedding_dim = width if self.pooler is None else self.pooler.width
        self.requires_grad_(False).eval()
        self.identity = f"timm-{self.image_size}-{recipe.weights.sha256[:16]}"

    def train(self, mode: bool = True) -> TimmEncoder:
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def pyramid(self, images: Tensor, levels: Sequence[int] = LEVELS) -> list[Tensor]:
        """Maps at a quarter (or half), half, once and twice the patch, of images RGB in [0, 1]."""
        blocks = tap_blocks(len(self.vit.blocks))
        wanted = sorted(set(levels))
        taps = self.vit.forward_intermediates(
            self._prepare(normalize(images, self.mean, self.std)),
            indices=[blocks[level] for level in wanted],
            norm=False, stop_early=True, intermediates_only=True,
        )  # fmt: skip
        by_level = {level: tap.float() for level, tap in zip(wanted, taps, strict=True)}
        return build_pyramid(by_level, levels, self.patch)

    @torch.no_grad()
    def embed_image(self, images: Tensor) -> Tensor:
        """``(B, E)``, L2-normalised, of images RGB in [0, 1]."""
        return self.embed_normalized(normalize(images, self.mean, self.std))

    def embed_normalized(self, images: Tensor) -> Tensor:
        """`embed_image` of images normalised by the model's own statistics, with gradients."""
        tokens = self.vit.forward_features(self._prepare(images))
        if self.pooler is not None:
            pooled = self.pooler(tokens)
        elif self.vit.global_pool:
            pooled = self.vit.forward_head(tokens, pre_logits=True)
        else:
            pooled = tokens[:, 0] if self.vit.num_prefix_tokens else tokens.mean(1)
        return F.normalize(pooled.float(), dim=1)

    def _prepare(self, images: Tensor) -> Tensor:
        check_images(images, self.image_size, "this vision transformer")
        return images.to(self.vit.patch_embed.proj.weight.dtype)
