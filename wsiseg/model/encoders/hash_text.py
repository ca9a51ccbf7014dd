"""Text embeddings for encoders without a text tower: hashes of the letters."""

from __future__ import annotations

import re
import zlib

import torch
from torch import Tensor

__all__ = ["hash_text"]


def hash_text(prompt: str, length: int) -> Tensor:
    """``(length,)``: signed hashes of words and of their three-letter pieces, summed."""
    row = torch.zeros(length)
    for word in re.findall(r"\w+", prompt.casefold()):
        framed = f"<{word}>"
        for piece in [framed, *(framed[i : i + 3] for i in range(len(framed) - 2))]:
            code = zlib.crc32(piece.encode())
            row[code % length] += 1.0 if code >> 16 & 1 else -1.0
    return row
