"""Paint a laid-out slide as haematoxylin and eosin would: strip by strip, without seams.

Every pixel depends on its own place only, so a slide painted in strips equals the slide painted
whole. Stains add up as optical densities and come out as light by Beer and Lambert's law.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from wsiseg.demo.layout import NODE_PX, Field, Layout
from wsiseg.demo.nuclei import Nuclei
from wsiseg.kernels import kernel

__all__ = ["Brush", "make_brush", "paint_strip"]

_SIDE = 1024  # of the textures; a power of two, so that they wrap with a bit mask
_DENSITY_STEP = 1 / 512
_DENSEST = 4.0

_HAEMATOXYLIN = (0.62, 0.69, 0.37)
_EOSIN = (0.10, 0.91, 0.40)
_GLASS = (243.0, 242.0, 244.0)


@dataclass(frozen=True)
class Brush:
    """What makes the slides look different: the batch of stain, and the textures."""

    light: NDArray[np.float32]
    """``(3, n)`` float32: light through each density, step `_DENSITY_STEP`, times the glass."""
    stains: NDArray[np.float32]
    """``(2, 3)`` float32: density of red, green and blue per unit of either stain."""
    fibre: Field
    """``(1024, 1024)`` float32, about ±1, fine across and long along; wraps around."""
    cloud: Field
    """The same, soft blotches."""
    grain: Field
    """The same, fine grain."""
    noise: Field
    """The sensor's noise, grey levels."""


def make_brush(rng: np.random.Generator) -> Brush:
    """Draw a batch of stain and the textures."""
    stains = np.array([_HAEMATOXYLIN, _EOSIN]) * rng.uniform(0.94, 1.06, (2, 3))
    stains *= rng.uniform(0.9, 1.12, (2, 1)) / np.linalg.norm(stains, axis=1, keepdims=True)
    density = np.arange(0, _DENSEST, _DENSITY_STEP)
    light = np.outer(_GLASS, np.exp(-density))
    fibre = _texture(rng, 2.6, 70.0) + 0.6 * _texture(rng, 7.0, 120.0)
    return Brush(
        light=light.astype(np.float32),
        stains=stains.astype(np.float32),
        fibre=fibre.astype(np.float32),
        cloud=_texture(rng, 22.0, 22.0),
        grain=_texture(rng, 2.2, 2.2),
        noise=2.0 * rng.standard_normal((_SIDE, _SIDE), dtype=np.float32),
    )


def _texture(rng: np.random.Generator, down: float, across: float) -> Field:
    white = rng.standard_normal((_SIDE, _SIDE), dtype=np.float32)
    smooth = gaussian_filter(white, (down, across), mode="wrap")
    return np.asarray(smooth / smooth.std(), np.float32)


def paint_strip(
    layout: Layout, nuclei: Nuclei, brush: Brush, top: int, bottom: int
) -> NDArray[np.uint8]:
    """Rows ``top .. bottom`` of level 0: ``(bottom - top, width, 3)`` uint8 RGB."""
    # One row and column more on every side, which the blur of the lens uses up.
    density = np.zeros((2, bottom - top + 2, layout.size.width + 2), np.float32)
    fields = np.stack([layout.across, layout.along, layout.stain])
    textures = np.stack([brush.fibre, brush.cloud, brush.grain])
    _stain_ground(density, layout.truth.labels, fields, textures, top - 1, NODE_PX)
    near = np.stack(nuclei.between(top - 1, bottom + 1), axis=1)
    _stain_nuclei(density, near, brush.cloud, brush.grain, top - 1)
    out = np.empty((bottom - top, layout.size.width, 3), np.uint8)
    _develop(density, brush.stains, brush.light, brush.noise, top, out)
    return out


@kernel
def _interpolate(field, row, col, v, u):  # type: ignore[no-untyped-def]  # numba infers the types
    """Interpolate bilinearly, `v` below `row` and `u` to the right of `col`, both in [0, 1)."""
    return (
        field[row, col] * ((1 - v) * (1 - u)) + field[row, col + 1] * ((1 - v) * u)
        + field[row + 1, col] * (v * (1 - u)) + field[row + 1, col + 1] * (v * u)
    )  # fmt: skip


@kernel
def _stain_ground(density, labels, fields, textures, top, node):  # type: ignore[no-untyped-def]  # numba infers the types
    fibre, cloud, grain = textures[0], textures[1], textures[2]
    for i in range(density.shape[1]):
        y = top + i
        fy = max(np.float32(0), np.float32(y + 0.5) / np.float32(node))
        row = int(fy)
        v = fy - row
        for j in range(density.shape[2]):
            x = j - 1
            blotch = cloud[y & 1023, x & 1023]
            # A class ends in a ragged edge, about 2 µm to and fro, as cells do.
            ly = y + int(6 * cloud[(y * 4 + 300) & 1023, (x * 4) & 1023])
            lx = x + int(6 * cloud[(y * 4) & 1023, (x * 4 + 300) & 1023])
            ly = min(max(ly // 2, 0), labels.shape[0] - 1)
            lx = min(max(lx // 2, 0), labels.shape[1] - 1)
            label = labels[ly, lx]
            if label == 255:
                continue
            fx = max(np.float32(0), np.float32(x + 0.5) / np.float32(node))
            col = int(fx)
            u = fx - col
            drift = _interpolate(fields[2], row, col, v, u)
            fine = grain[y & 1023, x & 1023]
            if label == 1:
                across = _interpolate(fields[0], row, col, v, u)
                along = _interpolate(fields[1], row, col, v, u)
                # Six texels a µm across, four along; // would floor, int() repeats a texel at zero.
                strand = fibre[int(across * 6 + 6000) & 1023, int(along * 4 + 6000) & 1023]
                eosin = 0.34 + 0.17 * strand + 0.04 * blotch
                haematoxylin = 0.02 + 0.01 * blotch
            elif label == 0:
                eosin = 0.33 + 0.05 * blotch + 0.04 * fine
                haematoxylin = 0.17 + 0.04 * blotch
            elif label == 2:
                eosin = 0.17 + 0.05 * blotch + 0.03 * fine
                haematoxylin = 0.13 + 0.03 * blotch
            else:
                smudge = cloud[(2 * y) & 1023, (2 * x + 517) & 1023]
                eosin = 0.43 + 0.08 * blotch + 0.07 * smudge + 0.05 * fine
                haematoxylin = 0.07 + 0.04 * smudge
            density[0, i, j] = max(haematoxylin, 0.0) * (1 + 0.06 * drift)
            density[1, i, j] = max(eosin, 0.03) * (1 + 0.10 * drift)


@kernel
def _stain_nuclei(density, nuclei, cloud, grain, top):  # type: ignore[no-untyped-def]  # numba infers the types
    rows, cols = density.shape[1], density.shape[2]
    for n in range(nuclei.shape[0]):
        cy, cx, long, short, angle, dark, pale = nuclei[n]
        c, s = np.cos(angle), np.sin(angle)
        reach = 1.25 * long + 2
        for i in range(max(0, int(cy - reach) - top), min(rows, int(cy + reach) + 2 - top)):
            y = top + i
            for j in range(max(0, int(cx - reach) + 1), min(cols, int(cx + reach) + 3)):
                x = j - 1
                dy, dx = y + 0.5 - cy, x + 0.5 - cx
                a, b = (c * dx + s * dy) / long, (c * dy - s * dx) / short
                bump = 0.10 * cloud[int(2 * y + 7 * cx) & 1023, int(2 * x + 5 * cy) & 1023]
                radius = np.sqrt(a * a + b * b) + bump
                if radius > 1.2:
                    continue
                edge = min(1.0, (1.2 - radius) * 4)
                chromatin = 1 + 0.11 * grain[y & 1023, x & 1023]
                middle = 1 - pale * max(0.0, 1 - radius * radius)
                value = dark * edge * chromatin * middle
                # Nuclei that overlap do not add up: the darker one is seen, in whatever order.
                density[0, i, j] = max(density[0, i, j], np.float32(value))


@kernel
def _develop(density, stains, light, noise, top, out):  # type: ignore[no-untyped-def]  # numba infers the types
    last = light.shape[1] - 1
    for i in range(out.shape[0]):
        y = top + i
        for j in range(out.shape[1]):
            amount0 = amount1 = np.float32(0)
            for di in range(3):
                for dj in range(3):
                    weight = np.float32((2 - abs(di - 1)) * (2 - abs(dj - 1))) / np.float32(16)
                    amount0 += weight * density[0, i + di, j + dj]
                    amount1 += weight * density[1, i + di, j + dj]
            for k in range(3):
                at = (amount0 * stains[0, k] + amount1 * stains[1, k]) * np.float32(512)
                value = light[k, min(int(at), last)]
                value += noise[(y + 411 * k) & 1023, (j + 97 * k) & 1023]
                out[i, j, k] = np.uint8(min(max(value, np.float32(0)), np.float32(255)))
