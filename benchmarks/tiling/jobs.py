"""The whole job: find the tissue of a slide and write all its tiles."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from measure import Peer, Way, measure, timed
from slides import TILE

from wsiseg.compute import SerialExecutor
from wsiseg.config import Config
from wsiseg.store import SlideStore
from wsiseg.tile import tile_slide
from wsiseg.tissue import kept_tiles


def tile_with_wsiseg(path: Path, out: Path, mpp: float, scaled: bool) -> SlideStore:
    """Run the step `wsiseg tile` in this process, on one thread."""
    config = Config.model_validate({"slide": {"scaled_decode": scaled}, "tile": {"mpp": mpp}})
    return tile_slide(path, out / "a.zarr", config, SerialExecutor())


def compare_jobs(path: Path, rounds: int, mpp: float, peers: dict[str, Peer]) -> None:
    """Print the table of one slide at the µm/px closest to `mpp`."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")

        def afresh(way: Way) -> Way:
            def emptied() -> float:
                shutil.rmtree(out, ignore_errors=True)
                out.mkdir()
                return way()

            return emptied

        request, kept = describe(path, out, mpp)
        counts = {}

        def ask(name: str, peer: Peer) -> float:
            answer = peer.ask(request)
            counts[name] = answer["tiles"]
            return float(answer["cpu"])

        ours: dict[str, Callable[[], object]] = {
            "wsiseg, exact": partial(tile_with_wsiseg, path, out, mpp, False),
            "wsiseg, scaled decoding": partial(tile_with_wsiseg, path, out, mpp, True),
        }
        ways = {name: afresh(partial(ask, name, peer)) for name, peer in peers.items()}
        ways |= {name: afresh(timed(work)) for name, work in ours.items()}
        took = measure(ways, rounds)
    counts |= dict.fromkeys(ours, kept)
    print(f"\n### Find the tissue of {path.name}, write all tiles at {request['mpp']:.4g} µm/px")
    print(f"\n{rounds} rounds in turn\n")
    print_jobs(took, counts, {name: peer.version for name, peer in peers.items()})


def describe(path: Path, out: Path, mpp: float) -> tuple[dict[str, object], int]:
    """Return the request to peers, and the number of tiles that wsiseg keeps."""
    out.mkdir()
    store = tile_with_wsiseg(path, out, mpp, True)
    kept = np.argwhere(kept_tiles(store, Config().tissue)).tolist()
    own = store.slide["mpp"][0]
    side = round(TILE * store.mpp / own)
    request = {
        "slide": str(path), "slide_mpp": own, "mpp": store.mpp, "tile": TILE, "side": side,
        "corners": [[col * side, row * side] for row, col in kept], "out": str(out),
        "least": Config().tissue.min_fraction,
    }  # fmt: skip
    return request, len(kept)


def print_jobs(took: dict[str, float], counts: dict[str, int], versions: dict[str, str]) -> None:
    """Print a row per way; ratios are of milliseconds per tile, as tissue masks differ a little."""
    ms = {name: 1e3 * seconds / counts[name] for name, seconds in took.items()}
    print("| way | version | tiles | CPU s | ms a tile | exact is faster | scaled is faster |")
    print("|---|---|---|---|---|---|---|")
    for name, seconds in took.items():
        exact, scaled = (ms[name] / ms[f"wsiseg, {how}"] for how in ("exact", "scaled decoding"))
        print(
            f"| {name} | {versions.get(name, '')} | {counts[name]} | {seconds:.2f} "
            f"| {ms[name]:.2f} | {exact:.1f} | {scaled:.1f} |",
            flush=True,
        )
