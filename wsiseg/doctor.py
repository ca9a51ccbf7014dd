"""Check what is installed here, and say how to install what is missing."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from wsiseg.model.catalog import CATALOG, SHIPPED

__all__ = ["Purpose", "check_installation", "check_purposes"]

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
    "starlette": ("viewer (optional)", "pip install 'wsiseg[view]'"),
    "pyarrow": ("GeoParquet (optional)", "pip install 'wsiseg[parquet]'"),
    "pydensecrf2": ("CRF cross-check (optional)", "pip install 'wsiseg[pydensecrf]'"),
}


def check_installation() -> list[tuple[str, str, str]]:
    """Return rows of (part, finding, remedy); the remedy is empty where all is well."""
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


@dataclass(frozen=True)
class Purpose:
    """One use of wsiseg, and whether this machine is ready for it."""

    name: str
    missing: str = ""
    """What it lacks; empty if it is ready."""
    remedy: str = ""
    """What to do about it; if it is ready, how to start."""
    needed: bool = False
    """Whether wsiseg is of no use without it."""


def check_purposes() -> list[Purpose]:
    """Check whether a first map, CONCH, the GPU, a cluster and the viewer would work here.

    Nothing is downloaded and the network is not used.
    """
    return [_first_map(), _conch(), _gpu_purpose(), _cluster(), _viewer()]


_FIRST_MAP = (
    "numba",
    "openslide",
    "shapely",
    "simplejpeg",
    "tifffile",
    "tiffslide",
    "torch",
    "zarr",
)
_CONCH = ("open_clip", "huggingface_hub", "timm", "tokenizers", "transformers")


def _find_missing(modules: tuple[str, ...]) -> list[str]:
    return [name for name in modules if find_spec(name) is None]


def _first_map() -> Purpose:
    name, reinstall = "a first map", "pip install --force-reinstall wsiseg"
    if missing := _find_missing(_FIRST_MAP):
        return Purpose(name, f"{', '.join(missing)} not installed", reinstall, needed=True)
    try:
        import openslide  # its library may be missing though the package is there
    except (ImportError, OSError) as error:
        return Purpose(name, f"openslide: {error}", "pip install openslide-bin", needed=True)
    del openslide
    absent = [model for model, path in SHIPPED.items() if not path.is_file()]
    if absent:
        return Purpose(name, f"the file of model {', '.join(absent)}", reinstall, needed=True)
    return Purpose(name, remedy="wsiseg annotate SLIDE -o out", needed=True)


def _conch() -> Purpose:
    model = next(row for row in CATALOG if row.name == "conch")
    if missing := _find_missing(_CONCH):
        what = f"{', '.join(missing)} not installed"
        return Purpose("CONCH", what, "pip install 'wsiseg[encoders]'")
    from huggingface_hub import try_to_load_from_cache

    *_, repository, file = model.fetch.split()
    cached = try_to_load_from_cache(repository, file)
    if not isinstance(cached, str) or not Path(cached).is_file():
        gate = f" ({model.gate})" if model.gate else ""
        return Purpose("CONCH", "its weights are not in the hub's cache", f"{model.fetch}{gate}")
    return Purpose("CONCH", remedy="wsiseg train DATA -c configs/bcss.yaml -o model.safetensors")


def _gpu_purpose() -> Purpose:
    _, name, remedy = _gpu()
    if name in ("none", "unknown"):
        return Purpose("the GPU", "torch sees no CUDA device", remedy)
    from wsiseg.model.crf import triton_compiles

    crf = "" if triton_compiles() else "; its CRF runs in plain torch, as Triton needs gcc or clang"
    return Purpose("the GPU", remedy=f"predict.device=auto uses it ({name}){crf}")


def _cluster() -> Purpose:
    extra = "pip install 'wsiseg[cluster]'"
    if missing := _find_missing(("dask", "distributed", "dask_jobqueue")):
        return Purpose("a cluster", f"{', '.join(missing)} not installed", extra)
    if shutil.which("sbatch") is not None:
        return Purpose("a cluster", remedy="SLURM: --executor configs/slurm.yaml")
    return Purpose("a cluster", remedy="no SLURM; --executor tcp://HOST:PORT of a dask scheduler")


def _viewer() -> Purpose:
    if missing := _find_missing(("starlette", "uvicorn")):
        return Purpose(
            "the viewer", f"{', '.join(missing)} not installed", "pip install 'wsiseg[view]'"
        )
    return Purpose("the viewer", remedy="wsiseg view out")
