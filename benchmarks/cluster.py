"""What dask costs: over threads on one slide, and a block as the number of slides grows.

The limit here is the thread pool, which has no scheduler, no processes and no messages. A slide is
annotated by both in turn, workers and compiled code warm; ratios are of wall time, as the cores
are the same. Then blocks that do nothing, the task counts of 1 to 1,000 slides: tasks/s, and the
client's memory, which must not grow.

Run: python benchmarks/cluster.py [--side 20000] [--repeat 3] [--workers 1 2]
     [--slides 1 10 100 1000]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from concurrent.futures import Executor
from pathlib import Path

import psutil

from wsiseg.annotate import Job, OutputTree, annotate_slide
from wsiseg.compute import Step, open_executor, run_steps
from wsiseg.config import Config
from wsiseg.demo.synthesis import synthesize_slide

BLOCKS = 36  # of each of three steps: a slide of 20,000 x 20,000 px


def annotate_once(slide: Path, executor: Executor, config: Config) -> tuple[float, float]:
    """Seconds of a fresh annotation: wall, and CPU with that of the workers."""
    with tempfile.TemporaryDirectory() as out:
        wall, cpu = time.perf_counter(), cpu_seconds()
        result = annotate_slide(Job(slide, slide.stem), OutputTree(Path(out)), config, executor)
        assert result.status == "done", result.error
        return time.perf_counter() - wall, cpu_seconds() - cpu


def cpu_seconds() -> float:
    """CPU seconds of this process and its living children."""
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def compare(slide: Path, warm: Path, workers: int, repeat: int) -> None:
    """Print one row: threads and dask in turn."""
    config = Config()
    found: dict[str, list[tuple[float, float]]] = {"threads": [], "dask": []}
    with open_executor("threads", workers) as threads, open_executor("dask", workers) as dask:
        pools = {"threads": threads, "dask": dask}
        for executor in pools.values():
            annotate_once(warm, executor, config)
        for _ in range(repeat):
            for kind, executor in pools.items():
                found[kind].append(annotate_once(slide, executor, config))
    wall = {kind: statistics.median(run[0] for run in runs) for kind, runs in found.items()}
    cpu = {kind: statistics.median(run[1] for run in runs) for kind, runs in found.items()}
    print(
        f"| {workers} | {wall['threads']:.1f} | {wall['dask']:.1f} | "
        f"{wall['dask'] / wall['threads']:.2f} | {cpu['threads']:.1f} | {cpu['dask']:.1f} | "
        f"{cpu['dask'] / cpu['threads']:.2f} |",
        flush=True,
    )


def nothing(block: int) -> None:
    """A block that costs only its dispatch."""


def neighbours(block: int) -> list[tuple[str, int]]:
    """What a stitched block needs: itself and those around it in a row."""
    return [("predict", other) for other in range(max(0, block - 1), min(BLOCKS, block + 2))]


def dispatch(slides: int, executor: Executor) -> tuple[float, float]:
    """Tasks/s of `slides` slides of blocks that do nothing, and the client's memory in MB."""
    blocks = range(BLOCKS)
    steps = [
        Step("tile", "", BLOCKS, blocks, nothing),
        Step("predict", "", BLOCKS, blocks, nothing, lambda block: [("tile", block)]),
        Step("stitch", "", BLOCKS, blocks, nothing, neighbours),
    ]
    started = time.perf_counter()
    for _ in range(slides):
        run_steps(executor, steps)
    seconds = time.perf_counter() - started
    return 3 * BLOCKS * slides / seconds, psutil.Process().memory_info().rss / 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--slides", type=int, nargs="*", default=[1, 10, 100, 1000])
    given = parser.parse_args()
    if given.workers:
        with tempfile.TemporaryDirectory() as folder:
            slide, warm = Path(folder, "slide.svs"), Path(folder, "warm.svs")
            synthesize_slide(slide, width=given.side, height=given.side, seed=3)
            synthesize_slide(warm, width=2048, height=2048, seed=4)
            print("| workers | threads s | dask s | ratio | threads CPU s | dask CPU s | ratio |")
            print("|---|---|---|---|---|---|---|")
            for workers in given.workers:
                compare(slide, warm, workers, given.repeat)
    print(
        "\n| slides | tasks | dask tasks/s | client MB | threads tasks/s |\n|---|---|---|---|---|"
    )
    with open_executor("dask", 2) as dask, open_executor("threads", 2) as threads:
        dispatch(1, dask)
        for slides in given.slides:
            rate, memory = dispatch(slides, dask)
            limit, _ = dispatch(min(slides, 100), threads)
            count = 3 * BLOCKS * slides
            print(f"| {slides} | {count} | {rate:.0f} | {memory:.0f} | {limit:.0f} |", flush=True)


if __name__ == "__main__":
    main()
