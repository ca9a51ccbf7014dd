"""The `conch` student: CONCH ViT-B/16 (Lu et al. 2024), from its official file, loaded strictly.

The pyramid sees images normalised by the data set's colours, the region embeddings by CONCH's own,
as in the released ConStruct code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsiseg.model.encoders import LEVELS
from wsiseg.model.encoders.conch_file import (
    EMBEDDING,
    PATCH,
    WIDTH,
    load_caption,
    load_text,
    load_visual,
    read_conch,
)
from wsiseg.model.encoders.conch_text import (
    find_tokenizer,
    look_up,
    read_texts,
    tokenize,
    write_texts,
)
from wsiseg.model.encoders.vit import (
    apply_alone,
    build_pyramid,
    check_images,
    normalize,
    pyramid_strides,
    unit_maps,
)
from wsiseg.model.weights import HUB_PREFIX, find_weights

__all__ = ["BCSS_MEAN", "BCSS_STD", "CONCH_MEAN", "CONCH_STD", "ConchEncoder"]

HUB = f"{HUB_PREFIX}MahmoodLab/CONCH"
_FILES = ("pytorch_model.bin", "model.safetensors")
_TEXT_BATCH = 64  # there may be hundreds of prompts, and embedding one takes some 10 MB

BCSS_MEAN = (0.66791496, 0.47791372, 0.70623304)
"""Mean colour of the paper's training patches, RGB in [0, 1]."""
BCSS_STD = (0.1736589, 0.22564577, 0.19820057)
"""Standard deviation of their colours."""
CONCH_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Mean colour of CONCH's own preprocessing."""
CONCH_STD = (0.26862954, 0.26130258, 0.27577711)
"""Standard deviation of that preprocessing."""


class ConchEncoder(nn.Module):
    """The student, a `PromptEncoder`. Always in evaluation mode.

    It may be converted to half precision (`.half()`, `.bfloat16()`); its output stays float32.

    Parameters
    ----------
    weights
        The official ``pytorch_model.bin``, its folder, or a hub repository (gated).
    revision
        Revision of the repository.
    image_size
        Side of the images, pixels. CONCH was trained at 448; the paper uses 224. Position
        embeddings are interpolated once, here, as the official loader does.
    tokenizer
        CONCH's tokenizer JSON, needed by `embed_text` only. None: the one inside an installed
        `conch` package, which is looked for when a text is embedded.
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

    level_channels = (WIDTH, WIDTH, WIDTH, WIDTH)
    embedding_dim = EMBEDDING
    cam_level = 3
    patch = PATCH
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
        self.level_strides = pyramid_strides(PATCH, image_size)
        self.image_size, self.mean, self.std = image_size, mean, std
        self.tokenizer = None if tokenizer is None else Path(tokenizer)
        self.weights = find_weights(weights, _FILES, revision=revision)
        self.texts = None if texts is None else read_texts(Path(texts), self.weights.sha256)
        self.identity = f"conch-{image_size}-{self.weights.sha256[:16]}"
        tensors = read_conch(self.weights.path)
        self.logit_scale = float(tensors["logit_scale"].float().exp())  # the file has the logarithm
        self.visual = load_visual(tensors, image_size)

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
        """Embed images that are already normalised by CONCH's statistics, with gradients.

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
    def embed_patches(self, images: Tensor) -> Tensor:
        """``(B, 512, h, w)``, L2-normalised, of images RGB in [0, 1], one per patch of 16 px.

        The last attention of this tower is the contrastive pooler's. So the whole trunk runs, and
        the pooler then attends to each patch token alone, which is MaskCLIP's value projection.
        """
        check_images(images, self.image_size, "CONCH")
        visual = self.visual
        images = normalize(images, CONCH_MEAN, CONCH_STD).to(visual.proj_contrast.dtype)
        tokens = visual.trunk.forward_features(images)[:, 1:]
        pooled = visual.ln_contrast(apply_alone(visual.attn_pool_contrast, tokens))
        return unit_maps(pooled @ visual.proj_contrast, self.image_size // PATCH)

    @torch.no_grad()
    def caption_tokens(self, images: Tensor) -> Tensor:
        """``(B, 256, 768)`` of normalised images: what CONCH's text decoder would look at.

        ConStruct does not use them, so their pooler is read for this call and then freed.
        """
        check_images(images, self.image_size, "CONCH")
        caption = load_caption(read_conch(self.weights.path))
        tokens = self.visual.trunk.forward_features(images.to(self.visual.proj_contrast.dtype))
        pooled: Tensor = caption(tokens.float().cpu())
        return pooled.to(images.device)

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
        """Embed `prompts` into a small file, for use without a tokenizer; errors as above."""
        return write_texts(prompts, self.embed_text(prompts), Path(path), self.weights.sha256)

    @torch.no_grad()
    def embed_tokens(self, tokens: Tensor, *, unit: bool = True) -> Tensor:
        """``(C, 512)`` of token ids ``(C, 127)`` or, with CONCH's empty last column, ``(C, 128)``.

        The text tower, 440 MB that only the initial prototypes need, is read for this call and
        then freed.
        """
        text = load_text(read_conch(self.weights.path))
        parts = torch.split(tokens[:, : text.context_length].cpu(), _TEXT_BATCH)
        embedded = torch.cat([text(part) for part in parts])
        embedded = F.normalize(embedded, dim=1) if unit else embedded
        return embedded.to(self.visual.proj_contrast.device)
