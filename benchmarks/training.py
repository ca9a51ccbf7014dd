"""Training and inference of ConStruct: time and memory per image, against the floor by FLOPs.

    python benchmarks/training.py [--device cpu|cuda] [--repeat 5] [--models tiny vit-b]

`vit-b` is CONCH's ViT-B/16 at 224 px with MiT-B1 as teacher, both with random weights; `tiny`,
`lite` and `small` are the encoders that ship. Every case is a separate process: one thread and CPU
seconds on a CPU, wall time on a GPU. The floor is the counted FLOPs of matrix products,
convolutions and attention over the rate of a large matrix product in the same precision, measured
in turn with the work. Images are in memory; decoding is left out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from wsiseg.config import PredictConfig, TrainConfig
from wsiseg.model.checkpoint import read_info
from wsiseg.model.construct import ConStruct
from wsiseg.model.device import autocast
from wsiseg.model.trained import TrainedModel
from wsiseg.predict import run_model
from wsiseg.train.features import FrozenFeatures, draw_turns
from wsiseg.train.step import Trainer

SIDE = 224
CLASSES = 4
BATCH = {"cpu": 8, "cuda": 64}


class Noise:
    """Patches in memory; implements `PatchSource` as far as training uses it."""

    known = None

    def __init__(self, count: int) -> None:
        rng = np.random.default_rng(0)
        coarse = rng.integers(80, 256, (count, SIDE // 8, SIDE // 8, 3), dtype=np.uint8)
        self.pixels = coarse.repeat(8, 1).repeat(8, 2)
        self.labels = np.eye(CLASSES, dtype=np.float32)[np.arange(count) % CLASSES]

    def read(self, indices: list[int]) -> np.ndarray:
        """``(B, 224, 224, 3)`` uint8."""
        return self.pixels[list(indices)]


def write_weights(folder: Path) -> None:
    """Write random weights in the layouts of CONCH's and NVIDIA's files."""
    from wsiseg.model.encoders.conch_file import _Conch
    from wsiseg.model.encoders.segformer import MixTransformer, _name_sources

    torch.manual_seed(0)
    conch = {n: 0.02 * torch.randn(t.shape) for n, t in _meta(_Conch).items()}
    torch.save(conch, folder / "pytorch_model.bin")
    teacher = MixTransformer((4, 2, 2, 1)).state_dict()
    names = _name_sources(teacher, hub=False)
    torch.save({names[n][0]: t for n, t in teacher.items()}, folder / "mit_b1.pth")


def _meta(make: Callable[[], torch.nn.Module]) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return make().state_dict()


def make_model(name: str, folder: Path, teacher: bool) -> ConStruct:
    """Make the model with random weights."""
    from wsiseg.model.encoders import default_teacher, load_encoder, load_teacher

    vit = name == "vit-b"
    kind = "conch" if vit else name
    of_student = {"weights": folder / "pytorch_model.bin"} if vit else {}
    of_teacher = {"weights": folder / "mit_b1.pth"} if vit else {}
    encoder = load_encoder(kind, **of_student)
    texts = F.normalize(torch.randn(CLASSES, encoder.embedding_dim), dim=1)
    made = load_teacher(default_teacher(kind), **of_teacher) if teacher else None
    return ConStruct(encoder, texts, teacher=made)


def inference(case: dict[str, Any], folder: Path) -> Callable[[], object]:
    """Run one batch as in `wsiseg predict`."""
    device = torch.device(case["device"])
    model = make_model(case["model"], folder, teacher=False).eval().requires_grad_(False).to(device)
    settings = PredictConfig(precision=case["precision"], tta=case["tta"])
    images = Noise(case["batch"]).pixels
    source = TrainedModel(model, read_info("tiny"))  # names and colours do not matter
    return lambda: run_model(source, images, settings)


def training(case: dict[str, Any], folder: Path) -> Callable[[], object]:
    """Run one step of `wsiseg train`: frozen encoders, losses, gradients, AdamW.

    With `tiny`, whose features are cached, the encoders run only in the first pass.
    """
    shrink = 1 if case["model"] == "vit-b" else 2
    config = TrainConfig(precision=case["precision"], contrast_shrink=shrink)
    device, patches = torch.device(case["device"]), Noise(case["batch"])
    model = make_model(case["model"], folder, teacher=True).to(device)
    trainer = Trainer(model, config, 1000)
    source = FrozenFeatures(
        model.encoder, model.teacher, patches, device=device, autocast=trainer.autocast
    )
    batch, labels = torch.arange(case["batch"]), torch.from_numpy(patches.labels)
    turns = draw_turns(len(batch), "wsiseg", torch.Generator().manual_seed(0))
    return lambda: trainer.step(source.read(batch, turns), labels)


def multiply(device: torch.device, precision: str) -> tuple[Callable[[], object], float]:
    """Return a large matrix product, and its FLOPs."""
    side = 1024 if device.type == "cpu" else 8192
    a = torch.randn(side, side, device=device)

    def work() -> None:
        with torch.inference_mode(), autocast(device, precision):
            a @ a

    return work, 2.0 * side**3


def measure(case: dict[str, Any], folder: Path) -> dict[str, float]:
    """Measure seconds and FLOPs per image, the floor, and the peak memory in MB above the model."""
    device = torch.device(case["device"])
    work = (inference if case["task"] == "inference" else training)(case, folder)
    product_, flops = multiply(device, case["precision"])
    memory = peak_above(work, device)
    if "gflop" not in case:  # counted in float32: the counter does not know autocast
        with FlopCounterMode(display=False) as counter:
            work()
        case["gflop"] = counter.get_total_flops() / case["batch"] / 1e9
    product_()
    seconds, rates = [], []
    for _ in range(case["repeat"]):
        rates.append(flops / 1e9 / min(clock(product_, device) for _ in range(3)))
        seconds.append(clock(work, device))
    return {
        "seconds": median(seconds) / case["batch"], "gflop": case["gflop"],
        "rate": median(rates), "floor": case["gflop"] / median(rates), "memory": memory,
    }  # fmt: skip


def peak_above(work: Callable[[], object], device: torch.device) -> float:
    """Measure the peak memory in MB during the work, above that before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak begins anew
    before = resident("VmRSS")
    work()
    return resident("VmHWM") - before


def resident(name: str) -> float:
    """Read a line of this process's memory in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def clock(work: Callable[[], object], device: torch.device) -> float:
    """Return the CPU seconds of the process; on a GPU the wall time once it has finished."""
    if device.type == "cpu":
        start = time.process_time()
        work()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def cases(given: argparse.Namespace) -> list[dict[str, Any]]:
    """List the cases."""
    common = {"device": given.device, "repeat": given.repeat, "batch": BATCH[given.device]}
    tasks = [("inference", 1), ("inference", 6), ("training", 1)]
    return [
        {"model": model, "task": task, "tta": tta, "precision": precision, **common}
        for model, (task, tta), precision in product(given.models, tasks, given.precisions)
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=["tiny", "vit-b"])
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        torch.set_num_threads(1)
        print(json.dumps(measure(json.loads(given.case), Path(given.folder))))
        return
    if given.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch sees no CUDA device: not measured")
    print(
        "| model | task | precision | ms an image | images/s | GFLOP | floor ms | floor/ours | MB |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    vit = "vit-b" in given.models
    with tempfile.TemporaryDirectory() if vit else nullcontext("") as folder:
        if vit:
            write_weights(Path(folder))
        counted: dict[tuple[str, str, int], float] = {}
        for case in cases(given):
            same = (case["model"], case["task"], case["tta"])
            if same in counted:
                case["gflop"] = counted[same]
            call = [sys.executable, __file__, "--case", json.dumps(case), "--folder", folder]
            done = subprocess.run(call, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr)
            row = json.loads(done.stdout.splitlines()[-1])
            counted[same] = row["gflop"]
            task = case["task"] + (f", TTA {case['tta']}" if case["task"] == "inference" else "")
            print(
                f"| {case['model']} | {task} | {case['precision']} | {1000 * row['seconds']:.1f} "
                f"| {1 / row['seconds']:.1f} | {row['gflop']:.2f} | {1000 * row['floor']:.1f} "
                f"| {row['floor'] / row['seconds']:.2f} | {row['memory']:.0f} |", flush=True,
            )  # fmt: skip


if __name__ == "__main__":
    main()
