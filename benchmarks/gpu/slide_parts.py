"""A whole slide, and JPEG tiles decoded on the CPU and on the GPU."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from part import Part, Row


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
