"""MiT-B0 and MiT-B1 (Xie et al. 2021), from NVIDIA's files or the hub's; B1 is a teacher.

Our own module: transformers' SegFormer gives the same maps once its norms have the released code's
epsilons, but the names inside it changed between its versions 4 and 5, and checkpoints of second
stages hold these names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsiseg.errors import ConfigError
from wsiseg.model.encoders import LEVELS
from wsiseg.model.encoders.vit import normalize
from wsiseg.model.weights import (
    HUB_PREFIX,
    WeightFile,
    find_weights,
    match_tensors,
    read_tensors,
)

__all__ = ["WIDTHS", "MixTransformer", "SegformerTeacher", "read_mix_transformer"]

HUB = f"{HUB_PREFIX}nvidia/mit-b1"
_FILES = ("model.safetensors", "pytorch_model.bin")

WIDTHS = {"b0": (32, 64, 160, 256), "b1": (64, 128, 320, 512)}
"""Channels of the four stages; the sizes differ in nothing else."""
_DEPTHS = (2, 2, 2, 2)
_HEADS = (1, 2, 5, 8)
_REDUCTIONS = (8, 4, 2, 1)
_PATCHES = (7, 3, 3, 3)
_STRIDES = ((4, 2, 2, 1), (4, 2, 2, 2))

# The released code undoes the data set's normalisation with rounded statistics, and then applies
# ImageNet's. Together that is one normalisation, within 3e-4 of ImageNet's own.
_DATA = ((0.66791496, 0.1736589), (0.47791372, 0.22564577), (0.70623304, 0.19820057))
_ROUNDED = ((0.6679, 0.1737), (0.4779, 0.2256), (0.7062, 0.1982))
_IMAGENET = ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))
_CHANNELS = tuple(zip(_DATA, _ROUNDED, _IMAGENET, strict=True))
_MEAN = tuple(data[0] - (near[0] - net[0]) * data[1] / near[1] for data, near, net in _CHANNELS)
_STD = tuple(net[1] * data[1] / near[1] for data, near, net in _CHANNELS)


class SegformerTeacher(nn.Module):
    """The teacher, a `Teacher`. Always in evaluation mode and without gradient.

    It may be converted to half precision; its output stays float32.

    Parameters
    ----------
    weights
        ``mit_b1.pth``, a SegFormer-B1 file in Hugging Face's naming, a folder with one of them, or
        a hub repository.
    revision
        Revision of the repository.
    strides
        Strides of the four stages. The paper's code uses 4, 2, 2, 1, so that the last stage is as
        fine as the third; the published model is 4, 2, 2, 2.

    Raises
    ------
    CheckpointError
        If the weights are not found, or are not MiT-B1's.
    ConfigError
        If `strides` is neither of the two.
    """

    stage_channels = (64, 128, 320, 512)
    equivariant = False

    def __init__(
        self,
        weights: str | Path = HUB,
        *,
        revision: str | None = None,
        strides: Sequence[int] = (4, 2, 2, 1),
    ) -> None:
        super().__init__()
        if tuple(strides) not in _STRIDES:
            raise ConfigError(f"stage strides {tuple(strides)} are neither of {_STRIDES}")
        with torch.device("meta"):
            self.encoder = MixTransformer(strides)
        self.weights = read_mix_transformer(
            self.encoder, "b1", weights, revision=revision, setting="teacher_options.weights"
        )
        self.identity = f"segformer-b1-{''.join(map(str, strides))}-{self.weights.sha256[:16]}"
        self.encoder.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> SegformerTeacher:
        """Stay in evaluation mode: a perturbed teacher is not what the paper distils from."""
        return super().train(False)

    @torch.no_grad()
    def stages(self, images: Tensor, levels: Sequence[int] = LEVELS) -> list[Tensor]:
        """Maps of 64, 128, 320 and 512 channels of ``(B, 3, H, W)`` RGB in [0, 1]."""
        dtype = next(self.encoder.parameters()).dtype
        needed = max(levels, default=-1) + 1
        maps = self.encoder(normalize(images, _MEAN, _STD).to(dtype), needed)
        return [maps[level].float() for level in levels]


class MixTransformer(nn.Module):
    """Four stages of overlapping patches and attention with fewer keys than queries."""

    def __init__(self, strides: Sequence[int], widths: Sequence[int] = WIDTHS["b1"]) -> None:
        super().__init__()
        inputs = (3, *widths[:-1])
        self.stages = nn.ModuleList(
            _Stage(inputs[s], widths[s], _DEPTHS[s], _HEADS[s], _REDUCTIONS[s], _PATCHES[s], step)
            for s, step in enumerate(strides)
        )

    def forward(self, x: Tensor, count: int = 4) -> list[Tensor]:
        """``(B, 3, H, W)`` normalised to the first `count` stage maps after their norms."""
        maps = []
        for stage in list(self.stages)[:count]:
            x = stage(x)
            maps.append(x)
        return maps


class _Stage(nn.Module):
    def __init__(
        self,
        inputs: int,
        width: int,
        depth: int,
        heads: int,
        reduction: int,
        patch: int,
        stride: int,
    ) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inputs, width, patch, stride, patch // 2)
        self.proj_norm = nn.LayerNorm(width, eps=1e-5)
        self.blocks = nn.ModuleList(_Block(width, heads, reduction) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.proj(x)
        size = (maps.shape[2], maps.shape[3])
        tokens = self.proj_norm(maps.flatten(2).transpose(1, 2))
        for block in self.blocks:
            tokens = block(tokens, size)
        return _to_maps(self.norm(tokens), size)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = _Attention(width, heads, reduction)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = _MixedMlp(width)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        tokens = tokens + self.attn(self.norm1(tokens), size)
        mixed: Tensor = tokens + self.mlp(self.norm2(tokens), size)
        return mixed


class _Attention(nn.Module):
    """Self-attention whose keys and values come from a `reduction` times smaller map."""

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads, self.reduction = heads, reduction
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        if reduction > 1:
            self.sr = nn.Conv2d(width, width, reduction, reduction)
            self.norm = nn.LayerNorm(width, eps=1e-5)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        source = tokens
        if self.reduction > 1:
            source = self.norm(self.sr(_to_maps(tokens, size)).flatten(2).transpose(1, 2))
        key, value = self.kv(source).chunk(2, -1)
        mixed = F.scaled_dot_product_attention(
            self._split(self.q(tokens)), self._split(key), self._split(value)
        )
        joined: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return joined

    def _split(self, tokens: Tensor) -> Tensor:
        """``(B, N, C)`` to ``(B, heads, N, C / heads)``."""
        return tokens.view(*tokens.shape[:2], self.heads, -1).transpose(1, 2)


class _MixedMlp(nn.Module):
    """MLP with a depthwise convolution, which lets tokens know their positions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.dwconv = nn.Conv2d(4 * width, 4 * width, 3, padding=1, groups=4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        mixed = self.dwconv(_to_maps(self.fc1(tokens), size)).flatten(2).transpose(1, 2)
        out: Tensor = self.fc2(F.gelu(mixed))
        return out


def _to_maps(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """``(B, N, C)`` to ``(B, C, h, w)``."""
    # `transpose` and `shape`, as ONNX knows no `mT` and takes `len` for a constant.
    return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], *size)


# Ours, NVIDIA's (stages from 1) and Hugging Face's name of each layer of stage s, block i. Two
# names: what is one tensor here is two in the file, in this order.
_Layers = tuple[tuple[str, str, tuple[str, ...]], ...]
_STAGE_LAYERS: _Layers = (
    ("proj", "patch_embed{n}.proj", ("encoder.patch_embeddings.{s}.proj",)),
    ("proj_norm", "patch_embed{n}.norm", ("encoder.patch_embeddings.{s}.layer_norm",)),
    ("norm", "norm{n}", ("encoder.layer_norm.{s}",)),
)
_BLOCK_LAYERS: _Layers = (
    ("norm1", "norm1", ("layer_norm_1",)),
    ("attn.q", "attn.q", ("attention.self.query",)),
    ("attn.kv", "attn.kv", ("attention.self.key", "attention.self.value")),
    ("attn.proj", "attn.proj", ("attention.output.dense",)),
    ("attn.sr", "attn.sr", ("attention.self.sr",)),
    ("attn.norm", "attn.norm", ("attention.self.layer_norm",)),
    ("norm2", "norm2", ("layer_norm_2",)),
    ("mlp.fc1", "mlp.fc1", ("mlp.dense1",)),
    ("mlp.dwconv", "mlp.dwconv.dwconv", ("mlp.dwconv.dwconv",)),
    ("mlp.fc2", "mlp.fc2", ("mlp.dense2",)),
)
_LEFT_OUT = ("head.", "classifier.", "decode_head.")
_PREFIXES = ("module.", "backbone.", "segformer.")


def _name_sources(ours: Mapping[str, Tensor], hub: bool) -> dict[str, tuple[str, ...]]:
    """Return the file's names of each of our tensors, in NVIDIA's or Hugging Face's naming."""
    names = {}
    for s in range(len(_DEPTHS)):
        for own, official, theirs in _STAGE_LAYERS:
            sources = theirs if hub else (official,)
            names[f"stages.{s}.{own}"] = [name.format(s=s, n=s + 1) for name in sources]
        for i in range(_DEPTHS[s]):
            block = f"encoder.block.{s}.{i}" if hub else f"block{s + 1}.{i}"
            for own, official, theirs in _BLOCK_LAYERS:
                sources = theirs if hub else (official,)
                names[f"stages.{s}.blocks.{i}.{own}"] = [f"{block}.{name}" for name in sources]
    split = {name: name.rpartition(".") for name in ours}
    return {
        name: tuple(f"{source}.{kind}" for source in names[layer])
        for name, (layer, _, kind) in split.items()
    }


def read_mix_transformer(
    network: MixTransformer,
    size: str,
    weights: str | Path,
    *,
    revision: str | None = None,
    setting: str = "network_options.weights",
) -> WeightFile:
    """Load the tensors of a file into a network, which may be on the device `meta`.

    Parameters
    ----------
    size
        ``b0`` or ``b1``.
    weights
        ``mit_<size>.pth``, a file in Hugging Face's naming, a folder with one of them, or a hub
        repository.

    Raises
    ------
    CheckpointError
        If the weights are not found, or are not those of this size.
    """
    weight_file = find_weights(
        weights, (*_FILES, f"mit_{size}.pth"), revision=revision, setting=setting
    )
    tensors = _read_encoder(weight_file.path, network.state_dict(), size)
    network.load_state_dict(tensors, assign=True)
    return weight_file


def _read_encoder(path: Path, ours: Mapping[str, Tensor], size: str) -> dict[str, Tensor]:
    """Read a file's tensors under our names, float32; all must be there, and only a head more."""
    stored = {_strip(name): tensor for name, tensor in read_tensors(path).items()}
    stored = {name: tensor for name, tensor in stored.items() if not name.startswith(_LEFT_OUT)}
    sources = _name_sources(ours, any(name.startswith("encoder.") for name in stored))
    expected = {
        source: (tensor.shape[0] // len(sources[name]), *tensor.shape[1:])
        for name, tensor in ours.items()
        for source in sources[name]
    }
    match_tensors(stored, expected, path, f"a SegFormer MiT-{size.upper()} encoder")
    return {
        name: torch.cat([stored[source] for source in sources[name]]).to(torch.float32)
        for name in ours
    }


def _strip(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name
