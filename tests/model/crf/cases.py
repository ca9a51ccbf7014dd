"""Test cases of the dense CRF: five saved ones with exact results, and a maker of small ones."""

from __future__ import annotations

import io
import lzma
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

FOLDER = Path(__file__).parent / "cases"
NAMES = ("p1_sharp", "p2_soft", "p3_fine_jpeg", "p4_c3_pixelnoise", "p5_nonsquare_weak")


class Case(NamedTuple):
    """A saved tile: what goes in, and the mean field summed over the whole tile in float64."""

    probabilities: torch.Tensor  # (1, C, H, W) float32
    image: torch.Tensor  # (1, 3, H, W) uint8
    q: np.ndarray  # (C, H, W) float16
    labels: np.ndarray  # (H, W) uint8, of the unrounded Q
    labels_pydensecrf: np.ndarray


def saved_case(name: str) -> Case:
    """Read one of `NAMES`."""
    with lzma.open(FOLDER / f"{name}.npz.xz") as file:
        arrays = np.load(io.BytesIO(file.read()))
        # Stored as differences along the rows, low bytes apart from high ones: half the size.
        low, high = arrays["probabilities"].astype(np.uint16)
        bits = np.cumsum(low | (high << 8), axis=-1, dtype=np.uint16)
        return Case(
            torch.from_numpy(bits.view(np.float16).astype(np.float32))[None],
            torch.from_numpy(arrays["image"])[None],
            arrays["q"],
            arrays["labels"],
            arrays["labels_pydensecrf"],
        )


def write_case(source: Path, name: str) -> None:
    """Pack a case of the study (`.npz` with `probs`, `q_exact` ...) for `saved_case`."""
    data = np.load(source)
    step = np.diff(data["probs"].view(np.uint16), axis=-1, prepend=np.uint16(0))
    buffer = io.BytesIO()
    np.savez(
        buffer,
        probabilities=np.stack([step & 255, step >> 8]).astype(np.uint8),
        image=np.ascontiguousarray(data["image"].transpose(2, 0, 1)),
        q=data["q_exact"],
        labels=data["labels_exact"],
        labels_pydensecrf=data["labels_pydensecrf"],
    )
    FOLDER.mkdir(exist_ok=True)
    with lzma.open(FOLDER / f"{name}.npz.xz", "wb", preset=9) as file:
        file.write(buffer.getvalue())


def make_case(
    height: int, width: int, classes: int, seed: int = 0, noise: float = 8.0, cell: int = 10
) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities `(1, C, H, W)` and an image with the colours of H&E that half agrees with them.

    Patches about `cell` pixels wide, each class with its own colour, grain, and a weak unary.
    """
    random = torch.Generator().manual_seed(seed)
    size = (max(2, height // cell), max(2, width // cell))
    field = torch.randn(1, classes, *size, generator=random)
    field = functional.interpolate(field, (height, width), mode="bicubic")
    wrong = torch.randn(1, classes, *size, generator=random)
    wrong = functional.interpolate(wrong, (height, width), mode="bilinear")
    colours = torch.tensor([[150.0, 95, 165], [220, 150, 190], [95, 65, 135], [240, 235, 240]])
    colours = colours.repeat(-(-classes // 4), 1)[:classes]
    image = colours[field[0].argmax(0)].permute(2, 0, 1)
    image = image + noise * torch.randn(3, height, width, generator=random)
    probabilities = (2.0 * field + 1.5 * wrong).softmax(1)
    return probabilities, image.round().clamp(0, 255).to(torch.uint8)[None]
