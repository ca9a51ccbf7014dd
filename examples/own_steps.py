"""The steps of `wsiseg annotate` one by one, on one slide, to see what each produces.

Run: python examples/own_steps.py SLIDE OUT
"""

import sys
from pathlib import Path

import numpy as np

from wsiseg.compute import open_executor
from wsiseg.config import Config
from wsiseg.outline import outline_regions
from wsiseg.predict import predict_tiles
from wsiseg.qupath import write_geojson
from wsiseg.stitch import stitch_labels
from wsiseg.tile import tile_slide


def main(slide: str, out: str) -> None:
    """Tile, predict, stitch, outline and export `slide`; print what each step made."""
    config = Config.model_validate({"stitch": {"refine": False}})
    path = Path(out) / "steps.zarr"
    with open_executor("threads") as pool:
        store = tile_slide(slide, path, config, pool)
        mask, mask_mpp, _ = store.read_tissue()
        tissue = mask.sum() * mask_mpp**2 / 1e6
        print(f"{store.grid.rows} x {store.grid.cols} tiles, {tissue:.2f} mm² tissue")
        predict_tiles(path, config, pool)
        print(f"{store.count_tiles()} tiles hold tissue")
        stitch_labels(path, config, pool)
        annotations = outline_regions(path, config, pool)
    shares = np.bincount(store.read_labels(store.grid.box).ravel(), minlength=256)
    for label, name in enumerate(annotations.palette.names):
        regions = sum(region.label == label for region in annotations.regions)
        print(f"{name}: {shares[label] * store.mpp**2 / 1e6:.3f} mm² in {regions} regions")
    print(write_geojson(annotations, Path(out) / "steps.geojson"))


if __name__ == "__main__":
    main(*sys.argv[1:3])
