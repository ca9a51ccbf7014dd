"""The file of a learned encoder: the network, and where its classes lie among its features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsiseg.model.device import to_images
from wsiseg.model.encoders.small import SmallEncoder, pack_small
from wsiseg.model.encoders.small_network import SmallNetwork, fold
from wsiseg.train.encoder.pictures import LabelledTiles

__all__ = ["pack_network"]

_BATCH = 32


@torch.no_grad()
def pack_network(
    network: SmallNetwork,
    tiles: LabelledTiles,
    words: Sequence[Sequence[str]],
    note: Mapping[str, str],
) -> bytes:
    """What `SmallEncoder` reads, of a network that `fit_network` gave.

    Parameters
    ----------
    tiles
        Those that it was taught; a class lies where the tiles that show it do, each counting by
        how few other classes it shows.
    words
        What a class is called in texts, for each column of the labels; lower case, beginnings of
        words.
    note
        Where the weights come from: licence, attribution, settings.
    """
    folded = fold(network.cpu())
    features = _see(folded, tiles.pixels)
    centre = features.mean(0)
    labels = torch.from_numpy(tiles.labels)
    shares = labels / labels.sum(1, keepdim=True).clamp_min(1)
    texts = F.normalize(shares.T @ (features - centre), dim=1)
    rows = {word: row for row, known in enumerate(words) for word in known}
    return pack_small(folded, centre, texts, rows, note)


def _see(network: SmallNetwork, pixels: np.ndarray) -> Tensor:
    """``(N, C)`` mean of each tile's cells at the level of the CAM."""
    found = []
    for start in range(0, len(pixels), _BATCH):
        images = to_images(pixels[start : start + _BATCH])
        (maps,) = network(images, (SmallEncoder.cam_level,))
        found.append(maps.mean((2, 3)))
    return torch.cat(found)
