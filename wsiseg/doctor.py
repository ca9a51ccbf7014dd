"""What is installed here, and what to do about what is not."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version

__all__ = ["check_installation"]

_PARTS = {
    "openslide-python": ("slides", "pip install openslide-python openslide-bin"),
    "openslide-bin": ("slides", "pip install openslide-bin"),
    "tiffslide": ("slides", "pip install tiffslide"),
    "simplejpeg": ("slides, read directly", "pip install simplejpeg"),
    "zarr": ("store", "pip install zarr"),
    "obstore": ("stores in buckets (optional)", "pip install 'wsiseg[cloud]'"),
    "torch": ("model", "pip install torch"),
    "numba": ("CRF and outlines", "pip install numba"),
    "distributed": ("dask executor (optional)", "pip install 'wsiseg[cluster]'"),
    "open_clip_torch": ("CONCH and open_clip (optional)", "pip install 'wsiseg[encoders]'"),
    "transformers": (
        "text towers of some open_clip models (optional)",
        "pip install 'wsiseg[encoders]'",
    ),
    "pyarrow": ("GeoParquet (optional)", "pip install 'wsiseg[parquet]'"),
    "pydensecrf2": ("CRF cross-check (optional)", "pip install 'wsiseg[pydensecrf]'"),
}


def check_installation() -> list[tuple[str, str, str]]:
    """Rows of (part, what was found, what to do); the last column is empty where all is well."""
    rows = [_package(name, *parts) for name, parts in _PARTS.items()]
    return [*rows, ("cores", str(os.cpu_count()), ""), _gpu()]


def _package(name: str, purpose: str, remedy: str) -> tuple[str, str, str]:
    try:
        return f"{name}: {purpose}", version(name), ""
    except PackageNotFoundError:
        return f"{name}: {purpose}", "missing", remedy


def _gpu() -> tuple[str, str, str]:
    try:
        import torch
    except ImportError:
        return "GPU", "unknown", "pip install torch"
    if torch.cuda.is_available():
        return "GPU", torch.cuda.get_device_name(), ""
    return "GPU", "none", "nothing to do: every step runs on the CPU"
