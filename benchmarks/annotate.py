"""The whole job on one slide, compared with only reading the same tiles.

Steps overlap: for each, the time until its last block was done is given.

The limit is a cost of every pipeline: openslide-python reading every tissue tile once, in one
thread. Ratios are to this, in the same run. Peak memory is that of a process which only annotates.

Run: python benchmarks/annotate.py SLIDE [--repeat 3] [--executor threads] [--set ...]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import openslide

from wsiseg.config import Config, parse_config
from wsiseg.store import SlideStore
from wsiseg.tissue import kept_tiles

CHILD = """
import json, sys, time
from wsiseg.run import annotate
from wsiseg.config import Config
slide, out, config, executor = sys.argv[1:]
clock, stages = time.perf_counter(), {}
def progress(job, step, done, total):
    if done >= total:
        stages[step] = time.perf_counter() - clock
config = Config.model_validate_json(config)
(result,) = annotate(slide, out, config, executor=executor, progress=progress)
assert result.status == "done", result.error
print(json.dumps({"stages": stages, "seconds": result.seconds, "tiles": result.tiles}))
"""


def annotate_once(slide: Path, out: Path, config: Config, executor: str) -> dict[str, object]:
    """Annotate in a separate process: seconds until each step ended and in total, peak memory."""
    command = [
        sys.executable,
        "-c",
        CHILD,
        str(slide),
        str(out),
        config.model_dump_json(),
        executor,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"annotate failed with status {status}")
    return json.loads(said) | {"peak_mb": usage.ru_maxrss / 1024}


def read_tiles(slide: Path, store: SlideStore, config: Config) -> float:
    """Measure openslide-python on the same tiles, one by one, resized by Pillow, in seconds."""
    tiles = np.argwhere(kept_tiles(store, config.tissue))
    scale = store.mpp / store.slide["mpp"][0]
    start = time.perf_counter()
    with openslide.OpenSlide(slide) as opened:
        level = opened.get_best_level_for_downsample(scale * 1.01)
        side = round(store.grid.tile * scale / opened.level_downsamples[level])
        for row, col in tiles:
            corner = (
                round(col * store.grid.stride * scale),
                round(row * store.grid.stride * scale),
            )
            image = opened.read_region(corner, level, (side, side)).convert("RGB")
            image.resize((store.grid.tile, store.grid.tile))
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--executor", default="threads")
    parser.add_argument("--config", type=json.loads, default={}, help="settings as JSON")
    given = parser.parse_args()
    config = parse_config(given.config, Config, "--config")
    runs, reads = [], []
    for _ in range(given.repeat):
        with tempfile.TemporaryDirectory() as out:
            runs.append(annotate_once(given.slide, Path(out), config, given.executor))
            (path,) = Path(out).glob("slides/*.zarr")
            reads.append(read_tiles(given.slide, SlideStore(path), config))
    limit = statistics.median(reads)
    print(f"{given.slide.name}: {runs[0]['tiles']} tiles, {given.executor}, {os.cpu_count()} cores")
    print("| done | after s | of reading alone |\n|---|---|---|")
    print(f"| openslide-python, tile by tile, one thread | {limit:.1f} | 1.00 |")
    names = [name for name in runs[0]["stages"] if name != "slides"]
    rows = {name: [run["stages"][name] for run in runs] for name in names}
    rows["the whole job"] = [run["seconds"] for run in runs]
    for name, seconds in rows.items():
        median = statistics.median(seconds)
        print(f"| {name} | {median:.1f} | {median / limit:.2f} |")
    print(f"\nPeak memory: {max(run['peak_mb'] for run in runs):.0f} MB")


if __name__ == "__main__":
    main()
