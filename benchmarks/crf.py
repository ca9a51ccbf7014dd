"""The dense CRF: agreement with the exact sum, cost against pydensecrf, margins, blocks, a floor.

    python benchmarks/crf.py [SECTION ...]      sections: see SECTIONS; default: all

pydensecrf (`pip install wsiseg[pydensecrf]`, needs a compiler) is skipped if it is missing.
CPU times are CPU seconds of one thread, back ends in turn within one process, medians.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.model.crf.cases import NAMES, make_case, saved_case  # noqa: E402 # needs the path above
from wsiseg.config import CrfConfig  # noqa: E402
from wsiseg.model.crf import refine  # noqa: E402
from wsiseg.model.crf.block_torch import refine_batch  # noqa: E402
from wsiseg.model.crf.window import BLOCK, window_radius  # noqa: E402

HAS_PEER = find_spec("pydensecrf") is not None
NUMBA = CrfConfig(backend="numba")
PEER = CrfConfig(backend="pydensecrf")
EXACT = CrfConfig(backend="torch", mode="exact")
FAST = CrfConfig(backend="torch", mode="fast")
WAYS = {"torch exact": EXACT, "torch fast": FAST, "numba": NUMBA}
if HAS_PEER:
    WAYS["pydensecrf"] = PEER
TILE = 224
Input = tuple[torch.Tensor, torch.Tensor]


def differing(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the percentage of labels that differ."""
    return 100 * float((a.argmax(1) != b.argmax(1)).float().mean())


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU seconds of this thread."""
    start = time.thread_time()
    work()
    return time.thread_time() - start


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Set the number of threads of torch (and of batches) in the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


def measure_agreement() -> None:
    """Compare labels with the exact sum over the whole tile, for five saved cases."""
    print("\n| way | " + " | ".join(NAMES) + " | mean | min | mean abs dQ |")
    print("|---|" + "---|" * (len(NAMES) + 3))
    for name, config in WAYS.items():
        same, apart = [], []
        for case in map(saved_case, NAMES):
            q = refine(case.probabilities, case.image, config)[0].numpy()
            same.append(100 * float((q.argmax(0) == case.labels).mean()))
            apart.append(float(abs(q - case.q.astype("float32")).mean()))
        cells = " | ".join(f"{value:.2f}" for value in same)
        print(f"| {name} | {cells} | {mean(same):.2f} | {min(same):.2f} | {mean(apart):.4f} |")


def measure_other_cases() -> None:
    """Compare further cases; the truth is a window of six blocks, 4.8 standard deviations."""
    print("\n| case (160 x 160) | " + " | ".join(WAYS) + " |\n|---|" + "---|" * len(WAYS))
    for name, (probabilities, image) in _other_cases():
        truth = refine_batch(probabilities, image, EXACT, radius=6)
        found = (refine(probabilities, image, config) for config in WAYS.values())
        print(f"| {name} | " + " | ".join(f"{100 - differing(q, truth):.2f}" for q in found) + " |")


def _other_cases() -> Iterator[tuple[str, Input]]:
    yield "patches, 4 classes", make_case(160, 160, 4, 11)
    yield "fine patches, 6 classes, grain 25", make_case(160, 160, 6, 12, noise=25.0, cell=6)
    yield "coarse patches, no grain", make_case(160, 160, 5, 13, noise=0.0, cell=40)
    folder = ROOT.parent / "shared/data/patches/crc_val_he_7k"
    if not folder.is_dir():
        return
    import numpy
    from PIL import Image

    for seed, path in enumerate(sorted(folder.iterdir())[5::14]):
        pixels = numpy.array(Image.open(path).convert("RGB"))[:160, :160]
        probabilities, _ = make_case(160, 160, 5, 20 + seed, cell=20)
        yield (
            f"H&E {path.name[:8]}",
            (probabilities, torch.from_numpy(pixels).permute(2, 0, 1)[None]),
        )


def measure_cpu(rounds: int = 5) -> None:
    """Measure CPU time per tile on one thread: numba and pydensecrf in turn, torch once."""
    cases = [(name, saved_case(name)) for name in NAMES]
    print("\n| case | numba ms | pydensecrf ms | ratio | torch fast ms | torch exact ms |")
    print("|---|---|---|---|---|---|")
    totals: list[tuple[float, float]] = []
    with threads(1):
        refine(*cases[0][1][:2], NUMBA)
        for name, case in cases:
            ours, theirs = [], []
            for _ in range(rounds):
                ours.append(cpu_seconds(lambda: refine(*case[:2], NUMBA)))  # noqa: B023 # called at once
                if HAS_PEER:
                    theirs.append(cpu_seconds(lambda: refine(*case[:2], PEER)))  # noqa: B023 # called at once
            a, b = 1e3 * median(ours), 1e3 * median(theirs) if HAS_PEER else float("nan")
            totals.append((a, b))
            slow = [1e3 * cpu_seconds(lambda c=c: refine(*case[:2], c)) for c in (FAST, EXACT)]  # noqa: B023 # called at once
            print(f"| {name} | {a:.1f} | {b:.1f} | {a / b:.2f} | {slow[0]:.0f} | {slow[1]:.0f} |")
    a, b = (sum(column) / len(totals) for column in zip(*totals, strict=True))
    print(f"| mean | {a:.1f} | {b:.1f} | {a / b:.2f} (limit 0.60) | | |")


_case_of = lru_cache(saved_case)  # unpacking it is not what is measured


def _refine_peer(number: int) -> None:
    case = _case_of(NAMES[number % 3])
    for _ in range(4):
        refine(case.probabilities, case.image, PEER)


def measure_throughput(rounds: int = 3) -> None:
    """Measure tiles per second: a batch on two threads against two pydensecrf processes."""
    if not HAS_PEER:
        print("\nthroughput: pydensecrf is not installed")
        return
    cases = [saved_case(name) for name in NAMES[:3]]
    probabilities = torch.cat([case.probabilities for case in cases] * 8)
    image = torch.cat([case.image for case in cases] * 8)
    ours, theirs = [], []
    with threads(2), ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(_refine_peer, range(12)))  # starts both, and unpacks the cases
        refine(probabilities[:2], image[:2], NUMBA)
        for _ in range(rounds):
            start = time.perf_counter()
            refine(probabilities, image, NUMBA)
            ours.append(len(image) / (time.perf_counter() - start))
            start = time.perf_counter()
            list(pool.map(_refine_peer, range(6)))
            theirs.append(len(image) / (time.perf_counter() - start))
    a, b = median(ours), median(theirs)
    print(
        f"\nthroughput: numba, 2 threads {a:.1f} tiles/s; pydensecrf, 2 processes {b:.1f}; ", end=""
    )
    print(f"{a / b:.2f} times (limit 1.8)")


def measure_margins() -> None:
    """Measure by margin how many labels in a block of 160 differ from the whole of 416."""
    margins = (0, 16, 32, 48, 64, 96)
    ways = {name: config for name, config in WAYS.items() if name != "torch exact"}
    print("\n| margin px | " + " | ".join(map(str, margins)) + " |\n|---|" + "---|" * len(margins))
    for name, config in ways.items():
        found = [[] for _ in margins]
        for seed in range(2):
            probabilities, image = make_case(416, 416, 5, seed, cell=20)
            whole = refine(probabilities, image, config)[..., 128:288, 128:288]
            for i, margin in enumerate(margins):
                cut = slice(128 - margin, 288 + margin)
                corner = (128 - margin, 128 - margin)
                part = refine(probabilities[..., cut, cut], image[..., cut, cut], config, corner)
                inner = slice(margin, margin + 160)
                found[i].append(differing(part[..., inner, inner], whole))
        print(f"| {name} | " + " | ".join(f"{mean(values):.2f}" for values in found) + " |")


_BLOCK = """
import resource, sys, time, torch
sys.path.insert(0, {root!r})
from tests.model.crf.cases import make_case
from wsiseg.config import CrfConfig
from wsiseg.model.crf import refine
torch.set_num_threads(1)
probabilities, image = make_case({side}, {side}, 6, 0, noise={noise}, cell=24)
refine(probabilities[..., :64, :64], image[..., :64, :64], CrfConfig(backend='numba'))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
held = int(open('/proc/self/statm').read().split()[1]) * 4
start = time.process_time()
refine(probabilities, image, CrfConfig(backend='numba'))
seconds = time.process_time() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
area = ({side} / 224) ** 2
memory = (max(peak, before) - held) / 1024
print(f"| {side} x {side}, grain {noise} | {{seconds:.2f}} | {{1e3 * seconds / area:.1f}}", end="")
print(f" | {{memory:.0f}} |")
"""


def measure_blocks() -> None:
    """Measure a slide's block with margins: CPU seconds, and memory above the inputs with Q."""
    print("\n| block, 6 classes, numba | CPU s | ms a tile's area | peak MB |\n|---|---|---|---|")
    for side, noise in ((512, 8.0), (1920, 8.0), (1920, 25.0)):
        code = _BLOCK.format(root=str(ROOT), side=side, noise=noise)
        print(_run(code), end="")


def measure_compilation() -> None:
    """Measure CPU seconds of the first call, with and without numba's cache on disk."""
    code = (
        f"import sys, time; sys.path.insert(0, {str(ROOT)!r})\n"
        "import torch; from wsiseg.config import CrfConfig; from wsiseg.model.crf import refine\n"
        "start = time.process_time()\n"
        "refine(torch.rand(1, 3, 16, 16), torch.zeros(1, 3, 16, 16, dtype=torch.uint8), "
        "CrfConfig(backend='numba'))\n"
        "print(f'{time.process_time() - start:.1f}')"
    )
    with tempfile.TemporaryDirectory() as cache:
        first, second = (_run(code, NUMBA_CACHE_DIR=cache).strip() for _ in range(2))
    print(f"\nfirst call, CPU s: compiling {first}, from the cache {second}")


def _run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def measure_floor() -> None:
    """Count what a GPU's arithmetic allows; benchmarks/gpu measures it."""
    for mode in ("exact", "fast"):
        _print_floor(CrfConfig(backend="triton", mode=mode))


def _print_floor(config: CrfConfig, classes: int = 5) -> None:
    """Estimates for an H100 SXM: 132 multiprocessors at 1.755 GHz, 16 exp2 a clock in each."""
    side = TILE // BLOCK
    radius = window_radius(config.appearance_sxy)
    keys = BLOCK**2 // (4 if config.mode == "fast" else 1)
    inside = sum(min(i + radius, side - 1) - max(i - radius, 0) + 1 for i in range(side))
    # Rows outside the image are skipped, columns are masked.
    pairs = inside * side * (2 * radius + 1) * BLOCK**2 * keys * (config.iterations + 1)
    exponentials = 1e3 * pairs / (132 * 16 * 1.755e9)
    products = 1e3 * pairs * 2 * (16 + 16) / 990e12
    smooth = 1e3 * config.iterations * 2 * 2 * TILE**3 * classes / 60e12
    moved = TILE**2 * (config.iterations * (2 * 32 + 16 * 2 + 4 * classes * 6)) / 3.3e9
    transfer = TILE**2 * (classes * 8 + 3) / 50e6
    print(
        f"\nfloor on an H100, {config.mode}, ms a tile (estimate): exponentials {exponentials:.3f} "
        f"({pairs / 1e6:.0f} M), products {products:.3f}, smoothness {smooth:.3f}, "
        f"memory {moved:.3f}, transfers {transfer:.3f}"
    )


SECTIONS: dict[str, Callable[[], None]] = {
    "agreement": measure_agreement,
    "other": measure_other_cases,
    "cpu": measure_cpu,
    "throughput": measure_throughput,
    "margins": measure_margins,
    "blocks": measure_blocks,
    "compilation": measure_compilation,
    "floor": measure_floor,
}


def main(names: list[str]) -> None:
    """Run the named sections, or all."""
    if not HAS_PEER:
        print("pydensecrf: not installed")
    for name in names or SECTIONS:
        SECTIONS[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
