"""Which class lies where on a synthetic slide: smooth random fields, and the truth that they give.

A field is ``(h, w)`` float32 on nodes every `NODE_UM` µm, read bilinearly in between; a class lies
where its field is above zero. The fields are small, so a slide of any size is planned in one go and
painted strip by strip.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from wsiseg.annotations import BACKGROUND, PALETTES
from wsiseg.atomic import open_atomic
from wsiseg.errors import DataError, GeometryError
from wsiseg.geometry import Size
from wsiseg.kernels import kernel

__all__ = [
    "IMMUNE",
    "MPP",
    "NECROSIS",
    "NODE_PX",
    "NODE_UM",
    "RARE",
    "STROMA",
    "TRUTH_MPP",
    "TUMOR",
    "Layout",
    "Truth",
    "plan_layout",
]

TUMOR, STROMA, IMMUNE, NECROSIS = range(4)
"""Labels, in the order of `PALETTES["bcss"]`."""

MPP = 0.25
"""µm/px of level 0."""
TRUTH_MPP = 0.5
"""µm/px of the truth."""
NODE_UM = 4.0
"""Distance between the nodes of a field, µm."""
NODE_PX = int(NODE_UM / MPP)
"""The same in level-0 pixels."""

_SMALLEST = 256
_MOST_RARE = 0.3  # more would crowd out the other classes
RARE = 0.14
"""Share of the tissue that necrosis covers, and of the rest immune cells."""

Field = NDArray[np.float32]


@dataclass(frozen=True)
class Truth:
    """The class of every pixel of a synthetic slide."""

    labels: NDArray[np.uint8]
    """``(h, w)`` uint8 at `mpp`, pixel for pixel the raster that `Slide.read` gives; 255 = glass,
    tears and lumina."""
    names: tuple[str, ...]
    """Class names in label order."""
    mpp: float
    """µm/px."""

    def save(self, path: str | Path) -> Path:
        """Write as ``.npz``."""
        path = Path(path)
        with open_atomic(path) as file:
            np.savez_compressed(file, labels=self.labels, names=self.names, mpp=self.mpp)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Truth:
        """Read what `save` wrote.

        Raises
        ------
        DataError
            If the file is missing, or no truth.
        """
        try:
            with np.load(path) as data:
                names = tuple(str(name) for name in data["names"])
                return cls(data["labels"], names, float(data["mpp"]))
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{path}: is not the truth of a synthetic slide ({error}); make it with Truth.save"
            ) from error


@dataclass(frozen=True)
class Layout:
    """A planned slide: its truth, and the smooth fields that the paint needs."""

    size: Size
    """Level-0 pixels."""
    truth: Truth
    across: Field
    """Fibres lie along the lines on which this field is constant, µm."""
    along: Field
    """Place along a fibre, µm."""
    stain: Field
    """Slow drift of the staining, about ±1."""


def plan_layout(
    size: Size, rng: np.random.Generator, tissue: bool = True, rare: float = RARE
) -> Layout:
    """Lay out a slide of `size` level-0 pixels; without `tissue` it is blank glass.

    All four classes occur on every slide with tissue: their shares of it are set, not left to
    chance, those of necrosis and immune cells by `rare`. Features shrink with the slide, thin
    strands do not.

    Raises
    ------
    GeometryError
        If a side is shorter than 256 px, or `rare` is not in (0, 0.3].
    """
    if not 0 < rare <= _MOST_RARE:
        raise GeometryError(f"rare is {rare:g}; it must be above 0 and at most {_MOST_RARE:g}")
    if min(size) < _SMALLEST:
        raise GeometryError(
            f"a slide of {size.width} x {size.height} px is too small to hold tissue; "
            f"make both sides at least {_SMALLEST} px"
        )
    shape = (-(-size.height // NODE_PX) + 2, -(-size.width // NODE_PX) + 2)
    feature = float(np.clip(min(size) * MPP / 1800, 0.45, 1.0))
    labels = np.full((-(-size.height // 2), -(-size.width // 2)), BACKGROUND, np.uint8)
    if tissue:
        _draw_labels(_class_fields(shape, feature, rare, rng), NODE_UM / TRUTH_MPP, labels)
    across, along = _fibre_fields(shape, rng)
    truth = Truth(labels, PALETTES["bcss"].names, TRUTH_MPP)
    return Layout(size, truth, across, along, _noise(shape, 1200.0, rng))


def _class_fields(
    shape: tuple[int, int], feature: float, rare: float, rng: np.random.Generator
) -> Field:
    """``(5, h, w)``: glass, necrosis, immune, strand, tumour, the first above zero wins."""
    tissue = _tissue_field(shape, feature, rng)
    inside = tissue > 0
    nests = _noise(shape, 520 * feature, rng) + 0.15 * _noise(shape, 90.0, rng)
    tumour = _above(nests, inside, 0.56)
    deep = tumour + 0.35 * _noise(shape, 240 * feature, rng)
    necrosis = np.minimum(_above(deep, inside, rare), tumour - 0.1)
    # Lymphocytes crowd where tumour and stroma meet.
    edge = _noise(shape, 300 * feature, rng) - 0.9 * np.abs(tumour)
    immune = _above(np.asarray(edge, np.float32), inside & (necrosis <= 0), rare)
    strand = _ridge(_noise(shape, 420 * feature, rng), _noise(shape, 250.0, rng) * 5 + 16)
    glass = np.maximum(-tissue, _opening_field(shape, feature, inside, rng))
    return np.stack([glass, necrosis, immune, strand, tumour])


def _tissue_field(shape: tuple[int, int], feature: float, rng: np.random.Generator) -> Field:
    y, x = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij")
    outline = 0.30 * _noise(shape, 800 * feature, rng) + 0.05 * _noise(shape, 120 * feature, rng)
    piece = 1.0 - (np.abs(x) ** 4 + np.abs(y) ** 4) + outline
    # The scanner's frame is cut wider than the tissue.
    frame = 8 * (0.95 - np.maximum(np.abs(x), np.abs(y))) + 0.6 * outline
    inside = _above(np.asarray(piece, np.float32), np.ones(shape, bool), 0.68)
    return np.asarray(np.minimum(inside, frame), np.float32)


def _opening_field(
    shape: tuple[int, int], feature: float, inside: NDArray[np.bool_], rng: np.random.Generator
) -> Field:
    """Above zero in tears (long and thin) and lumina (round)."""
    width = 12 * _noise(shape, 500 * feature, rng) - 8
    tear = _ridge(_noise(shape, 900 * feature, rng), width)
    return np.maximum(tear, _above(_noise(shape, 260 * feature, rng), inside, 0.035))


def _fibre_fields(shape: tuple[int, int], rng: np.random.Generator) -> tuple[Field, Field]:
    angle = rng.uniform(0, np.pi)
    y, x = np.meshgrid(*(np.arange(n, dtype=np.float32) * NODE_UM for n in shape), indexing="ij")
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    wave = 55 * _noise(shape, 330.0, rng) + 4 * _noise(shape, 60.0, rng)
    shift = 30 * _noise(shape, 330.0, rng)
    return c * x + s * y + wave, c * y - s * x + shift


def _noise(shape: tuple[int, int], wavelength_um: float, rng: np.random.Generator) -> Field:
    """Smooth noise of mean 0 and variance 1, with features about half a `wavelength_um` wide."""
    white = rng.standard_normal(shape, dtype=np.float32)
    smooth = gaussian_filter(white, wavelength_um / NODE_UM / 5, mode="wrap")
    return np.asarray((smooth - smooth.mean()) / smooth.std(), np.float32)


def _above(field: Field, inside: NDArray[np.bool_], share: float) -> Field:
    """`field` shifted so that it is above zero on `share` of `inside`."""
    return field - np.float32(np.quantile(field[inside], 1 - share))


def _ridge(field: Field, half_width_um: Field) -> Field:
    """Above zero within `half_width_um` of the lines on which `field` is zero."""
    dy, dx = np.gradient(field, NODE_UM)
    slope = np.hypot(dx, dy)
    # Where the field is flat a line would swell to a lake.
    slope = np.maximum(slope, 0.6 * slope.mean())
    return np.asarray(half_width_um - np.abs(field) / slope, np.float32)


@kernel
def _draw_labels(fields, step, labels):  # type: ignore[no-untyped-def]  # numba infers the types
    order = np.array([255, 3, 2, 1, 0], np.uint8)
    for i in range(labels.shape[0]):
        y = (i + 0.5) / step
        top = int(y)
        v = np.float32(y - top)
        for j in range(labels.shape[1]):
            x = (j + 0.5) / step
            left = int(x)
            u = np.float32(x - left)
            labels[i, j] = 1
            for k in range(5):
                f = fields[k]
                upper = f[top, left] * (1 - u) + f[top, left + 1] * u
                lower = f[top + 1, left] * (1 - u) + f[top + 1, left + 1] * u
                if upper * (1 - v) + lower * v > 0:
                    labels[i, j] = order[k]
                    break
