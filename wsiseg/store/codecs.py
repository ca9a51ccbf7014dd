"""How a chunk's bytes are packed and checked: Zarr v3's own codecs, called directly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import google_crc32c
import imagecodecs
import numpy as np
from numpy.typing import NDArray

from wsiseg.errors import StoreError

__all__ = ["Codec", "CodecName", "checksum", "codec_of", "describe_codec", "fits_checksum"]

CodecName = Literal["zstd", "lz4", "none"]

_CRC = {"name": "crc32c"}
_RESIDUE = 0x48674BC7
"""The CRC-32C of any bytes that are followed by their own, little-endian (RFC 3720, B.4)."""

_Bytes = bytes | NDArray[np.uint8]


class Codec(NamedTuple):
    """Pack a chunk, and unpack it into the array given; returns what of that was filled."""

    encode: Callable[[NDArray[Any]], bytes]
    decode: Callable[[_Bytes, NDArray[Any]], Any]


def checksum(data: bytes) -> bytes:
    """CRC-32C, 4 bytes little-endian, as Zarr has it."""
    return int(google_crc32c.value(data)).to_bytes(4, "little")


def fits_checksum(data: _Bytes) -> bool:
    """Whether `data` end in the `checksum` of what precedes it."""
    return bool(google_crc32c.value(data) == _RESIDUE)


def _encode_zstd(chunk: NDArray[Any]) -> bytes:
    return bytes(imagecodecs.zstd_encode(chunk, level=1))  # type: ignore[arg-type]  # takes any buffer


def _decode_zstd(data: _Bytes, out: NDArray[Any]) -> Any:
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


def _decode_lz4(data: _Bytes, out: NDArray[Any]) -> Any:
    return imagecodecs.blosc_decode(data, numthreads=1, out=_flat(out))  # type: ignore[arg-type]  # takes any buffer


def _encode_none(chunk: NDArray[Any]) -> bytes:
    return chunk.tobytes()


def _decode_none(data: _Bytes, out: NDArray[Any]) -> Any:
    values = np.frombuffer(data, np.uint8)
    if values.size == out.nbytes:  # else NumPy would spread a single byte over all of it
        _flat(out)[:] = values
    return values


def _flat(out: NDArray[Any]) -> NDArray[np.uint8]:
    return out.reshape(-1).view(np.uint8)


_CODECS: dict[CodecName, Codec] = {
    "zstd": Codec(_encode_zstd, _decode_zstd),
    "lz4": Codec(_encode_lz4, _decode_lz4),
    "none": Codec(_encode_none, _decode_none),
}


def describe_codec(name: CodecName) -> list[dict[str, Any]]:
    """The codecs after `bytes`, as ``zarr.json`` names them; the last is a checksum."""
    packed: dict[CodecName, list[dict[str, Any]]] = {
        "zstd": [{"name": "zstd", "configuration": {"level": 1, "checksum": False}}],
        "lz4": [
            {
                "name": "blosc",
                "configuration": {
                    "typesize": 1, "cname": "lz4", "clevel": 5, "shuffle": "noshuffle",
                    "blocksize": 0,
                },
            }
        ],
        "none": [],
    }  # fmt: skip
    return [*packed[name], dict(_CRC)]


def codec_of(described: Sequence[dict[str, Any]]) -> tuple[Codec, bool]:
    """The codec that ``zarr.json`` names, and whether a checksum follows each chunk.

    Raises
    ------
    StoreError
        If it is none that wsiseg writes, or wrote.
    """
    chain = [{"name": step["name"], **_settings(step)} for step in described]
    checked = chain[-1:] == [_CRC]
    for name, codec in _CODECS.items():
        if [*chain, *([] if checked else [_CRC])] == describe_codec(name):
            return codec, checked
    raise StoreError(f"codec {list(described)} is none that wsiseg writes; tile the slide again")


def _settings(step: dict[str, Any]) -> dict[str, Any]:
    """The codec's settings; zarr may write none as an empty set."""
    return {"configuration": step["configuration"]} if step.get("configuration") else {}
