"""Export a second-stage network as ONNX, for other programs: any batch, any size.

The model takes RGB in [0, 1] and normalises it itself, so that callers need not. Its metadata
say so, in our words (``wsiseg``) and in those of a WSInfer configuration (``wsinfer``).
"""

from __future__ import annotations

import copy
import io
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsiseg.atomic import open_atomic
from wsiseg.errors import ConfigError, MissingDependencyError
from wsiseg.model.segment.source import Segmenter
from wsiseg.model.threads import fixed_threads

__all__ = ["INPUT", "OUTPUTS", "describe_onnx", "export_onnx"]

INPUT = "image"
"""``(N, 3, H, W)`` float32 RGB in [0, 1]; sides are multiples of the network's step."""
OUTPUTS = ("probabilities", "logits", "evidence")
"""``(N, C, H, W)`` float32 that sum to 1, the network's own logits ``(N, C, H / 4, W / 4)``, and
evidence of classes ``(N, C, H / 16, W / 16)``, unless it was taught before there was any."""
_OPSET = 17


class _Whole(nn.Module):
    """The network with its calibration, giving probabilities at the size of the image."""

    def __init__(self, source: Segmenter) -> None:
        super().__init__()
        self.network, self.stride = copy.deepcopy(source.network).cpu(), source.stride
        pairs = torch.tensor(source.calibration or ((1.0, 0.0),) * source.channels)
        self.register_buffer("scale", pairs[:, 0, None, None])
        self.register_buffer("offset", pairs[:, 1, None, None])

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        logits, evidence = self.network(image)
        enlarged = F.interpolate(
            logits * self.scale + self.offset, scale_factor=self.stride, mode="bilinear",
            align_corners=False,
        )  # fmt: skip
        shares = enlarged.softmax(1)
        return (shares, logits) if evidence is None else (shares, logits, evidence)


def export_onnx(source: Segmenter, out: str | Path, *, overwrite: bool = False) -> Path:
    """Write `source` as an ONNX file; it appears whole or not at all.

    Raises
    ------
    ConfigError
        If `out` exists and is not to be overwritten, or does not end in ``.onnx``.
    MissingDependencyError
        If the extra `onnx` is not installed; gives the install line.
    """
    out = Path(out)
    if out.suffix.lower() != ".onnx":
        raise ConfigError(f"{out}: is written as ONNX; give it a name that ends in .onnx")
    if out.exists() and not overwrite:
        raise ConfigError(f"{out}: already exists; give another name, or say to overwrite it")
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"ONNX export needs {error.name}: pip install 'wsiseg[onnx]'"
        ) from error
    free = {0: "batch", 2: "height", 3: "width"}
    outputs = _outputs_of(source)
    cells = {name: {0: "batch", 2: f"{name}_rows", 3: f"{name}_columns"} for name in outputs[1:]}
    buffer = io.BytesIO()
    # The older of torch's exporters: the newer takes a minute to work out the dynamic sizes.
    with _quiet(), fixed_threads(1), torch.no_grad():
        torch.onnx.export(
            _Whole(source).eval(), (torch.zeros(2, 3, 96, 128),),
            buffer,  # type: ignore[arg-type]  # which the older exporter takes
            dynamo=False,
            opset_version=_OPSET, input_names=[INPUT], output_names=list(outputs),
            dynamic_axes={INPUT: free, OUTPUTS[0]: free, **cells},
        )  # fmt: skip
    model = onnx.load_from_string(buffer.getvalue())
    for name, text in describe_onnx(source).items():
        model.metadata_props.add(key=name, value=text)
    onnx.checker.check_model(model)
    with open_atomic(out) as file:
        file.write(model.SerializeToString(deterministic=True))
    return out


def _outputs_of(source: Segmenter) -> tuple[str, ...]:
    return OUTPUTS if source.network.presence is not None else OUTPUTS[:2]


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide torch's warnings about its own exporter, on which a user cannot act."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def describe_onnx(source: Segmenter) -> dict[str, str]:
    """Return the metadata of the file: texts by key, two of them JSON."""
    info = source.info
    meanings = {
        "probabilities": "at the size of the image, summing to 1",
        "logits": f"of places of {source.stride} px, before calibration",
        "evidence": "logits of showing a class: the mean of the highest fifth of a class's places "
        "is the logit with which the image shows it",
    }
    ours: dict[str, Any] = {
        "input": "RGB divided by 255, channels first; normalised inside: mean 0, spread 1",
        "sides": f"multiples of {source.sides.step} px, any number of images",
        "mpp": info.mpp, "tile": info.tile, "stride": source.stride,
        "classes": list(info.names), "colors": [list(color) for color in info.colors],
        "background": info.background,
        "outputs": {name: meanings[name] for name in _outputs_of(source)},
        "calibrated": bool(info.calibration),
        "checkpoint": info.sha256, "network": info.encoder, "first_stage": info.first_stage,
    }  # fmt: skip
    wsinfer: dict[str, Any] = {
        "spec_version": "1.0", "architecture": f"wsiseg {info.encoder}",
        "num_classes": len(info.names), "class_names": list(info.names),
        "patch_size_pixels": info.tile, "spacing_um_px": info.mpp,
        "transform": [
            {"name": "Resize", "arguments": {"size": info.tile}},
            {"name": "ToTensor"},
            {"name": "Normalize", "arguments": {"mean": [0.0] * 3, "std": [1.0] * 3}},
        ],
    }  # fmt: skip
    card = "" if info.card is None else info.card.licence
    return {
        "wsiseg": json.dumps(ours, sort_keys=True, ensure_ascii=False),
        "wsinfer": json.dumps(wsinfer, sort_keys=True, ensure_ascii=False),
        "note": "a segmentation network: a class at every pixel, not one a patch",
        **({"licence": card} if card else {}),
    }
