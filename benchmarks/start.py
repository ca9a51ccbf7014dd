"""The start-up time of commands, in wall and CPU seconds.

Commands run in separate processes, the two checkouts in turn, after an uncounted round that caches
compiled code, Python's own too, as an installed package has it. `annotate` is stopped before its
first block. CPU seconds are also valid on a busy machine, wall seconds only on a quiet one.

Run: python benchmarks/start.py SLIDE [--before CHECKOUT] [--rounds 5]
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
from typing import NamedTuple

HERE = Path(__file__).parents[1]


class Seconds(NamedTuple):
    """The times of one command."""

    clock: float
    processor: float


def measure(checkout: Path, *arguments: str, first_block: bool = False) -> Seconds:
    """Run a command of a checkout, to its end or until its first block would start."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "wsiseg", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=checkout,  # `-m` looks there first
        env=environment(checkout),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if first_block and json.loads(line)["event"] == "step":
            break
    clock = time.perf_counter() - started
    if first_block:
        process.kill()
    _, status, usage = os.wait4(process.pid, 0)
    if status and not first_block:
        sys.exit(f"wsiseg {' '.join(arguments)} failed in {checkout}")
    return Seconds(clock, usage.ru_utime + usage.ru_stime)


def environment(checkout: Path) -> dict[str, str]:
    """Let Python keep bytecode, which some containers forbid; pip writes it on installing."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    cache = Path(tempfile.gettempdir(), "wsiseg_bytecode")
    return kept | {"PYTHONPATH": str(checkout), "PYTHONPYCACHEPREFIX": str(cache)}


def measure_all(checkout: Path, slide: Path) -> dict[str, Seconds]:
    """Measure each command once."""
    with tempfile.TemporaryDirectory() as folder:
        store, out = str(Path(folder, "a.zarr")), str(Path(folder, "out"))
        return {
            "`wsiseg --help`": measure(checkout, "--help"),
            "`wsiseg tile`, whole": measure(checkout, "tile", str(slide), "-o", store),
            "`wsiseg annotate`, to its first block": measure(
                checkout, "annotate", str(slide), "-o", out, "--json", first_block=True
            ),
        }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--before", type=Path, help="another checkout, to compare with")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    checkouts = {"after": HERE} | ({"before": given.before} if given.before else {})
    rounds: dict[str, list[dict[str, Seconds]]] = {name: [] for name in checkouts}
    for counted in range(-1, given.rounds):
        for name, checkout in checkouts.items():
            found = measure_all(checkout.resolve(), given.slide.resolve())
            if counted >= 0:
                rounds[name].append(found)
    print(f"{given.slide.name}, {os.cpu_count()} cores, medians of {given.rounds} rounds")
    print("| command | checkout | clock s | processor s | against before |\n|---|---|---|---|---|")
    last = list(checkouts)[-1]
    for command in rounds["after"][0]:
        medians = {}
        for name, done in rounds.items():
            both = zip(*(one[command] for one in done), strict=True)
            medians[name] = Seconds(*map(statistics.median, both))
        for name, seconds in medians.items():
            share = seconds.processor / medians[last].processor
            print(
                f"| {command} | {name} | {seconds.clock:.2f} | {seconds.processor:.2f} "
                f"| {share:.2f} |"
            )


if __name__ == "__main__":
    main()
