"""Names of DINOv2's tensors in transformers (Phikon-v2, Hibou, Midnight) and in its own files."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["rename_transformers"]

_PLAIN = {
    "embeddings.cls_token": "cls_token",
    "embeddings.mask_token": "mask_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.register_tokens": "register_tokens",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layernorm": "norm",
}
_IN_BLOCK = {
    "attention.output.dense": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "mlp.weights_in": "mlp.w12",
    "mlp.weights_out": "mlp.w3",
}
_BLOCK = re.compile(r"encoder\.layer\.(\d+)\.(.+)")
_QUERY = "attention.attention.query"


def rename_transformers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename tensors to DINOv2's own names; query, key and value become one tensor.

    A name that transformers does not use is kept, for the caller to refuse.
    """
    converted = {"mask_token": torch.zeros(1)}  # timm recognises the layout by it; no model uses it
    for name, value in tensors.items():
        block = _BLOCK.fullmatch(name)
        inner = name if block is None else block[2]
        if block is not None and inner.startswith("attention.attention."):
            if inner.startswith(_QUERY):
                parts = (name.replace(_QUERY, f"attention.attention.{p}") for p in
                         ("query", "key", "value"))  # fmt: skip
                kind = inner.removeprefix(f"{_QUERY}.")
                converted[f"blocks.{block[1]}.attn.qkv.{kind}"] = torch.cat(
                    [tensors[p] for p in parts]
                )
            continue
        renamed = _rename(inner, _PLAIN if block is None else _IN_BLOCK)
        converted[renamed if block is None else f"blocks.{block[1]}.{renamed}"] = value
    return converted


def _rename(name: str, names: Mapping[str, str]) -> str:
    for old, new in names.items():
        if name == old or name.startswith(f"{old}."):
            return new + name.removeprefix(old)
    return name
