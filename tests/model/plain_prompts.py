"""Zero-shot segmentation with prompts, written out: one crop, one sentence, one cell at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Encode = Callable[[Tensor], Tensor]
EncodeText = Callable[[str], Tensor]


def unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(vector / np.sqrt((vector**2).sum()))


def plain_texts(channels: Sequence[Sequence[str]], encode: EncodeText) -> NDArray[np.float64]:
    """``(channels, E)``: unit means of unit embeddings."""
    rows = []
    for sentences in channels:
        total = sum(unit(encode(sentence).double().numpy()) for sentence in sentences)
        rows.append(unit(np.asarray(total) / len(sentences)))
    return np.stack(rows)


def plain_cams(
    images: Tensor, encode: Encode, texts: NDArray[np.float64], scale: float, window: int,
    stride: int, cell: int,
) -> NDArray[np.float64]:  # fmt: skip
    """``(B, channels, h, w)``; `encode` gives ``(E, g, g)`` of a crop ``(3, window, window)``."""
    batch, _, height, width = images.shape
    out = np.zeros((batch, len(texts), height // cell, width // cell))
    seen: dict[tuple[int, int, int], NDArray[np.float64]] = {}
    for number, image in enumerate(images):
        for row in range(height // cell):
            for col in range(width // cell):
                found = []
                for top in range(0, height - window + 1, stride):
                    for left in range(0, width - window + 1, stride):
                        y, x = row * cell - top, col * cell - left
                        if not (0 <= y < window and 0 <= x < window):
                            continue
                        if (number, top, left) not in seen:
                            crop = image[:, top : top + window, left : left + window]
                            seen[number, top, left] = encode(crop).double().numpy()
                        maps = seen[number, top, left]
                        side = window // maps.shape[1]
                        embedded = unit(maps[:, y // side, x // side])
                        found.append([scale * float(embedded @ text) for text in texts])
                out[number, :, row, col] = np.mean(found, axis=0)
    return out


def plain_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the second axis."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def softmax(cams: Tensor) -> NDArray[np.float64]:
    return np.asarray(torch.softmax(cams.double(), 1).numpy())
