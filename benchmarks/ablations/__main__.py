"""Ablations with intervals: the start and number of prototypes, and the resolution of the CAM.

    python benchmarks/ablations synthetic                  encoder tiny, on synthetic slides
    python benchmarks/ablations real ATLAS CRC FOLDER      encoder small, on real tiles

Each seed trains a head on patch labels of its own slides and is scored on other slides, on CAMs
without the CRF. With `labels given`, only the classes that a picture shows are allowed; with `none
given`, all compete. On synthetic slides the truth is known. Real tiles have no masks, so tiles of
one slide that show one class each are joined along a random wavy line: the map of such a mosaic is
known. CRC's tiles come from another source, without patients. Intervals (95 %) resample slides
(CRC: mosaics), all seeds of a slide together, with the same draws for every row, so that
differences are paired. Learning rate, pooling and batches are those of configs/tissue.yaml and of
the demo; the diversity weight and everything else were set before scoring, and not tuned after.

FOLDER holds three encoders or more of pipelines/tile_encoder.py --without 0 to 4: each seed holds
out the slides of one fold, which the encoder of that fold never saw.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from arms import run
from data import SEEDS, real, synthetic
from results import gather, show


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=("synthetic", "real"))
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--keep", type=Path, default=Path("ablations"), help="what is done")
    parser.add_argument("--arms", nargs="*", default=(), help="rows of the table; all if none")
    parser.add_argument("--workers", type=int, default=len(SEEDS), help="seeds at a time")
    given = parser.parse_args()
    given.keep.mkdir(parents=True, exist_ok=True)
    encoder = "tiny" if given.data == "synthetic" else "small"
    if given.data == "synthetic":
        common = {"epochs": 12, "batch_size": 8, "contrast_shrink": 4}
        cases, names = synthetic(SEEDS, given.keep)
    else:
        common = {
            "epochs": 8, "batch_size": 32, "pooling": "smooth", "turns": False,
            "contrast_weight": 0.0, "struct_weight": 0.0, "background": ["Glass"],
        }  # fmt: skip
        cases, names = real(SEEDS, *given.folders)
    tissues = len(names) - len(common.get("background", ()))
    with ProcessPoolExecutor(given.workers) as pool:
        parts = [
            pool.submit(run, given.keep, encoder, seed, case, common, names, tissues, given.arms)
            for seed, case in cases.items()
        ]
        for part in parts:
            part.result()
    show(gather(given.keep, encoder))


if __name__ == "__main__":
    main()
