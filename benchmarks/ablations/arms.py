"""Train a head per arm on features that are computed once, and score it."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from data import SIDE, Case, Pictures
from torch import Tensor, nn

from wsiseg.annotations import BACKGROUND
from wsiseg.config import TrainConfig
from wsiseg.evaluate import confusion_matrix
from wsiseg.learn.precision import mean_known, precision_by_class
from wsiseg.model.encoders import ENCODERS, Entry, load_encoder
from wsiseg.model.trained import load_trained
from wsiseg.train import Patches, train_model

DIVERSITY = 0.5
BASE = "text, k = 1"

ARMS: dict[str, dict[str, Any]] = {
    f"{kind}, k = {k}": {"prototypes": kind, "prototypes_per_class": k}
    for k in (1, 3) for kind in ("text", "images", "both", "random")
} | {
    "images, k = 3, kept apart": {
        "prototypes": "images", "prototypes_per_class": 3, "diversity_weight": DIVERSITY
    }
}  # fmt: skip
CAMS: dict[str, dict[str, dict[str, Any]]] = {
    "tiny": {  # reads level 1, stride 8
        "CAM of the finer level (stride 4)": {"cam_levels": (0,)},
        "levels 8 and 16 fused": {"cam_levels": (1, 2)},
        "four looks (stride 4)": {"cam_overlap": 2},
    },
    "small": {  # reads level 2, stride 16
        "CAM of the finer level (stride 8)": {"cam_levels": (1,)},
        "levels 8 and 16 fused": {"cam_levels": (1, 2)},
        "four looks (stride 8)": {"cam_overlap": 2},
    },
}


class Kept(nn.Module):
    """An encoder that caches the features of whole patches, which every head needs."""

    seen: ClassVar[dict[tuple[str, str, object], Tensor]] = {}

    def __init__(self, name: str, options: dict[str, str]) -> None:
        super().__init__()
        self.inner: Any = load_encoder(name, **options)
        self.kind = f"{name} {options}"

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.inner, name)

    def pyramid(self, images: Tensor, levels: Sequence[int] = (0, 1, 2, 3)) -> list[Tensor]:
        """Do as the encoder, from the cache."""
        return [
            self._recall(images, level, lambda one, at=level: self.inner.pyramid(one, [at])[0])
            for level in levels
        ]

    def embed_image(self, images: Tensor) -> Tensor:
        """Do as the encoder, from the cache."""
        return self._recall(images, "embedding", self.inner.embed_image)

    def _recall(self, images: Tensor, what: object, look: Any) -> Tensor:
        if images.shape[2] < SIDE:  # the contrast has new regions each time
            return look(images)
        found = []
        for image in images:
            key = (self.kind, hashlib.sha1(image.numpy().tobytes()).hexdigest(), what)
            if key not in self.seen:
                self.seen[key] = look(image[None])[0].half()
            found.append(self.seen[key].float())
        return torch.stack(found)


def keep_small(weights: str) -> Kept:
    """Return `small` with a cache, of other weights than the shipped ones."""
    return Kept("small", {"weights": weights})


def keep_tiny() -> Kept:
    """Return `tiny` with a cache."""
    return Kept("tiny", {})


def train(case: Case, config: TrainConfig, folder: Path) -> Any:
    """Train a head as `wsiseg train` does."""
    out = folder / "model.safetensors"
    return load_trained(train_model(case.train, config, out, overwrite=True), case.options)


@torch.inference_mode()
def confusions(source: Any, pictures: Pictures, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """``(N, K + 1, K + 1)``: with the classes given, and with none."""
    given, free = [], []
    for pixels, truth in zip(pictures.pixels, pictures.truth, strict=True):
        images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        cams = source.cams(images)[:, :classes]
        maps = F.interpolate(cams, truth.shape, mode="bilinear", align_corners=False)[0].numpy()
        shown = np.unique(truth[truth < classes])
        masked = np.full_like(maps, -np.inf)
        masked[shown] = maps[shown]
        known = truth < classes
        for rows, scores in ((given, masked), (free, maps)):
            found = np.where(known, scores.argmax(0), BACKGROUND).astype(np.uint8)
            rows.append(confusion_matrix(truth, found, classes))
    return np.stack(given), np.stack(free)


def precision(source: Any, held: Patches) -> float:
    """Compute the mean average precision of tile labels."""
    logits = []
    with torch.inference_mode():
        for start in range(0, len(held), 16):
            which = range(start, min(start + 16, len(held)))
            images = torch.from_numpy(held.read(which)).permute(0, 3, 1, 2).float() / 255
            logits.append(source.pool(source.look(images)).numpy())
    return float(mean_known(precision_by_class(np.concatenate(logits), held.labels)[0]))


def run(
    keep: Path, encoder: str, seed: int, case: Case, common: dict[str, Any], names: Any,
    tissues: int, arms: Sequence[str],
) -> None:  # fmt: skip
    """Train and score every arm on one seed; stored results are reused."""
    torch.set_num_threads(1)
    ENCODERS["kept"] = Entry(f"arms:keep_{encoder}", options=None, teacher="tiny")
    for number, (arm, settings) in enumerate((ARMS | CAMS[encoder]).items()):
        path = keep / f"{encoder}-{seed}-{number}.npz"
        if path.exists() or (arms and arm not in arms):
            continue
        config = TrainConfig.model_validate(
            {"encoder": "kept", "encoder_options": case.options, "device": "cpu", "seed": seed}
            | {"classes": names, **common, **settings}
        )
        with tempfile.TemporaryDirectory() as folder:
            source = train(case, config, Path(folder))
        found: dict[str, Any] = {}
        for name, pictures in case.sets.items():
            both = confusions(source, pictures, tissues)
            for gate, matrices in zip(("given", "free"), both, strict=True):
                found[f"{name} {gate}"] = matrices
                found[f"{name} {gate}/slides"] = np.array(pictures.slides)
        if case.held is not None:
            found["precision"] = np.array([precision(source, case.held)])
        np.savez(path, **found)
        print(f"seed {seed}: {arm}", file=sys.stderr, flush=True)
