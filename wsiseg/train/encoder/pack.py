"""Pack a trained encoder into a file: the network, and the directions of its classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsiseg.model.device import to_images
from wsiseg.model.encoders.half_network import JoinedNetwork, fold
from wsiseg.model.encoders.learned import TileEncoder, pack_encoder
from wsiseg.train.encoder.pictures import LabelledTiles

__all__ = ["pack_network"]

_BATCH = 32


@torch.no_grad()
def pack_network(
    network: JoinedNetwork,
    tiles: LabelledTiles,
    words: Sequence[Sequence[str]],
    note: Mapping[str, str],
) -> bytes:
    """Pack a network from `fit_network` into the bytes of a file that `TileEncoder` reads.

    Parameters
    ----------
    tiles
        Those that it was trained on; a class is embedded at the mean of the tiles that show it,
        weighted by one over the number of classes that a tile shows.
    words
        Names of a class in texts, for each column of the labels: beginnings of words, lower case.
    note
        Origin of the weights: licence, attribution, settings.
    """
    folded = fold(network.cpu())
    features = _embed(folded, tiles.pixels)
    centre = features.mean(0)
    labels = torch.from_numpy(tiles.labels)
    shares = labels / labels.sum(1, keepdim=True).clamp_min(1)
    texts = F.normalize(shares.T @ (features - centre), dim=1)
    rows = {word: row for row, names in enumerate(words) for word in names}
    return pack_encoder(folded, centre, texts, rows, note)


def _embed(network: JoinedNetwork, pixels: np.ndarray) -> Tensor:
    """``(N, C)`` mean of each tile's cells at the level of the CAM."""
    means = []
    for start in range(0, len(pixels), _BATCH):
        images = to_images(pixels[start : start + _BATCH])
        (maps,) = network(images, (TileEncoder.cam_level,))
        means.append(maps.mean((2, 3)))
    return torch.cat(means)
