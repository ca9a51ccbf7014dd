"""How often labels change across tile and block borders, against everywhere else.

    python benchmarks/seams.py SLIDE [--stride 112] [--refine]

The slide is annotated with the tiny model in a folder that is thrown away. A rate is the share of
neighbouring pixel pairs, both in tissue, whose labels differ; a seam shows as a ratio above 1.
Borders of tiles lie every stride; those of blocks are counted apart. Noise: each line's count
varies, so the standard error is taken over the lines. The peer's way, beside it, is a run of tiles
side by side whose CAMs are enlarged and labelled tile by tile.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsiseg.annotations import BACKGROUND
from wsiseg.compute import open_executor
from wsiseg.config import Config
from wsiseg.predict import predict_tiles
from wsiseg.stitch import stitch_labels
from wsiseg.store import SlideStore
from wsiseg.tile import tile_slide


def count_changes(labels: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Changes and pairs between each row and the one above, ``(H,)`` each; tissue only."""
    above, below = labels[:-1], labels[1:]
    both = (above != BACKGROUND) & (below != BACKGROUND)
    changes = (both & (above != below)).sum(axis=1)
    return np.append(0, changes), np.append(0, both.sum(axis=1))


def compare(labels: NDArray[np.uint8], side: int, apart: int = 0) -> str:
    """The rate on lines every `side` px against the others; lines every `apart` px left out."""
    on, off = np.zeros(2), np.zeros(2)
    lines: list[float] = []
    for turned in (labels, labels.T):
        at = np.arange(len(turned))
        border = at % side == 0
        kept = at % apart != 0 if apart else at > 0
        counts = np.stack(count_changes(turned))
        on += counts[:, border & kept].sum(axis=1)
        off += counts[:, ~border & kept].sum(axis=1)
        share = counts[1] > 0
        lines += (counts[0, border & kept & share] / counts[1, border & kept & share]).tolist()
    rate, inside = on[0] / on[1], off[0] / off[1]
    error = np.std(lines) / np.sqrt(len(lines)) / inside
    return f"{rate / inside:.3f} +- {error:.3f} | {on[0]:,.0f} of {on[1]:,.0f} | {inside:.5f}"


def label_like_peers(store: SlideStore) -> NDArray[np.uint8]:
    """Tiles side by side, each enlarged and labelled by itself."""
    grid = store.grid
    step = grid.tile // grid.stride
    out = np.full((grid.height + grid.tile, grid.width + grid.tile), BACKGROUND, np.uint8)
    for row in range(0, grid.rows, step):
        for col in range(0, grid.cols, step):
            cams, logits = store.read_cams(slice(row, row + 1), slice(col, col + 1))
            if np.isnan(logits).any():
                continue
            gate = 1 / (1 + np.exp(-logits[0, 0])) >= 0.25
            cam = np.where(gate[:, None, None], cams[0, 0].astype(np.float32), -np.inf)
            if gate.any():
                factor = grid.tile / cam.shape[-1]
                zoomed = [ndimage.zoom(c, factor, order=1, grid_mode=True, mode="nearest")
                          if np.isfinite(c).all() else np.full((grid.tile,) * 2, -np.inf)
                          for c in cam]  # fmt: skip
                box = grid.tile_box(row, col)
                out[box.slices()] = np.argmax(zoomed, axis=0)
    return out[: grid.height, : grid.width]


def main() -> None:
    """Annotate, count, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--stride", type=int, default=112)
    parser.add_argument("--refine", action="store_true")
    given = parser.parse_args()
    config = Config.model_validate(
        {"tile": {"stride": given.stride}, "stitch": {"refine": given.refine}}
    )
    with tempfile.TemporaryDirectory() as folder, open_executor("threads") as pool:
        path = Path(folder) / "s.zarr"
        tile_slide(given.slide, path, config, pool)
        predict_tiles(path, config, pool)
        stitch_labels(path, config, pool)
        store = SlideStore(path)
        labels, peer = store.read_labels(store.grid.box), label_like_peers(store)
    block, stride, tile = store.grid.block, store.grid.stride, store.grid.tile
    print(
        "| map | borders | ratio | changes of pairs there | rate elsewhere |\n|---|---|---|---|---|"
    )
    print(f"| wsiseg, stride {stride} | tiles | {compare(labels, stride, block)} |")
    print(f"| wsiseg, stride {stride} | blocks | {compare(labels, block)} |")
    print(f"| tile by tile | tiles | {compare(peer, tile)} |")


if __name__ == "__main__":
    main()
