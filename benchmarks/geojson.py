"""Write and lint 100,000 regions, compared with the json module in the same run.

    python benchmarks/geojson.py [regions]

CPU seconds, as the machine may be shared; memory is the process's peak above what the regions
themselves take. The json module writes rounded coordinates, without ids, checks and repair;
`write_geojson` does all of these.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from wsiseg.annotations import PALETTES, Annotations, Region
from wsiseg.qupath import lint_geojson, write_geojson

ROUNDS = 3
STEPS = 18  # a staircase of this many steps has 39 points, near the mean of a fine tissue map


def make_regions(count: int) -> tuple[Region, ...]:
    """Make staircase-shaped regions of four classes, side by side."""
    rng = np.random.default_rng(0)
    x = np.repeat(np.arange(STEPS + 1), 2)[1:-1]
    regions = []
    for number in range(count):
        heights = np.cumsum(rng.integers(1, 3, STEPS))
        top = np.stack([x, np.repeat(heights, 2)], axis=1)
        ring = np.concatenate([[[0, 0]], top, [[STEPS, 0], [0, 0]]])
        ring += (number % 300 * 60, number // 300 * 60)
        area = int(heights.sum())
        regions.append(Region(number % 4, ring.astype(np.int32), (), area, 0.87))
    return tuple(regions)


def make_features(annotations: Annotations) -> Iterator[dict[str, Any]]:
    """Return the features as plain Python, for the json module."""
    scale = np.array(annotations.scale)
    for number, region in enumerate(annotations.regions):
        name = annotations.palette.names[region.label]
        yield {
            "type": "Feature",
            "id": f"581aee56-3644-5698-b093-{number:012x}",
            "geometry": {
                "type": "Polygon",
                "coordinates": [np.round(region.exterior * scale, 2).tolist()],
            },
            "properties": {
                "objectType": "annotation",
                "name": f"{name} {number}",
                "classification": {
                    "name": name,
                    "color": annotations.palette.colors[region.label],
                },
                "isLocked": True,
                "measurements": {
                    "Area mm^2": annotations.area_um2(region) / 1e6,
                    "Mean confidence": region.confidence,
                },
            },
        }


def dump_by_json(annotations: Annotations, path: Path) -> None:
    """Write the whole collection by `json.dump`, as usual."""
    with path.open("w") as file:
        whole = {"type": "FeatureCollection", "features": list(make_features(annotations))}
        json.dump(whole, file, separators=(",", ":"))


def stream_by_json(annotations: Annotations, path: Path) -> None:
    """Write feature by feature by `json.dumps`, the json module's fastest way."""
    with path.open("w") as file:
        file.write('{"type":"FeatureCollection","features":[')
        for number, feature in enumerate(make_features(annotations)):
            file.write("," * bool(number) + json.dumps(feature, separators=(",", ":")))
        file.write("]}")


def measure(work: Callable[[], object]) -> tuple[float, float]:
    """Measure CPU seconds, and the growth of the process's peak memory in MB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    work()
    seconds = time.process_time() - started
    return seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def compare(annotations: Annotations, folder: Path) -> None:
    """Print a row per writer: medians of alternating rounds."""
    ours, others = folder / "a.geojson", folder / "b.geojson"
    ways: dict[str, Callable[[], object]] = {
        "write_geojson": lambda: write_geojson(annotations, ours),
        "lint_geojson of it": lambda: lint_geojson(ours),
        "json.dumps, feature by feature": lambda: stream_by_json(annotations, others),
        "json.dump": lambda: dump_by_json(annotations, others),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(ROUNDS):  # by growing memory: a peak that was reached before does not show
        for name, work in ways.items():
            found[name].append(measure(work))
    base = median(seconds for seconds, _ in found["write_geojson"])
    for name, results in found.items():
        seconds = median(seconds for seconds, _ in results)
        print(
            f"| {annotations.scale[0]:g} | {name} | {seconds:.2f} | {seconds / base:.1f} | "
            f"{results[0][1]:.0f} |"
        )


def main() -> None:
    """Print the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    regions = make_regions(count)
    vertices = sum(len(region.exterior) for region in regions)
    print(f"{count:,} regions, {vertices:,} vertices; medians of {ROUNDS} rounds")
    print("| scale | writer | CPU s | against write_geojson | MB more |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        # What is compiled once, and kept, is compiled before.
        few = Annotations("a", PALETTES["bcss"], regions[:10], (2.0, 2.0), 0.5)
        write_geojson(few, Path(folder, "few.geojson"))
        for scale in (2.0, 1.9775):
            compare(Annotations("a", PALETTES["bcss"], regions, (scale, scale), 0.5), Path(folder))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak of the whole process, json.dump in it: {peak:.0f} MB")


if __name__ == "__main__":
    main()
