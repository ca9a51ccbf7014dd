"""The cost of dask, the gain of a second worker and of overlapping steps, and dispatch.

overhead: a slide annotated by threads and by a local dask cluster in turn, workers and compiled
code warm. The limit is the thread pool, which has no scheduler, no processes and no messages.
workers: `tile` and `annotate` with one worker and with two. What the machine itself gives is
measured too: two processes that only count, against one; on a busy machine it is less than 2.
overlap: tile, predict and stitch overlapping, against one after another; then with the model on a
separate device, simulated by a wait as long as reading that uses no core: the slower of the two
should determine the time.
dispatch: blocks that do nothing, with the task counts of 1 to 1,000 slides, as many in flight as
with 128 workers: tasks/s against dask's own `Client.map`, and the client's memory.

Run: python benchmarks/cluster.py [overhead workers overlap dispatch] [--folder KEPT] [--side 20000]
     [--rounds 3] [--kinds threads processes] [--slides 1 10 100 1000]
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from wsiseg.compute import Step, open_executor, run, run_steps
from wsiseg.compute.cluster import DaskExecutor, open_cluster
from wsiseg.config import Config
from wsiseg.demo.synthesis import synthesize_slide
from wsiseg.predict import predict_tiles
from wsiseg.run import Job, OutputTree, annotate_slide
from wsiseg.stitch import stitch_labels
from wsiseg.store import SlideStore
from wsiseg.tile import plan_tile, tile_slide
from wsiseg.tissue import kept_tiles

BLOCKS = 36  # of each of three steps: a slide of 20,000 x 20,000 px
IN_FLIGHT = 256
CONFIG = Config()

Work = Callable[[Path, Path, Executor], object]
"""Something done to a slide, into an empty folder."""


def annotate(slide: Path, out: Path, executor: Executor) -> None:
    """Run all steps."""
    result = annotate_slide(Job(slide, slide.stem), OutputTree(out), CONFIG, executor)
    assert result.status == "done", result.error


def tile(slide: Path, out: Path, executor: Executor) -> None:
    """Run the first step."""
    tile_slide(slide, out / "a.zarr", CONFIG, executor)


def measure(work: Work, slide: Path, executor: Executor) -> tuple[float, float]:
    """Measure `work` in a new folder: wall seconds, and CPU seconds including workers."""
    with tempfile.TemporaryDirectory() as out:
        wall, cpu = time.perf_counter(), cpu_seconds()
        work(slide, Path(out), executor)
        return time.perf_counter() - wall, cpu_seconds() - cpu


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and its living children."""
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return sum(one.user + one.system for one in times)


@contextmanager
def open_warm(warm: Path, *kinds: tuple[str, int]) -> Iterator[dict[tuple[str, int], Executor]]:
    """Open executors by kind and workers, with everything loaded and compiled."""
    with ExitStack() as stack:
        pools = {kind: stack.enter_context(open_executor(*kind)) for kind in kinds}
        for pool in pools.values():
            measure(annotate, warm, pool)
        yield pools


def compare_dask(slide: Path, warm: Path, rounds: int) -> None:
    """Print threads and dask in turn, one row per round, and the medians."""
    print("\n| round | threads s | dask s | ratio | threads CPU s | dask CPU s | ratio |")
    print("|---|---|---|---|---|---|---|")
    rows = []
    with open_warm(warm, ("threads", 2), ("dask", 2)) as pools:
        for number in range(1, rounds + 1):
            (wall, cpu), (dask_wall, dask_cpu) = (
                measure(annotate, slide, pool) for pool in pools.values()
            )
            rows.append((wall, dask_wall, dask_wall / wall, cpu, dask_cpu, dask_cpu / cpu))
            print_row(number, *rows[-1])
    print_row("median", *map(median, zip(*rows, strict=True)))


def compare_workers(slide: Path, warm: Path, rounds: int, kinds: Sequence[str]) -> None:
    """Print the gain of a second worker, and what the machine allows."""
    print("\n| job | workers are | one s | two s | gain | counting gains | one CPU s | two CPU s |")
    print("|---|---|---|---|---|---|---|---|")
    for kind in kinds:
        with open_warm(warm, (kind, 1), (kind, 2)) as pools:
            for name, work, repeat in (("tile", tile, 3), ("annotate", annotate, 1)):
                rows = []
                for _ in range(rounds * repeat):
                    before = counting_gain()
                    (one, cpu), (two, cpu_two) = (
                        measure(work, slide, pool) for pool in pools.values()
                    )
                    gain = (before + counting_gain()) / 2
                    rows.append((one, two, one / two, gain, cpu, cpu_two))
                print_row(name, kind, *map(median, zip(*rows, strict=True)))


def counting_gain() -> float:
    """Measure how much more two processes count than one, for a second each."""
    seconds = []
    for count in (1, 2):
        processes = [multiprocessing.Process(target=count_up) for _ in range(count)]
        started = time.perf_counter()
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        seconds.append((time.perf_counter() - started) / count)
    return seconds[0] / seconds[1]


def count_up() -> None:
    """Keep a core busy, without memory."""
    for _ in range(15_000_000):
        pass


def compare_overlap(slide: Path, warm: Path, rounds: int) -> None:
    """Print overlapping steps against steps one after another."""
    print("\n| workers | tile s | predict s | stitch s | sum s | flow s | flow of sum |")
    print("|---|---|---|---|---|---|---|")
    with open_warm(warm, ("threads", 1), ("threads", 2)) as pools:
        for (_, workers), pool in pools.items():
            rows = []
            for _ in range(rounds):
                alone: dict[str, float] = {}
                measure(partial(one_by_one, alone), slide, pool)
                flow: dict[str, float] = {}
                measure(partial(all_at_once, flow), slide, pool)
                total = sum(alone.values())
                rows.append((*alone.values(), total, flow["all"], flow["all"] / total))
            print_row(workers, *map(median, zip(*rows, strict=True)))
    compare_device(slide, rounds)


def one_by_one(seconds: dict[str, float], slide: Path, out: Path, executor: Executor) -> None:
    """Run the steps that overlap in `annotate` one after another; record their `seconds`."""
    store = out / "a.zarr"
    with timed(seconds, "tile"):
        tile_slide(slide, store, CONFIG, executor)
    with timed(seconds, "predict"):
        predict_tiles(store, CONFIG, executor)
    with timed(seconds, "stitch"):
        stitch_labels(store, CONFIG, executor)


def all_at_once(seconds: dict[str, float], slide: Path, out: Path, executor: Executor) -> None:
    """Run `annotate`; record the `seconds` until the last block is stitched."""
    started = time.perf_counter()

    def report(step: str, done: int, total: int) -> None:
        if (step, done) == ("stitch", total):
            seconds["all"] = time.perf_counter() - started

    job = Job(slide, slide.stem)
    annotate_slide(job, OutputTree(out), CONFIG, executor, progress=report)


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Record how long the block takes."""
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started


def compare_device(slide: Path, rounds: int) -> None:
    """Print how reading overlaps with a model on a device that one block has at a time.

    A block reads its pixels from the store before it has the device; one or two do so at once.
    """
    print("\n| workers | blocks | reading s, and the device's s | flow s | flow of the slower |")
    print("|---|---|---|---|---|")
    for workers, waits in product((1, 2, 3), (1, 2)):
        with open_executor("threads", workers) as pool:
            rows = []
            for _ in range(3 * rounds):
                seconds: dict[str, float] = {}
                measure(partial(read_and_wait, seconds, None, waits), slide, pool)
                read = seconds["all"]
                measure(partial(read_and_wait, seconds, read, waits), slide, pool)
                rows.append((read, seconds["all"], seconds["all"] / read))
            print_row(workers, waits, *map(median, zip(*rows, strict=True)))


def read_and_wait(
    seconds: dict[str, float], model_s: float | None, waits: int, slide: Path, out: Path,
    executor: Executor,
) -> None:  # fmt: skip
    """Tile, with a simulated device that the blocks occupy for `model_s` seconds in total.

    Each occupies it as long as it has tiles with tissue, which are what a model sees.
    """
    device = threading.Lock()
    store, tile = plan_tile(slide, out / "a.zarr", CONFIG)
    kept = kept_tiles(store, CONFIG.tissue)
    tile_s = (model_s or 0) / kept.sum()

    def use_device(block: int, digest: str) -> None:
        SlideStore(store.path).read_image(store.grid.block_box(block))
        tiles = sum(bool(kept[one]) for one in store.grid.block_tiles(block))
        with device:
            time.sleep(tile_s * tiles)

    model = replace(
        tile, name="predict", work=use_device, needs=lambda block: [("tile", block)], waits=waits
    )
    with timed(seconds, "all"):
        run_steps(executor, [tile] if model_s is None else [tile, model])


def compare_dispatch(counts: Sequence[int]) -> None:
    """Print the rates of empty blocks, and the client's memory."""
    print("\n| slides | tasks | dask tasks/s | Client.map tasks/s | client MB | threads tasks/s |")
    print("|---|---|---|---|---|---|")
    with open_cluster("dask", 2) as dask, open_executor("threads", 2) as threads:
        wide = DaskExecutor(dask._client, min_in_flight=IN_FLIGHT)
        dispatch(1, wide)
        for slides in counts:
            rate, memory = dispatch(slides, wide), psutil.Process().memory_info().rss / 1e6
            limit = map_nothing(dask._client, min(3 * BLOCKS * slides, 10_800))
            pool = dispatch(min(slides, 100), threads)
            print_row(slides, 3 * BLOCKS * slides, rate, limit, memory, pool, digits=0)


def dispatch(slides: int, executor: Executor) -> float:
    """Measure tasks/s for empty blocks of `slides` slides, a few at a time as in `annotate`."""
    blocks = range(BLOCKS)
    steps = [
        Step("tile", "", BLOCKS, blocks, nothing),
        Step("predict", "", BLOCKS, blocks, nothing, lambda block: [("tile", block)]),
        Step("stitch", "", BLOCKS, blocks, nothing, neighbours),
    ]
    started = time.perf_counter()
    with ThreadPoolExecutor(4) as flows:
        for _ in run(flows, lambda _: run_steps(executor, steps), range(slides)):
            pass
    return 3 * BLOCKS * slides / (time.perf_counter() - started)


def nothing(block: int) -> None:
    """Do nothing: a block that costs only its dispatch."""


def neighbours(block: int) -> list[tuple[str, int]]:
    """Yield what a stitched block needs: itself and its neighbours in the row."""
    return [("predict", other) for other in range(max(0, block - 1), min(BLOCKS, block + 2))]


def map_nothing(client: Any, tasks: int) -> float:
    """Measure tasks/s of dask alone, with as many at a time."""
    started = time.perf_counter()
    for first in range(0, tasks, IN_FLIGHT):
        client.gather(client.map(nothing, range(first, first + IN_FLIGHT), pure=False))
    return tasks / (time.perf_counter() - started)


def print_row(name: object, *cells: object, digits: int = 2) -> None:
    """Print a row of the current table."""
    shown = [f"{cell:.{digits}f}" if isinstance(cell, float) else str(cell) for cell in cells]
    print("|", " | ".join([str(name), *shown]), "|", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["overhead", "workers", "overlap", "dispatch"])
    parser.add_argument("--folder", type=Path, help="where the slides are made, or lie already")
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", nargs="*", default=["threads", "processes"])
    parser.add_argument("--slides", type=int, nargs="*", default=[1, 10, 100, 1000])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        slide = make_slide(folder / f"{given.side}.svs", given.side)
        warm = make_slide(folder / "warm.svs", 7168)  # blocks enough for each worker
        if "overhead" in given.parts:
            compare_dask(slide, warm, given.rounds)
        if "workers" in given.parts:
            compare_workers(slide, warm, given.rounds, given.kinds)
        if "overlap" in given.parts:
            compare_overlap(slide, warm, given.rounds)
    if "dispatch" in given.parts:
        compare_dispatch(given.slides)


def make_slide(path: Path, side: int) -> Path:
    """Make a synthetic slide, unless it exists."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        synthesize_slide(path, width=side, height=side, seed=3)
    return path


if __name__ == "__main__":
    main()
