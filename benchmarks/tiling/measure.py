"""Measure the CPU time of contenders in turn, including other programs."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Way = Callable[[], float]
"""Does its job once and returns the CPU seconds that it took."""


def cpu() -> float:
    """Return the CPU seconds of this process and its finished children."""
    children = os.times()  # coarse, so its time is measured elsewhere
    return time.process_time() + children.children_user + children.children_system


def timed(work: Callable[[], object]) -> Way:
    """Make `work` a contender in this process."""

    def way() -> float:
        before = cpu()
        work()
        return cpu() - before

    return way


class Peer:
    """Another program in a separate process, whose start and imports are not counted.

    `python` is the interpreter that has it; see `peer.py` for the requests.
    """

    def __init__(self, name: str, python: str) -> None:
        self.name = name
        # Otherwise spinning threads of a waiting pool would be counted as work.
        single = {f"{pool}_NUM_THREADS": "1" for pool in ("OMP", "MKL", "OPENBLAS")}
        self._process = subprocess.Popen(
            [python, str(Path(__file__).with_name("peer.py")), name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, **single},
        )  # fmt: skip
        self.version = self._answer()["version"]

    def ask(self, request: Mapping[str, object]) -> dict[str, Any]:
        """Request one job; return its CPU seconds and number of tiles.

        Raises
        ------
        RuntimeError
            If it fails, with its message.
        """
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise RuntimeError(f"it ended with {self._process.wait()}") from error
        return self._answer()

    def close(self) -> None:
        """Stop the process."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"it ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer


def start_peers(names: list[str], pythons: Mapping[str, str]) -> dict[str, Peer]:
    """Start the peers `names`, by this interpreter by default; print why others cannot start."""
    peers = {}
    for name in names:
        package = name.split()[0]
        try:
            peers[name] = Peer(name, pythons.get(package, sys.executable))
        except (RuntimeError, OSError) as error:
            print(f"- left out: {name}: {str(error)[:200]}", flush=True)
    return peers


def measure(ways: dict[str, Way], rounds: int) -> dict[str, float]:
    """Measure median CPU seconds of each way, in turn, after an uncounted round.

    Ways that fail are skipped, with the reason.
    """
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):  # the first one compiles, and fills the disk's cache
        for name, values in list(spent.items()):
            try:
                values.append(ways[name]())
            except Exception as error:  # noqa: BLE001  # peers raise whatever they like
                print(f"- left out: {name}: {type(error).__name__}: {str(error)[:200]}", flush=True)
                del spent[name]
    return {name: statistics.median(values[1:]) for name, values in spent.items()}
