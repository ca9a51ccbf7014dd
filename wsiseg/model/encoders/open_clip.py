"""The `open_clip` student: any open_clip model whose vision tower is a plain ViT.

For example the open QuiltNet-B-16 (``hf-hub:wisdomik/QuiltNet-B-16``) or BiomedCLIP
(``hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224``).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import torch
from timm.models.vision_transformer import VisionTransformer as TimmTransformer
from torch import Tensor, nn

from wsiseg.errors import CheckpointError, ConfigError
from wsiseg.model.encoders import LEVELS
from wsiseg.model.encoders.vit import (
    apply_alone,
    build_pyramid,
    check_images,
    normalize,
    pyramid_strides,
    tap_blocks,
    unit_maps,
)
from wsiseg.model.weights import HUB_PREFIX, WeightFile, find_weights, read_tensors, refuse_misfits

__all__ = ["OpenClipEncoder"]

HUB = f"{HUB_PREFIX}wisdomik/QuiltNet-B-16"
_CONFIG = "open_clip_config.json"
_TEXT_BATCH = 64  # there may be hundreds of prompts
_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "model.safetensors",
    "pytorch_model.bin",
)


class OpenClipEncoder(nn.Module):
    """The student, a `PromptEncoder`. Always in evaluation mode.

    It may be converted to half precision; its output stays float32.

    Parameters
    ----------
    model
        A hub repository or a folder with ``open_clip_config.json`` and the weights, or the name
        of one of open_clip's own architectures, such as ``ViT-B-16``.
    weights
        Weight file of an architecture given by name; a repository or folder brings its own.
    revision
        Revision of the repository.

    Raises
    ------
    CheckpointError
        If model or weights are not found, or do not fit each other.
    ConfigError
        If the vision tower is not a ViT, its pyramid would not have whole sides, or an architecture
        is named without weights.
    """

    cam_level = 3
    guidance_levels: tuple[int, ...] = (2,)
    equivariant = False

    def __init__(
        self,
        model: str | Path = HUB,
        weights: str | Path | None = None,
        *,
        revision: str | None = None,
    ) -> None:
        super().__init__()
        self.weights, place, text_place = _find_model(str(model), weights, revision)
        with _reported(str(model)):
            # Without its own flag, a text tower of transformers would fetch other weights first.
            self.clip = open_clip.create_model(place, load_weights=False, pretrained_text=False)
            self.tokenizer = open_clip.get_tokenizer(text_place)
            self.embedding_dim = int(open_clip.get_model_config(place)["embed_dim"])
        self.depth, width, self.patch, self.image_size = _measure(self.clip.visual, str(model))
        self.level_strides = pyramid_strides(self.patch, self.image_size)
        self.level_channels = (width, width, width, width)
        preprocessing = open_clip.get_model_preprocess_cfg(self.clip)
        self.mean: tuple[float, float, float] = tuple(preprocessing["mean"])
        self.std: tuple[float, float, float] = tuple(preprocessing["std"])
        self.region_mean, self.region_std = self.mean, self.std
        _load(self.clip, self.weights.path)
        self.clip.requires_grad_(False).eval()
        self.logit_scale = float(self.clip.logit_scale.float().exp())
        self.identity = f"open_clip-{self.weights.sha256[:16]}"

    def train(self, mode: bool = True) -> OpenClipEncoder:
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def pyramid(self, images: Tensor, levels: Sequence[int] = LEVELS) -> list[Tensor]:
        """Maps at a quarter, half, once and twice the patch, of images RGB in [0, 1]."""
        tapped = self.clip.visual.forward_intermediates(
            self._prepare(images),
            indices=tap_blocks(self.depth),
            normalize_intermediates=False,
            intermediates_only=True,
        )
        taps = [tap.float() for tap in tapped["image_intermediates"]]
        return build_pyramid(taps, levels, self.patch)

    @torch.no_grad()
    def embed_image(self, images: Tensor) -> Tensor:
        """``(B, E)``, L2-normalised, by the model's own `encode_image`."""
        return self.embed_normalized(normalize(images, self.mean, self.std))

    def embed_normalized(self, images: Tensor) -> Tensor:
        """`embed_image` of images normalised by the model's own statistics, with gradients."""
        check_images(images, self.image_size, "this open_clip model")
        images = images.to(self._weight.dtype)
        embedded: Tensor = self.clip.encode_image(images, normalize=True).float()
        return embedded

    @torch.no_grad()
    def embed_patches(self, images: Tensor) -> Tensor:
        """``(B, E, h, w)``, L2-normalised, of images RGB in [0, 1], one per patch.

        The last block is applied to each patch token alone (`apply_alone`), then the norm and the
        projection that are meant for the class token.

        Raises
        ------
        ConfigError
            If the tower pools its tokens by attention.
        """
        tapped = self.clip.visual.forward_intermediates(
            self._prepare(images), indices=[self.depth - 2], stop_early=True,
            normalize_intermediates=False, intermediates_only=True, output_fmt="NLC",
        )  # fmt: skip
        (tokens,) = tapped["image_intermediates"]
        embedded = _finish_alone(self.clip.visual, tokens)
        return unit_maps(embedded, self.image_size // self.patch)

    @torch.no_grad()
    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """``(C, E)``, L2-normalised, by the model's own tokenizer and `encode_text`."""
        tokens = self.tokenizer(list(prompts)).to(self._weight.device)
        parts = torch.split(tokens, _TEXT_BATCH)
        embedded = [self.clip.encode_text(part, normalize=True).float() for part in parts]
        return torch.cat(embedded)

    def _prepare(self, images: Tensor) -> Tensor:
        check_images(images, self.image_size, "this open_clip model")
        return normalize(images, self.mean, self.std).to(self._weight.dtype)

    @property
    def _weight(self) -> Tensor:
        """Any of the weights, for their device and precision."""
        weight: Tensor = next(self.clip.parameters())
        return weight


def _find_model(
    model: str, weights: str | Path | None, revision: str | None
) -> tuple[WeightFile, str, str]:
    """Find the weights, and the names by which open_clip finds configuration and tokenizer."""
    if model in open_clip.list_models():
        if weights is None:
            raise ConfigError(f"{model} is an architecture of open_clip: give its weights too")
        return find_weights(weights, _FILES, revision=revision), model, model
    if weights is not None:
        raise ConfigError(f"{model} brings its own weights: leave out {weights}")
    config = find_weights(model, (_CONFIG,), revision=revision, setting="encoder_options.model")
    # The configuration's commit, so that both are from the same state of the repository.
    weight_file = find_weights(
        model, _FILES, revision=config.revision or None, setting="encoder_options.model"
    )
    place = f"local-dir:{config.path.parent}"
    if not config.revision:
        return weight_file, place, place
    # A tokenizer of transformers may be in another repository; open_clip knows where.
    return weight_file, place, HUB_PREFIX + config.source.removesuffix(f"/{_CONFIG}")


@contextmanager
def _reported(model: str) -> Iterator[None]:
    """Turn open_clip's errors about a model's configuration into `CheckpointError`."""
    # It warns about random weights, which are filled in later.
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    except (ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{model}: open_clip cannot make this model ({error}); a text tower of transformers "
            f"also needs its own configuration in the hub's cache"
        ) from error
    finally:
        logging.disable(before)


def _measure(visual: Any, model: str) -> tuple[int, int, int, int]:
    """Depth, width, patch and image size of a vision tower; refuses all but ViTs."""
    trunk = getattr(visual, "trunk", visual)
    if isinstance(trunk, TimmTransformer):
        depth, width, patch = len(trunk.blocks), trunk.embed_dim, trunk.patch_embed.patch_size[0]
        size = trunk.patch_embed.img_size[0]
    elif isinstance(trunk, open_clip.transformer.VisionTransformer):
        depth, width = len(trunk.transformer.resblocks), trunk.transformer.width
        patch, size = trunk.patch_size[0], trunk.image_size[0]
    else:
        raise ConfigError(
            f"{model}: its vision tower is a {type(trunk).__name__}; a plain ViT is needed"
        )
    return depth, width, patch, size


def _finish_alone(visual: Any, tokens: Tensor) -> Tensor:
    """Embed tokens ``(B, N, D)`` from before the last block, each alone: ``(B, N, E)``."""
    trunk = getattr(visual, "trunk", visual)
    if trunk.attn_pool is not None:
        raise ConfigError(
            "this model's tower pools its patches by attention, so it gives no map of patches; "
            "set prompt_features to window"
        )
    if isinstance(trunk, TimmTransformer):
        alone = trunk.fc_norm(trunk.norm(apply_alone(trunk.blocks[-1], tokens)))
        headed: Tensor = visual.head(alone)
        return headed
    alone = visual.ln_post(apply_alone(trunk.transformer.resblocks[-1], tokens))
    projected: Tensor = alone if visual.proj is None else alone @ visual.proj
    return projected


def _load(model: nn.Module, path: Path) -> None:
    """Load a whole model strictly, by open_clip's own conversions between its layouts."""
    read_tensors(path)  # a damaged file, or one with code in it, is named as such here
    try:
        misfits = open_clip.load_checkpoint(model, str(path), strict=False)
    except (KeyError, RuntimeError) as error:  # another shape: torch lists them itself
        text = " ".join(str(error).split())
        raise CheckpointError(f"{path}: does not fit its configuration: {text[:2000]}") from error
    count = len(model.state_dict())
    missing, unexpected = misfits.missing_keys, misfits.unexpected_keys
    refuse_misfits(path, "the model of its configuration", count, missing, unexpected)
