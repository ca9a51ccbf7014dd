"""How fast the networks run and train, against what their FLOPs allow."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from part import ROUNDS, Part, Row, models, weights

LOOKS = ("as predict does", "on the device", "channels last", "graph", "compiled")


def model(part: Part) -> None:
    """Measure images per second of each encoder, as a share of what its FLOPs allow."""
    from training import Noise, make_model

    batch = {"vit-b": 256, "ensemble": 512, "tiny": 512}
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
