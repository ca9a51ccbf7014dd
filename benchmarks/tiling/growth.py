"""Time, memory and files of `wsiseg tile` by area and workers, and the gain of a second worker."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from reading import decode_all, load, touched
from slides import choose

from wsiseg.compute import open_executor
from wsiseg.config import Config
from wsiseg.store import SlideStore
from wsiseg.tile import tile_slide

RUNS = (("threads", 1), ("threads", 2), ("processes", 2))
PIECES = 24
"""Into which decoding alone is cut, as tiling is into blocks."""


class Run(NamedTuple):
    """The cost of one command."""

    wall: float
    cpu: float
    share: float = 0.0
    """Largest sum of the processes' proportional shares, MB: what they have from the machine."""
    resident: float = 0.0
    """Largest sum of their resident sets, MB: what is shared counts again for each."""
    files: int = 0
    blocks: int = 0
    """Of the grid, with tissue or without."""


def run_tile(slide: Path, executor: str, workers: int, watched: bool) -> Run:
    """Run `wsiseg tile` in a separate process; memory is only measured if `watched`."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "wsiseg", "tile", str(slide), "-o", f"{folder}/a.zarr",
            "--executor", executor, "--workers", str(workers),
        ]  # fmt: skip
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        peaks = [0.0, 0.0]
        watcher = threading.Thread(target=watch, args=(process.pid, peaks))
        if watched:
            watcher.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        if watched:
            watcher.join()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed")
        files = sum(1 for path in Path(folder).rglob("*") if path.is_file())
        blocks = SlideStore(f"{folder}/a.zarr").grid.n_blocks
    return Run(wall, usage.ru_utime + usage.ru_stime, *peaks, files, blocks)


def watch(pid: int, peaks: list[float]) -> None:
    """Record the largest share and resident set of a process and its descendants."""
    while members := family(pid):
        sizes = [memory(member) for member in members]
        for i, total in enumerate(map(sum, zip(*sizes, strict=True))):
            peaks[i] = max(peaks[i], total)
        time.sleep(0.02)


def family(pid: int) -> list[int]:
    """List a process and its descendants; empty once it has ended."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(other for child in children for other in family(int(child)))]


def memory(pid: int) -> tuple[float, float]:
    """Return proportional share and resident set of a process in MB (Linux)."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0, 0.0
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
    return sizes["Pss"] / 1024, sizes["Rss"] / 1024


def medians(runs: Iterable[Run]) -> Run:
    """Return the median of each figure."""
    return Run(*(statistics.median(column) for column in zip(*runs, strict=True)))


def compare_growth(slides: dict[str, Path], rounds: int) -> None:
    """Print the table of `wsiseg tile`: times without a watcher, then memory with one."""
    cases = [(area, path, *how) for area, path in slides.items() for how in RUNS]
    timed: dict[Any, list[Run]] = {case: [] for case in cases}
    watched: dict[Any, list[Run]] = {case: [] for case in cases}
    for runs, looking in ((timed, False), (watched, True)):
        for _ in range(rounds):
            for case in cases:
                _, path, executor, workers = case
                runs[case].append(run_tile(path, executor, workers, looking))
    print(
        f"\n### `wsiseg tile` by area and workers, start of the process and all ({rounds} rounds)"
    )
    print(
        "\n| area | executor | workers | wall s | CPU s | share MB | resident MB | files | blocks |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for case in cases:
        area, _, executor, workers = case
        one, two = medians(timed[case]), medians(watched[case])
        print(
            f"| {area} | {executor} | {workers} | {one.wall:.2f} | {one.cpu:.2f} | {two.share:.0f} "
            f"| {two.resident:.0f} | {one.files} | {one.blocks} |"
        )


# -- two workers ---------------------------------------------------------------------------------


def compare_workers(path: Path, rounds: int) -> None:
    """Print the gain of two running workers over one: `tile_slide` in this process.

    For comparison, two threads and two processes only decode the same tiles from memory, half of
    them each: what the machine allows at that moment.
    """
    exact = Config.model_validate({"slide": {"scaled_decode": False}})
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pools = {
            (kind, n): stack.enter_context(open_executor(kind, n))
            for kind in ("threads", "processes")
            for n in (1, 2)
        }
        count = iter(range(10_000))

        def tile(pool: Executor, config: Config) -> None:
            tile_slide(path, folder / f"{next(count)}.zarr", config, pool)

        tiles = touched(choose(path, 2.0, 12))
        pieces = [tiles[i::PIECES] for i in range(PIECES)]
        ways: dict[str, Callable[[Executor], object]] = {
            "tile_slide, scaled": lambda pool: tile(pool, Config()),
            "tile_slide, exact": lambda pool: tile(pool, exact),
            "decoding alone, scaled": lambda pool: decode(pool, path, pieces, 2),
            "decoding alone, full": lambda pool: decode(pool, path, pieces, 1),
        }
        walls = time_in_turn(ways, pools, rounds)
    print(f"\n### Two workers over one on {path.name}, workers started ({rounds} rounds in turn)\n")
    print("| what | executor | one, wall s | two, wall s | one over two | best of each |")
    print("|---|---|---|---|---|---|")
    for name in ways:
        for kind in ("threads", "processes"):
            one, two = walls[name, kind, 1], walls[name, kind, 2]
            ratio = statistics.median(a / b for a, b in zip(one, two, strict=True))
            print(
                f"| {name} | {kind} | {statistics.median(one):.2f} | {statistics.median(two):.2f} "
                f"| {ratio:.2f} | {min(one) / min(two):.2f} |"
            )


def time_in_turn(
    ways: dict[str, Callable[[Executor], object]],
    pools: dict[tuple[str, int], Executor],
    rounds: int,
) -> dict[tuple[str, str, int], list[float]]:
    """Measure wall seconds of every way on every pool, after an uncounted round."""
    walls: dict[tuple[str, str, int], list[float]] = {}
    for index in range(rounds + 1):
        for name, way in ways.items():
            for (kind, n), pool in pools.items():
                start = time.perf_counter()
                way(pool)
                if index:
                    walls.setdefault((name, kind, n), []).append(time.perf_counter() - start)
    return walls


def decode(pool: Executor, path: Path, pieces: list[list[int]], shrink: int) -> None:
    """Decode all tiles, piece by piece, on the workers of a pool."""
    list(pool.map(decode_piece, [path] * PIECES, pieces, [shrink] * PIECES))


def decode_piece(path: Path, tiles: list[int], shrink: int) -> None:
    """Load and decode some tiles."""
    decode_all(path, load(path, tiles), shrink)
