"""How often labels change across tile and block borders, compared with other grids.

    python benchmarks/seams.py SLIDE [--stride 112] [--refine] [--shifts 7] [--checkpoint tissue]

The slide is annotated several times, each time with the grid of tiles shifted a little to the right
and down, so that no border of one grid is a border of another. The rate of label changes on a
border (the share of neighbouring pixel pairs, both in tissue, whose labels differ) is compared with
the rate on the same line under the other grids, which cancels out the tissue itself. 1 means that
borders are invisible. The standard error is over the lines. For comparison, the peers' way: tiles
side by side, each enlarged and labelled on its own.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsiseg.annotations import BACKGROUND
from wsiseg.compute import open_executor
from wsiseg.config import Config
from wsiseg.grid import TileGrid
from wsiseg.predict import predict_tiles
from wsiseg.stitch import stitch_labels
from wsiseg.store import SlideStore
from wsiseg.tile import tile_slide
from wsiseg.tissue import sample_tissue

_STEP = 16  # raster pixels of a tissue-mask pixel: grids are laid whole steps apart
_MARK = "ab" * 32

Labels = NDArray[np.uint8]


def lay_grid(base: SlideStore, path: Path, shift: int) -> SlideStore:
    """Make a store of the same pixels and tissue, shifted by `shift` px to the right and down."""
    own = base.grid
    grid = TileGrid(own.height + shift, own.width + shift, own.tile, own.stride, own.block)
    store = SlideStore.create(path, grid, base.mpp, base.slide)
    tissue = sample_tissue(base, own.box)[::_STEP, ::_STEP]
    mask = np.pad(tissue, ((shift // _STEP, 0), (shift // _STEP, 0)))
    store.write_tissue(mask, _STEP * base.mpp, _MARK)
    for block in range(grid.n_blocks):
        box = grid.block_box(block)
        moved = box._replace(x=box.x - shift, y=box.y - shift)
        store.write_image(block, base.read_image(moved))
        store.mark_done("tile", block, _MARK)
    return store


def label_like_peers(store: SlideStore) -> Labels:
    """Label tiles side by side, each enlarged and labelled on its own."""
    grid = store.grid
    step = grid.tile // grid.stride
    out = np.full((grid.height + grid.tile, grid.width + grid.tile), BACKGROUND, np.uint8)
    for row in range(0, grid.rows, step):
        for col in range(0, grid.cols, step):
            cams, logits = store.read_cams(slice(row, row + 1), slice(col, col + 1))
            if np.isnan(logits).any():
                continue
            gate = 1 / (1 + np.exp(-logits[0, 0])) >= 0.25
            if gate.any():
                cam = np.where(gate[:, None, None], cams[0, 0].astype(np.float32), -1e9)
                factor = grid.tile / cam.shape[-1]
                zoomed = [
                    ndimage.zoom(one, factor, order=1, grid_mode=True, mode="nearest")
                    for one in cam
                ]
                out[grid.tile_box(row, col).slices()] = np.argmax(zoomed, axis=0)
    return out[: grid.height, : grid.width]


def label_shifted(
    base: SlideStore, config: Config, pool: Executor, shifts: list[int]
) -> tuple[list[Labels], list[Labels]]:
    """Return the maps of each grid, ours and the peers', shifted back to the base's pixels."""
    ours, peers = [], []
    for shift in shifts:
        with tempfile.TemporaryDirectory() as folder:
            store = lay_grid(base, Path(folder) / "s.zarr", shift)
            predict_tiles(store.location, config, pool)
            stitch_labels(store.location, config, pool)
            box = store.grid.box
            ours.append(store.read_labels(box)[shift:, shift:])
            peers.append(label_like_peers(store)[shift:, shift:])
    return ours, peers


def count_changes(labels: Labels) -> NDArray[np.int64]:
    """Count changes and pairs in tissue ``(H, 2)`` between each row and the one above."""
    above, below = labels[:-1], labels[1:]
    both = (above != BACKGROUND) & (below != BACKGROUND)
    changes = (both & (above != below)).sum(axis=1)
    return np.stack([np.append(0, changes), np.append(0, both.sum(axis=1))], axis=1)


def compare(
    maps: list[Labels],
    shifts: list[int],
    is_border: Callable[[NDArray[np.intp]], NDArray[np.bool_]],
) -> str:
    """Divide the rate on the borders of each grid by the rate there under the other grids."""
    own, other = [], []
    for turn in (False, True):
        counts = np.stack([count_changes(one.T if turn else one) for one in maps])
        lines = np.arange(counts.shape[1])
        borders = np.stack([is_border(lines + shift) & (lines > 0) for shift in shifts])
        for index, here in enumerate(borders):
            rest = np.delete(np.arange(len(maps)), index)
            for line in np.flatnonzero(here):
                free = [other for other in rest if not borders[other, line]]
                if free and counts[index, line, 1]:
                    own.append(counts[index, line])
                    other.append(counts[free, line].mean(axis=0))
    on, off = np.array(own, float), np.array(other)
    rate, inside = on[:, 0].sum() / on[:, 1].sum(), off[:, 0].sum() / off[:, 1].sum()
    excess = (on[:, 0] - rate / inside * off[:, 0]) / off[:, 0].sum()
    error = np.sqrt((excess**2).sum())
    return (
        f"{rate / inside:.3f} +- {error:.3f} | {len(on):,} | {on[:, 0].sum():,.0f} | "
        f"{off[:, 0].sum():,.0f} | {inside:.5f}"
    )


def main() -> None:
    """Annotate with every grid, count changes, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--stride", type=int, default=112)
    parser.add_argument("--refine", action="store_true")
    parser.add_argument("--shifts", type=int, default=7)
    parser.add_argument("--checkpoint", default="tissue")
    parser.add_argument("--context", type=int, help="predict.context, if not the encoder's own")
    given = parser.parse_args()
    config = Config.model_validate(
        {
            "tile": {"stride": given.stride},
            "predict": {"checkpoint": given.checkpoint, "context": given.context},
            "stitch": {"refine": given.refine},
        }
    )
    shifts = [given.stride * i // given.shifts // _STEP * _STEP for i in range(given.shifts)]
    with tempfile.TemporaryDirectory() as folder, open_executor("threads") as pool:
        base = tile_slide(given.slide, Path(folder) / "base.zarr", config, pool)
        ours, peers = label_shifted(base, config, pool, shifts)
        stride, tile, block = base.grid.stride, base.grid.tile, base.grid.block
    print(f"grids shifted by {shifts} px; changes on borders, and there under other grids (mean)\n")
    print("| map | borders | ratio | lines | changes | without a border | rate |")
    print("|---|---|---|---|---|---|---|")
    name = f"wsiseg, stride {stride}"
    inner = compare(ours, shifts, lambda at: (at % stride == 0) & (at % block != 0))
    print(f"| {name} | tiles | {inner} |")
    print(f"| {name} | blocks | {compare(ours, shifts, lambda at: at % block == 0)} |")
    print(f"| tile by tile | tiles | {compare(peers, shifts, lambda at: at % tile == 0)} |")


if __name__ == "__main__":
    main()
