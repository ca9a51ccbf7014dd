"""The attentional pooler of CONCH v1.5, which turns its tokens into one embedding."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from wsiseg.model.weights import match_tensors

__all__ = ["Pooler", "load_pooler"]

_HEADS = 8


class _Attention(nn.Module):
    """One learned query over all tokens, multi-head, without biases except in the norms."""

    def __init__(self, width: int, context: int) -> None:
        super().__init__()
        self.query = nn.Parameter(Tensor(1, width))
        self.ln_k, self.ln_q = nn.LayerNorm(context), nn.LayerNorm(width)
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(context, 2 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """``(B, N, context)`` to ``(B, width)``."""
        query = self.to_q(self.ln_q(self.query)).expand(len(tokens), 1, -1)
        key, value = self.to_kv(self.ln_k(tokens)).chunk(2, dim=2)
        parts = (part.unflatten(2, (_HEADS, -1)).transpose(1, 2) for part in (query, key, value))
        attended = F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)
        pooled: Tensor = self.to_out(attended)[:, 0]
        return pooled


class Pooler(nn.Module):
    """``(B, N, context)`` tokens after the last norm to ``(B, width)``."""

    def __init__(self, width: int, context: int) -> None:
        super().__init__()
        self.width = width
        self.attn_pool_contrast = _Attention(width, context)
        self.ln_contrast = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool the tokens of each image."""
        pooled: Tensor = self.ln_contrast(self.attn_pool_contrast(tokens))
        return pooled


def load_pooler(tensors: Mapping[str, Tensor], context: int, path: Path) -> Pooler:
    """Load the pooler from the tensors beside a trunk of width `context`, strictly.

    Raises
    ------
    CheckpointError
        If one is missing, left over or of another shape.
    """
    query = tensors.get("attn_pool_contrast.query")
    pooler = Pooler(768 if query is None else query.shape[-1], context)
    wanted = {name: tuple(value.shape) for name, value in pooler.state_dict().items()}
    match_tensors(tensors, wanted, path, "CONCH v1.5")
    pooler.load_state_dict(dict(tensors))
    return pooler
