"""Read and tile slides, compared with other tools in the same run.

    python benchmarks/tiling [--quick] [--peer NAME[,NAME ...]=PYTHON ...] [SLIDE ...]

Without slides, on a synthetic one: 40,000 x 32,000 px, Aperio's layout, JPEG quality 80 4:2:0 in
240 x 240 tiles, 0.25 µm/px, about a third of it tissue (`--quick`: a quarter of the area). Given
slides replace it in the first two tables. Other programs run in separate processes, by the
interpreter that `--peer` names (this one by default), started and imported before measuring; those
that do not start are skipped, with the reason. Tables (`--parts`):

reading  CPU milliseconds for a tile of 224 px; all read the same squares with tissue of the same
         blocks. "Limit" is libjpeg-turbo decoding each compressed tile that they touch once, all
         bytes in memory, nothing else done.
job      CPU seconds to find the tissue and write all tiles, on one thread.
growth   time, memory and files of `wsiseg tile` by area and workers; shares of memory are
         proportional, so that what processes share counts once (Linux).
workers  the gain of a second worker in wall time, compared with its gain in decoding alone.

Times are medians of rounds in turn.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from growth import compare_growth, compare_workers
from jobs import compare_jobs
from measure import start_peers
from peer_jobs import JOBS
from peer_readers import READERS
from reading import BASE, compare_reading
from slides import write_slide

from wsiseg.geometry import Size

PARTS = ("reading", "job", "growth", "workers")


def parse() -> argparse.Namespace:
    """Parse the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("slides", nargs="*", type=Path)
    parser.add_argument("--quick", action="store_true", help="a smaller slide, fewer blocks")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mpp", type=float, default=0.5, help="µm/px of the whole job's tiles")
    parser.add_argument("--folder", type=Path, help="where synthetic slides are kept")
    parser.add_argument("--parts", default=",".join(PARTS), help="which tables, by commas")
    parser.add_argument(
        "--peer", action="append", default=[], metavar="NAME[,NAME ...]=PYTHON",
        help="the interpreter that has these packages",
    )  # fmt: skip
    parser.add_argument("--only", default="", help="of the peers, those so named, by commas")
    return parser.parse_args()


def find_slides(folder: Path, quick: bool) -> dict[str, Path]:
    """Return synthetic slides by area; make them if they do not exist."""
    slides = {}
    for times in (1, 2) if quick else (1, 2, 4):
        path = slides[f"{times * times} x"] = folder / f"synthetic-{times}.svs"
        if not path.exists():
            write_slide(path, Size(10_000 * times, 8_000 * times))
    return slides


def main() -> None:
    """Print the tables."""
    given = parse()
    parts = given.parts.split(",")
    pythons = {
        name: python
        for names, python in (each.split("=", 1) for each in given.peer)
        for name in names.split(",")
    }

    def chosen(names: Iterable[str]) -> list[str]:
        words = given.only.split(",")
        return [name for name in names if name == BASE or any(word in name for word in words)]

    with ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        slides = find_slides(folder, given.quick)
        largest = list(slides.values())[-1]
        for part, names, compare in (
            ("reading", READERS, partial(compare_reading, blocks=2 if given.quick else 6)),
            ("job", JOBS, partial(compare_jobs, mpp=given.mpp)),
        ):
            if part in parts:
                peers = start_peers(chosen(names), pythons)
                for path in given.slides or [largest]:
                    compare(path, given.rounds, peers=peers)
                for peer in peers.values():
                    peer.close()
        if "growth" in parts:
            compare_growth(slides, given.rounds)
        if "workers" in parts:
            compare_workers(largest, given.rounds)


if __name__ == "__main__":
    main()
