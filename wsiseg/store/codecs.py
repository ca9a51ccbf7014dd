"""How a chunk's bytes are packed: Zarr v3's own codecs, called directly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from wsiseg.errors import StoreError

__all__ = ["Codec", "CodecName", "codec_of", "describe_codec"]

CodecName = Literal["zstd", "lz4", "none"]


class Codec(NamedTuple):
    """Pack a chunk, and unpack it into the array given."""

    encode: Callable[[NDArray[Any]], bytes]
    decode: Callable[[bytes, NDArray[Any]], object]


def _encode_zstd(chunk: NDArray[Any]) -> bytes:
    return bytes(imagecodecs.zstd_encode(chunk, level=1))  # type: ignore[arg-type]  # takes any buffer


def _decode_zstd(data: bytes, out: NDArray[Any]) -> object:
    return imagecodecs.zstd_decode(data, out=_flat(out))  # type: ignore[arg-type]  # takes any buffer


def _encode_lz4(chunk: NDArray[Any]) -> bytes:
    # No shuffle: it buys 8 % at best, and costs two thirds of the speed.
    packed = imagecodecs.blosc_encode(
        chunk,  # type: ignore[arg-type]  # takes any buffer
        level=5,
        compressor="lz4",
        shuffle=0,
        typesize=1,
        numthreads=1,
    )
    return bytes(packed)


def _decode_lz4(data: bytes, out: NDArray[Any]) -> object:
    return imagecodecs.blosc_decode(data, numthreads=1, out=_flat(out))  # type: ignore[arg-type]  # takes any buffer


def _encode_none(chunk: NDArray[Any]) -> bytes:
    return chunk.tobytes()


def _decode_none(data: bytes, out: NDArray[Any]) -> object:
    flat = _flat(out)
    flat[:] = np.frombuffer(data, np.uint8)
    return out


def _flat(out: NDArray[Any]) -> NDArray[np.uint8]:
    return out.reshape(-1).view(np.uint8)


_CODECS: dict[CodecName, Codec] = {
    "zstd": Codec(_encode_zstd, _decode_zstd),
    "lz4": Codec(_encode_lz4, _decode_lz4),
    "none": Codec(_encode_none, _decode_none),
}


def describe_codec(name: CodecName) -> dict[str, Any] | None:
    """The codec as ``zarr.json`` names it."""
    return {
        "zstd": {"name": "zstd", "configuration": {"level": 1, "checksum": False}},
        "lz4": {
            "name": "blosc",
            "configuration": {
                "cname": "lz4", "clevel": 5, "shuffle": "noshuffle", "typesize": 1, "blocksize": 0,
            },
        },
        "none": None,
    }[name]  # fmt: skip


def codec_of(described: dict[str, Any] | None) -> Codec:
    """The codec that ``zarr.json`` names; `StoreError` for one that wsiseg does not write."""
    for name, codec in _CODECS.items():
        if described == describe_codec(name):
            return codec
    raise StoreError(f"codec {described} is none that wsiseg writes; tile the slide again")
