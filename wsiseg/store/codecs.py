"""Compress chunks and check their checksums with Zarr v3's codecs, called directly."""

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
"""The CRC-32C of any bytes followed by their own little-endian CRC-32C (RFC 3720, B.4)."""

_Bytes = bytes | NDArray[np.uint8]


class Codec(NamedTuple):
    """A function that compresses a chunk, and one that decompresses it into an array.

    The second returns the part of the array that it filled.
    """

    encode: Callable[[NDArray[Any]], bytes]
    decode: Callable[[_Bytes, NDArray[Any]], Any]


def checksum(data: bytes) -> bytes:
    """Return the CRC-32C as 4 little-endian bytes, as Zarr stores it."""
    return int(google_crc32c.value(data)).to_bytes(4, "little")


def fits_checksum(data: _Bytes) -> bool:
    """Whether `data` ends in the `checksum` of the bytes before it."""
    return bool(google_crc32c.value(data) == _RESIDUE)


def _encode_zstd(chunk: NDArray[Any]) -> bytes:
    return bytes(imagecodecs.zstd_encode(chunk, level=1))  # type: ignore[arg-type]  # takes any buffer


def _decode_zstd(data: _Bytes, out: NDArray[Any]) -> Any:
    return imagecodecs.zstd_decode(data, out=_flat(out))  # type: ignore[arg-type]  # takes any buffer


def _encode_lz4(chunk: NDArray[Any]) -> bytes:
    # No shuffle: it saves 8 % at best, and costs two thirds of the speed.
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
    if values.size == out.nbytes:  # else NumPy would broadcast a single byte
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
    """Describe the codecs after `bytes` as ``zarr.json`` does; the last is a checksum."""
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
    """Return the codec that ``zarr.json`` names, and whether a checksum follows each chunk.

    Raises
    ------
    StoreError
        If no version of wsiseg writes this codec.
    """
    chain = [{"name": step["name"], **_settings(step)} for step in described]
    checked = chain[-1:] == [_CRC]
    for name, codec in _CODECS.items():
        if [*chain, *([] if checked else [_CRC])] == describe_codec(name):
            return codec, checked
    raise StoreError(f"codec {list(described)} is not one that wsiseg writes; tile the slide again")


def _settings(step: dict[str, Any]) -> dict[str, Any]:
    """Return the codec's settings; zarr may write none as an empty object."""
    return {"configuration": step["configuration"]} if step.get("configuration") else {}
