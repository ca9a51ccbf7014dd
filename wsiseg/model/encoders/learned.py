"""What encoders whose network was taught by labelled tiles share: weights, texts, embeddings.

`pipelines/tile_encoder.py` makes their files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from wsiseg.errors import CheckpointError
from wsiseg.model.encoders import LEVELS
from wsiseg.model.encoders.half_network import HalfNetwork
from wsiseg.model.encoders.hash_text import hash_text
from wsiseg.model.encoders.regions import RegionEncoder
from wsiseg.model.weights import WeightFile, find_weights

__all__ = ["LearnedEncoder", "TileEncoder", "pack_encoder"]

_NETWORK = "network."


class LearnedEncoder(RegionEncoder):
    """The student, an `Encoder` of a `HalfNetwork`. Its CAM level is at stride 16, 8 µm per cell.

    Parameters
    ----------
    network
        Taken as it is, and frozen.
    """

    network_type: ClassVar[type[HalfNetwork]]
    context: ClassVar[int]
    """Pixels around a tile that its cells should see."""
    cam_level = 2
    guidance_levels = (2,)
    equivariant = False

    def __init__(self, network: HalfNetwork) -> None:
        super().__init__()
        self.network = network
        self.level_channels = network.channels
        self.embedding_dim = self.level_channels[self.cam_level]
        self.requires_grad_(False)
        self.eval()

    @torch.no_grad()
    def pyramid(self, images: Tensor, levels: Sequence[int] = LEVELS) -> list[Tensor]:
        """Maps at strides 4, 8, 16 and 32."""
        maps: list[Tensor] = self.network(images, levels)
        return maps


class TileEncoder(LearnedEncoder):
    """One of a file that holds its network and what it knows of texts.

    Texts and regions share a space as far as the words are known: a class that the network was
    trained on is embedded where its tiles are, any other text by a hash of its letters.

    Parameters
    ----------
    weights
        A file of `pack_encoder`; None is the one that ships with wsiseg.

    Raises
    ------
    CheckpointError
        If the file is missing or not one of these.
    """

    name: ClassVar[str]
    centre: Tensor
    texts: Tensor

    def __init__(self, weights: str | Path | None = None) -> None:
        shipped = Path(__file__).with_name(f"{self.name}.safetensors")
        weight_file = find_weights(weights or shipped, (shipped.name,))
        words, tensors = self._read(weight_file.path)
        centre, texts, network = tensors.pop("centre"), tensors.pop("texts"), self.network_type()
        learned = {name.removeprefix(_NETWORK): value for name, value in tensors.items()}
        try:
            network.load_state_dict(learned)
        except RuntimeError as error:
            raise CheckpointError(
                f"{weight_file.path}: does not fit encoder {self.name!r} ({error})"
            ) from error
        super().__init__(network)
        self.weights: WeightFile | None = weight_file if weights else None
        self.identity = f"{self.name}-{weight_file.sha256[:16]}"
        self.words = words
        self.register_buffer("centre", centre, persistent=False)
        self.register_buffer("texts", texts, persistent=False)

    def embed(self, images: Tensor) -> Tensor:
        """``(B, E)``: the mean of the cells at stride 16, relative to the mean over tissue."""
        (maps,) = self.network(images, (self.cam_level,))
        return self.embed_maps(maps)

    def embed_maps(self, maps: Tensor) -> Tensor:
        """`embed` of images whose level 2 is known."""
        return F.normalize(maps.mean((2, 3)) - self.centre, dim=1)

    @torch.no_grad()
    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """``(C, E)``: the mean of the known classes that a prompt names, else a hash of it."""
        return torch.stack([self._embed_prompt(prompt) for prompt in prompts])

    def _embed_prompt(self, prompt: str) -> Tensor:
        text = prompt.casefold()
        named = [
            row for word, row in self.words.items() if re.search(rf"\b{re.escape(word)}", text)
        ]
        if not named:
            return F.normalize(hash_text(prompt, self.embedding_dim), dim=0).to(self.texts.device)
        return F.normalize(self.texts[sorted(set(named))].mean(0), dim=0)

    def _read(self, path: Path) -> tuple[dict[str, int], dict[str, Tensor]]:
        try:
            with safe_open(path, "pt") as file:
                words = json.loads(file.metadata()["words"])
                tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118  # no dict
            if {"centre", "texts"} - tensors.keys():
                raise KeyError("centre, texts")
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path}: holds no weights of encoder {self.name!r} ({error})"
            ) from error
        return {str(word): int(row) for word, row in words.items()}, tensors


def pack_encoder(
    network: HalfNetwork, centre: Tensor, texts: Tensor, words: Mapping[str, int],
    note: Mapping[str, str],
) -> bytes:  # fmt: skip
    """Pack a folded `network` into the bytes of a file, all numbers as float16.

    Parameters
    ----------
    centre
        ``(E,)``: mean of the tiles' features at stride 16.
    texts
        ``(C, E)``: direction of each class's tiles from `centre`, unit rows.
    words
        The row of `texts` that a word means, in lower case.
    note
        Origin of the weights: licence, attribution, settings.
    """
    tensors = {f"{_NETWORK}{name}": value for name, value in network.state_dict().items()}
    tensors |= {"centre": centre, "texts": texts}
    metadata = {"words": json.dumps(dict(words), sort_keys=True), **note}
    return _sort_metadata(save({k: v.half().contiguous() for k, v in tensors.items()}, metadata))


def _sort_metadata(data: bytes) -> bytes:
    """Sort the metadata of a safetensors file, whose order changes from one `save` to the next."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors are aligned
    return len(text).to_bytes(8, "little") + text + data[8 + size :]
