"""The fully connected CRF of Kraehenbuehl and Koltun (2011): one function, back ends by name.

`triton` and `torch` sum exactly over a window of blocks, `numba` filters on a permutohedral
lattice, `pydensecrf` is the usual library, for comparison. They share the energy and its
conventions: unary -log(clip(p, 1e-5, 1)), Potts, symmetric normalisation, sums that include the
pixel itself, a fixed number of mean-field iterations from the softmax of the negative unary.
"""

from __future__ import annotations

import importlib
import math
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch

from wsiseg.config import CrfConfig
from wsiseg.errors import DataError, GeometryError, MissingDependencyError
from wsiseg.model.crf.window import MIN_PROBABILITY, TRITON_CLASSES

__all__ = ["BACKENDS", "choose_backend", "refine", "refine_labels", "triton_compiles"]

BACKENDS = {
    "triton": "wsiseg.model.crf.block_triton",
    "torch": "wsiseg.model.crf.block_torch",
    "numba": "wsiseg.model.crf.lattice_field",
    "pydensecrf": "wsiseg.model.crf.pydensecrf_peer",
}
"""Back end -> module, whose `refine_batch` it is (of `numba` also `label_batch`); loaded when first
used."""

_INSTALL = {
    "triton": "pip install triton",
    "numba": "pip install numba",
    "pydensecrf": "pip install 'wsiseg[pydensecrf]'",
}
_BATCH_BYTES = 2 * 2**30

_Refine = Callable[..., torch.Tensor]


def refine(
    probabilities: torch.Tensor,
    image: torch.Tensor,
    config: CrfConfig,
    corner: tuple[int, int] = (0, 0),
) -> torch.Tensor:
    """Q of the dense CRF after `config.iterations` mean-field iterations.

    Parameters
    ----------
    probabilities
        `(B, C, H, W)` float, clipped to [1e-5, 1] and used as they are: the classes need not sum
        to one.
    image
        `(B, 3, H, W)` uint8 RGB on the same device.
    config
        The energy's settings and the back end; `scale` and `band` are `refine_labels`' alone.
    corner
        Place (x, y) of the first pixel, if the image is a crop of a larger one. Crops then agree
        with each other and with the whole, given a margin; both must be multiples of 8, the side
        of the blocks that the windowed back ends cut.

    Returns
    -------
    torch.Tensor
        `(B, C, H, W)` float32 on the device of `probabilities`; sums to one over the classes.

    Raises
    ------
    GeometryError
        If the shapes do not fit together.
    DataError
        If a dtype or device is wrong or a probability is NaN or infinite.
    ConfigError
        If the back end cannot do what is asked (classes, device, too small a deviation).
    MissingDependencyError
        If the back end named is not installed.
    """
    _check(probabilities, image)
    return _refine(probabilities, image, config, corner)


def _refine(
    probabilities: torch.Tensor, image: torch.Tensor, config: CrfConfig, corner: tuple[int, int]
) -> torch.Tensor:
    """`refine` of tensors that were checked."""
    if probabilities.numel() == 0:
        return torch.empty_like(probabilities, dtype=torch.float32)
    backend = choose_backend(config, probabilities)
    run: _Refine = _load(backend).refine_batch
    if backend in ("numba", "pydensecrf"):  # the others have no lattice that the place would move
        run = partial(run, corner=corner)
    with torch.inference_mode():
        values = probabilities.detach().float()
        step = _images_at_once(values)
        parts = [
            run(values[i : i + step], image[i : i + step], config)
            for i in range(0, len(values), step)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def refine_labels(
    probabilities: torch.Tensor,
    image: torch.Tensor,
    config: CrfConfig,
    corner: tuple[int, int] = (0, 0),
    winners: torch.Tensor | None = None,
) -> torch.Tensor:
    """The most probable class of each pixel by the Q of `refine`; of equals the first.

    Classes that no pixel may have (a probability of at most 1e-5 everywhere) are left out: Potts
    messages never raise them over the others, so they take part in nothing.

    Parameters
    ----------
    probabilities, image, config, corner
        As `refine` takes them; `config.scale` and `config.band` save the numba back end work.
    winners
        `(B, H, W)` uint8, each pixel's most probable class before the CRF, if known already.

    Returns
    -------
    torch.Tensor
        `(B, H, W)` uint8 on the device of `probabilities`.

    Raises
    ------
    As `refine` does.
    """
    _check(probabilities, image)
    if probabilities.numel() and choose_backend(config, probabilities) == "numba":
        label: _Refine = _load("numba").label_batch
        return label(probabilities.detach().float(), image, config, corner, winners)
    every = torch.arange(probabilities.shape[1], device=probabilities.device)
    kept = every
    if config.backend != "pydensecrf" and probabilities.numel():  # that is what it is: untouched
        kept = every[probabilities.amax((0, 2, 3)) > MIN_PROBABILITY]
    if len(kept) < 2:
        kept = every
    q = _refine(probabilities[:, kept], image, config, corner)
    return kept[q.argmax(1)].to(torch.uint8)


def choose_backend(config: CrfConfig, probabilities: torch.Tensor) -> str:
    """The back end by name that `refine` uses for these tensors."""
    if config.backend != "auto":
        return config.backend
    if not probabilities.is_cuda:
        return "numba" if find_spec("numba") else "torch"
    # sm_75 and older get a slow path from Triton for these dot products.
    recent = torch.cuda.get_device_capability(probabilities.device) >= (8, 0)
    fits = probabilities.shape[1] <= TRITON_CLASSES
    return "triton" if recent and fits and triton_compiles() else "torch"


def triton_compiles() -> bool:
    """Whether Triton is there, with the C compiler that builds its link to the driver.

    Slim containers have no compiler; on Windows it brings its own.
    """
    compiler = "CC" in os.environ or shutil.which("gcc") or shutil.which("clang")
    return find_spec("triton") is not None and bool(compiler or sys.platform == "win32")


def _load(backend: str) -> Any:
    try:
        return importlib.import_module(BACKENDS[backend])
    except ImportError as error:
        raise MissingDependencyError(
            f"the {backend} CRF is not installed ({error}): {_INSTALL.get(backend, 'reinstall')}"
        ) from error


def _images_at_once(probabilities: torch.Tensor) -> int:
    """Images whose intermediates fit the memory bound together."""
    _, classes, height, width = probabilities.shape
    a_pixel = 128 + 6 * 4 * classes
    return max(1, _BATCH_BYTES // (a_pixel * height * width))


def _check(probabilities: torch.Tensor, image: torch.Tensor) -> None:
    shape, pixels = tuple(probabilities.shape), tuple(image.shape)
    if len(shape) != 4 or shape[1] == 0:
        raise GeometryError(f"probabilities have shape {shape}; (B, C, H, W) with C > 0 is needed")
    if pixels != (shape[0], 3, *shape[2:]):
        raise GeometryError(
            f"image has shape {pixels}; the probabilities' {shape} need {(shape[0], 3, *shape[2:])}"
        )
    if not probabilities.is_floating_point():
        raise DataError(f"probabilities are {probabilities.dtype}; a floating type is needed")
    if image.dtype != torch.uint8:
        raise DataError(f"image is {image.dtype}; torch.uint8 is needed")
    if image.device != probabilities.device:
        raise DataError(
            f"image is on {image.device}, probabilities on {probabilities.device}; move one"
        )
    # A sum is finite only of finite numbers, and takes a tenth of the time of asking each.
    finite = math.isfinite(probabilities.detach().sum())
    if not finite and not bool(torch.isfinite(probabilities).all()):
        first = tuple(torch.nonzero(~torch.isfinite(probabilities))[0].tolist())
        raise DataError(
            f"probabilities[{', '.join(map(str, first))}] is {float(probabilities[first])}; "
            "finite numbers are needed"
        )
