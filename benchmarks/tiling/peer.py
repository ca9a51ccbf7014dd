"""Run by a peer's interpreter: performs requested jobs and reports their times.

    PYTHON peer.py NAME

Each line of standard input is one job in JSON, each line of standard output its answer: CPU
seconds of this process and its children, and number of tiles. Nothing of wsiseg is imported.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib.metadata import PackageNotFoundError, version

import peer_jobs
import peer_readers


def cpu() -> float:
    """Return the CPU seconds of this process and its finished children."""
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # peers print

    def say(**answer: object) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    name = sys.argv[1]
    prepare = {**peer_readers.READERS, **peer_jobs.JOBS}[name]
    try:
        work = prepare()  # imports
        say(version=find_version(name.split()[0]))
    except Exception as error:  # noqa: BLE001  # whatever keeps it from starting is the answer
        say(error=f"{type(error).__name__}: {error}")
        return
    for line in sys.stdin:
        request = json.loads(line)
        before = cpu()
        try:
            tiles = work(request)
            say(cpu=cpu() - before, tiles=tiles)
        except Exception as error:  # noqa: BLE001  # peers raise whatever they like
            say(error=f"{type(error).__name__}: {error}")


def find_version(package: str) -> str:
    """Find the installed version; the distribution may have another name."""
    names = {"openslide": "openslide-python", "cucim": "cucim-cu12", "TRIDENT": "trident-test"}
    try:
        return version(names.get(package, package))
    except PackageNotFoundError:
        return ""  # CLAM: not a package


if __name__ == "__main__":
    main()
