"""Everything that wsiseg does on a GPU, in one call of at most eight minutes.

    python benchmarks/gpu.py [--parts kernels crf model training job decode] [--seconds 480]
                             [--device cuda|cpu] [--out gpu.json]

Every part is a separate process with its share of the time; measurements that do not fit are named.
It makes its own data. `kernels`, `crf`, `model` and `training` need torch, numba,
pydantic, PyYAML, safetensors and the checkout (`model` and `training` what `wsiseg predict` imports
besides); `job` needs all that wsiseg does. On a machine without a network they can come as wheels:
`pip download --only-binary=:all: -d wheels ...` elsewhere, `pip install --no-index --target site
wheels/*` there, and `PYTHONPATH=site`. `--device cpu` is a small rehearsal, whose times are
meaningless.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

SHARES = {"kernels": 0.1, "crf": 0.2, "model": 0.3, "training": 0.1, "job": 0.25, "decode": 0.05}
"""Part -> its share of the time, if all are asked for."""
SIDE = 224
ROUNDS = 5
GOAL_MS = {"exact": 0.25, "fast": 0.12}
"""Of the CRF on an H100, a tile."""

LOOKS = ("as predict does", "on the device", "channels last", "graph", "compiled")

Row = dict[str, Any]


class Part:
    """A part: its device, its deadline, and its rows so far."""

    def __init__(self, device: str, seconds: float) -> None:
        self.device = torch.device(device)
        self.small = device == "cpu"
        self.end = time.monotonic() + seconds
        self.rows: list[Row] = []

    def measure(self, row: Row, work: Callable[[], Row]) -> None:
        """Add a row: the result of `work`, or why there is none."""
        if time.monotonic() > self.end:
            found: Row = {"why": "no time was left"}
        else:
            try:
                found = work()
            except Exception as error:  # noqa: BLE001 # the other rows are worth having
                found = {"why": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
        self.rows.append(row | found)
        print(json.dumps(self.rows[-1]), flush=True)

    def wait(self) -> None:
        """Wait until the device has finished."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object], rounds: int = ROUNDS) -> float:
        """Return the median seconds of some rounds, after a warm-up."""
        work()
        times = []
        for _ in range(1 if self.small else rounds):
            self.wait()
            start = time.perf_counter()
            work()
            self.wait()
            times.append(time.perf_counter() - start)
        return median(times)

    @contextmanager
    def memory(self, row: Row, held: int = 1) -> Iterator[None]:
        """Record the device's peak memory in the block, in MB above `held`."""
        if self.device.type != "cuda":
            yield
            return
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield
        row["MB"] = round((torch.cuda.max_memory_allocated() - before) / held / 2**20, 2)


# -- the CRF -------------------------------------------------------------------------------------


def ways(part: Part) -> list[tuple[str, str]]:
    """List the back ends and modes that can run here."""
    tensor = [("torch", "exact"), ("torch", "fast")]
    return tensor[1:] if part.small else [("triton", "exact"), ("triton", "fast"), *tensor]


def models(part: Part) -> tuple[str, ...]:
    """List the models, the most important first; a rehearsal skips it."""
    return ("small", "tiny") if part.small else ("vit-b", "small", "tiny")


def kernels(part: Part) -> None:
    """Compare every back end and encoder on the device with the CPU."""
    from tests.model.crf.cases import NAMES, saved_case
    from wsiseg.config import CrfConfig
    from wsiseg.model.crf import refine

    for name in NAMES[:1] if part.small else NAMES:
        case = saved_case(name)
        inputs = case.probabilities.to(part.device), case.image.to(part.device)
        for backend, mode in ways(part):

            def agree(backend: str = backend, mode: str = mode) -> Row:
                q = refine(*inputs, CrfConfig(backend=backend, mode=mode)).cpu()[0].numpy()  # noqa: B023
                same = 100 * float((q.argmax(0) == case.labels).mean())  # noqa: B023
                return {"same labels %": round(same, 3)}

            part.measure({"what": f"CRF {backend} {mode}", "case": name}, agree)
    with weights() as folder:
        for model in models(part):
            for precision in ("float32", "bfloat16"):
                part.measure(
                    {"what": f"CAMs of {model}", "case": precision},
                    lambda model=model, precision=precision: compare(
                        part, model, precision, folder
                    ),
                )


def compare(part: Part, model: str, precision: str, folder: Path) -> Row:
    """Compare CAMs of one model on the device with those in float32 on the CPU."""
    from training import Noise, make_model

    from wsiseg.model.device import autocast, to_images

    torch.manual_seed(0)
    network = make_model(model, folder, teacher=False).eval().requires_grad_(False)
    images = to_images(Noise(2).pixels)
    with torch.inference_mode():
        plain = network(images).cams
        with autocast(part.device, precision):
            found = network.to(part.device)(images.to(part.device)).cams.float().cpu()
    return {
        "same labels %": round(100 * float((found.argmax(1) == plain.argmax(1)).float().mean()), 3),
        "largest difference": float(f"{float((found - plain).abs().max()):.2g}"),
    }


def crf(part: Part) -> None:
    """Measure time (ms) and memory per tile by batch size, all on the device."""
    from tests.model.crf.cases import NAMES, saved_case
    from wsiseg.config import CrfConfig
    from wsiseg.model.crf import refine

    case, side = saved_case(NAMES[0]), 64 if part.small else SIDE
    for backend, mode in ways(part):
        config = CrfConfig(backend=backend, mode=mode)
        for batch in (1, 2) if part.small else (1, 4, 16, 64, 256, 1024):
            if backend == "torch" and batch > 64:
                continue

            def cost(config: Any = config, batch: int = batch) -> Row:
                inputs = (
                    tensor[..., :side, :side].to(part.device).repeat(batch, 1, 1, 1)
                    for tensor in (case.probabilities, case.image)
                )
                probabilities, image = inputs
                row: Row = {}
                with part.memory(row, batch):
                    seconds = part.seconds(lambda: refine(probabilities, image, config))
                goal = GOAL_MS[config.mode]
                return {"ms a tile": round(1e3 * seconds / batch, 4), "goal ms": goal} | row

            part.measure({"what": f"{backend} {mode}", "tiles": batch}, cost)


# -- the model -----------------------------------------------------------------------------------


@contextmanager
def weights() -> Iterator[Path]:
    """Write a folder of random weights in the layouts of CONCH and SegFormer."""
    from training import write_weights

    with tempfile.TemporaryDirectory() as folder:
        write_weights(Path(folder))
        yield Path(folder)


def model(part: Part) -> None:
    """Measure images per second of each encoder, as a share of what its FLOPs allow."""
    from training import Noise, make_model

    batch = {"vit-b": 256, "small": 512, "tiny": 512}
    with weights() as folder:
        for name in models(part):
            count = 2 if part.small else batch[name]
            network = make_model(name, folder, teacher=False).eval().requires_grad_(False)
            network = network.to(part.device)
            pixels = Noise(count).pixels
            gflop = count_flops(network, pixels[:1], part.device)
            for precision in ("float32", "bfloat16"):
                rate = product_rate(part, precision)
                for way in LOOKS:
                    for tta in (1, 6) if way == "as predict does" else (1,):
                        part.measure(
                            {"what": name, "precision": precision, "way": way, "TTA": tta},
                            partial(see, part, network, pixels, precision, way, tta, gflop, rate),
                        )


def count_flops(network: Any, pixels: Any, device: torch.device) -> float:
    """Count GFLOP per image."""
    from torch.utils.flop_counter import FlopCounterMode

    from wsiseg.model.device import to_images

    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(to_images(pixels, device))
    return float(counter.get_total_flops()) / 1e9


def product_rate(part: Part, precision: str) -> float:
    """Measure GFLOP/s of a large matrix product."""
    from wsiseg.model.device import autocast

    side = 512 if part.small else 8192
    a = torch.randn(side, side, device=part.device)
    with torch.inference_mode(), autocast(part.device, precision):  # type: ignore[arg-type]
        return 2e-9 * side**3 / part.seconds(lambda: a @ a)


def see(
    part: Part, network: Any, pixels: Any, precision: Any, way: str, tta: int, gflop: float,
    rate: float,
) -> Row:  # fmt: skip
    """Run the network once on a batch of images."""
    from wsiseg.config import PredictConfig
    from wsiseg.model.checkpoint import read_info
    from wsiseg.model.device import autocast, to_images
    from wsiseg.model.trained import TrainedModel
    from wsiseg.predict import run_model

    row: Row = {}
    if way == "as predict does":
        source = TrainedModel(network, read_info("tiny"))  # whose names play no part
        settings = PredictConfig(precision=precision, tta=tta)
        work: Callable[[], object] = lambda: run_model(source, pixels, settings)  # noqa: E731
    else:
        images = to_images(pixels, part.device)
        if way != "channels last":
            images = images.contiguous()
        inner = arrange(network, images, way, precision)

        def work() -> None:
            with torch.inference_mode(), autocast(part.device, precision):
                inner()

    with part.memory(row, len(pixels)):
        seconds = part.seconds(work) / len(pixels)
    floor = tta * gflop / rate
    return {"images/s": round(1 / seconds, 1), "floor/ours": round(floor / seconds, 3)} | row


def arrange(network: Any, images: torch.Tensor, way: str, precision: Any) -> Callable[[], object]:
    """Return a function that runs the network on these images in one of the ways."""
    from wsiseg.model.device import autocast

    if way == "compiled":
        compiled = torch.compile(lambda x: network(x).cams)
        return lambda: compiled(images)
    if way == "graph":
        if images.device.type != "cuda":
            raise RuntimeError("graphs are CUDA's")
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), autocast(images.device, precision):
            for _ in range(3):
                network(images)
            torch.cuda.synchronize()
            with torch.cuda.graph(graph):
                network(images)
        return graph.replay
    return lambda: network(images).cams


def training(part: Part) -> None:
    """Measure steps per second of `wsiseg train`."""
    import training as cpu_too

    with weights() as folder:
        for name in models(part):
            for precision in ("float32", "bfloat16"):
                batch = 2 if part.small else 64
                case = {
                    "model": name, "precision": precision, "batch": batch, "tta": 1,
                    "device": part.device.type, "task": "training",
                    "repeat": 1 if part.small else ROUNDS,
                }  # fmt: skip

                def step(case: Any = case, batch: int = batch) -> Row:
                    found = cpu_too.measure(case, folder)
                    seconds = found["seconds"] * batch
                    return {
                        "steps/s": round(1 / seconds, 2),
                        "floor/ours": round(found["floor"] / found["seconds"], 3),
                        "MB": round(found["memory"], 1),
                    }

                part.measure({"what": name, "precision": precision, "batch": batch}, step)


# -- whole slides --------------------------------------------------------------------------------


def job(part: Part) -> None:
    """Run `wsiseg annotate` on a synthetic slide, and measure how long the GPU was busy."""
    from tiling.slides import write_slide

    from wsiseg.geometry import Size

    size = Size(4_000, 3_200) if part.small else Size(40_000, 32_000)
    with tempfile.TemporaryDirectory() as folder:
        slide = Path(folder) / "slide.svs"
        write_slide(slide, size)
        for refine in ("true", "false"):
            part.measure(
                {"what": f"{size.width} x {size.height}", "refine": refine},
                lambda refine=refine: annotate(part, slide, refine),
            )


def annotate(part: Part, slide: Path, refine: str) -> Row:
    """Run it once in a separate process."""
    out = slide.parent / f"out-{refine}"
    command = [sys.executable, "-m", "wsiseg", "annotate", str(slide), "-o", str(out), "--quiet"]
    for setting in (f"stitch.refine={refine}", f"predict.device={part.device.type}"):
        command += ["--set", setting]
    with sampling(part.device) as samples:
        start = time.perf_counter()
        left = max(20.0, part.end - time.monotonic())
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=left)
        seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError((done.stderr or done.stdout).strip().splitlines()[-1])
    return {"seconds": round(seconds, 1)} | (
        {"GPU busy %": round(sum(samples) / len(samples), 1)} if samples else {}
    )


@contextmanager
def sampling(device: torch.device) -> Iterator[list[int]]:
    """Sample the utilisation of the GPU in per cent, ten times a second; empty if unknown."""
    samples: list[int] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.wait(0.1):
            try:
                samples.append(torch.cuda.utilization())
            except Exception:  # noqa: BLE001 # needs nvidia-ml-py; the run is worth having without
                return

    watcher = threading.Thread(target=ask, daemon=True)
    if device.type == "cuda":
        watcher.start()
    try:
        yield samples
    finally:
        ended.set()


def decode(part: Part) -> None:
    """Measure JPEG tiles per second: on one core as in the reader, and by nvJPEG of torchvision."""
    import simplejpeg
    from training import Noise

    count = 8 if part.small else 1024
    pixels = Noise(min(count, 64)).pixels
    files = [simplejpeg.encode_jpeg(pixels[i % len(pixels)], quality=80) for i in range(count)]

    def on_cpu() -> Row:
        seconds = part.seconds(lambda: [simplejpeg.decode_jpeg(file) for file in files])
        return {"tiles/s": round(count / seconds)}

    def on_gpu() -> Row:
        io = importlib.import_module("torchvision.io")
        packed = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
        seconds = part.seconds(lambda: io.decode_jpeg(packed, device=part.device))
        return {"tiles/s": round(count / seconds)}

    part.measure({"what": "libjpeg-turbo, one core"}, on_cpu)
    part.measure({"what": f"torchvision on {part.device.type}"}, on_gpu)


# -- the call ------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[Part], None]] = {
    "kernels": kernels, "crf": crf, "model": model, "training": training, "job": job,
    "decode": decode,
}  # fmt: skip


def main() -> None:
    """Run the parts one after the other, print their tables, and save the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_AsWritten)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=480)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        PARTS[given.parts[0]](Part(given.device, given.seconds))
        return
    if given.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch sees no CUDA device: nothing is measured (--device cpu rehearses)")
    name = torch.cuda.get_device_name() if given.device == "cuda" else "CPU (a rehearsal)"
    print(f"{name}, torch {torch.__version__}, Python {sys.version.split()[0]}")
    found: dict[str, Any] = {"device": name, "torch": torch.__version__}
    whole = sum(SHARES[part] for part in given.parts)
    for part in given.parts:
        seconds = given.seconds * SHARES[part] / whole
        found[part] = run_part(part, given.device, seconds)
        print_table(part, found[part])
        given.out.write_text(json.dumps(found, indent=1))


def run_part(part: str, device: str, seconds: float) -> list[Row]:
    """Run a part in a process; rows are kept even if it hangs or dies."""
    command = [sys.executable, "-u", __file__, "--one", "--parts", part, "--device", device]
    command += ["--seconds", str(0.9 * seconds)]
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as wrong:
        try:
            code = subprocess.run(
                command, stdout=said, stderr=wrong, timeout=max(30.0, seconds), check=False
            ).returncode
            why = "" if code == 0 else f"ended with {code}"
        except subprocess.TimeoutExpired:
            why = "its time was over"
        said.seek(0)
        wrong.seek(0)
        rows = [json.loads(line) for line in said if line.startswith("{")]
        if why:
            last = (wrong.read().strip().splitlines() or [""])[-1]
            rows.append({"what": "the rest", "why": f"{why}: {last}"[:300]})
    return rows


def print_table(part: str, rows: list[Row]) -> None:
    """Print a Markdown table for RESULTS.md."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    print(f"\n## {part}\n\n| {' | '.join(names)} |\n|{'---|' * len(names)}")
    for row in rows:
        print(f"| {' | '.join(str(row.get(name, '')) for name in names)} |", flush=True)


class _AsWritten(argparse.RawDescriptionHelpFormatter):
    """A formatter that keeps the lines of the description."""


if __name__ == "__main__":
    main()
