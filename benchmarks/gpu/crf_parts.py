"""Whether CRF and CAMs agree with the CPU's, and what the CRF costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from part import SIDE, Part, Row, models, weights

GOAL_MS = {"exact": 0.25, "fast": 0.12}
"""Of the CRF on an H100, a tile."""


def ways(part: Part) -> list[tuple[str, str]]:
    """List the back ends and modes that can run here."""
    tensor = [("torch", "exact"), ("torch", "fast")]
    return tensor[1:] if part.small else [("triton", "exact"), ("triton", "fast"), *tensor]


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
