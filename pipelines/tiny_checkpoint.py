"""Make the checkpoint that ships with wsiseg: `tiny`, trained on patch labels of synthetic tissue.

    python pipelines/tiny_checkpoint.py wsiseg/model/tiny.safetensors

Everything is seeded, so that two runs on one machine give the same bytes. Scores on a slide that it
did not see are printed: CAMs alone, before blending, gating and the CRF.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from wsiseg.config import TrainConfig
from wsiseg.demo import Truth, sample_patches, synthesize_slide
from wsiseg.evaluate import confusion_matrix, score
from wsiseg.geometry import Box
from wsiseg.model.checkpoint import load_checkpoint
from wsiseg.model.construct import ConStruct
from wsiseg.slide import open_slide
from wsiseg.train import load_patches, train_model

SEEDS = (101, 102, 103)  # each has its own stain; the demo's slides are 1 and 2
UNSEEN = 104
PATCHES = 200  # per slide
SIDE = 224
NOTE = "trained on synthetic tissue: for trying the tool, not for real tissue"


def make(out: Path, folder: Path) -> None:
    """Synthesize, sample, train, and score on a slide that was not trained on."""
    config = TrainConfig()
    rows = ["image,labels"]
    for seed in SEEDS:
        slide = folder / f"{seed}.svs"
        truth = synthesize_slide(slide, width=8192, height=6144, seed=seed)
        table = sample_patches(slide, truth, folder / str(seed), count=PATCHES, seed=seed)
        part = load_patches(table, config.classes)
        for path, label in zip(part.paths, part.labels, strict=True):
            names = [name for name, flag in zip(config.classes, label, strict=True) if flag]
            rows.append(f"{path.relative_to(folder)},{';'.join(names)}")
    (folder / "patches.csv").write_text("\n".join(rows))
    patches = load_patches(folder / "patches.csv", config.classes)
    checkpoint = train_model(patches, config, folder / "tiny.safetensors", report, note=NOTE)
    unseen = folder / "unseen.svs"
    truth = synthesize_slide(unseen, width=6144, height=4096, seed=UNSEEN)
    print("\n", score(confusion(load_checkpoint(checkpoint)[0], unseen, truth)))
    out.write_bytes(checkpoint.read_bytes())  # the files of losses beside it are not needed


def confusion(model: ConStruct, path: Path, truth: Truth) -> np.ndarray:
    """Count the classes of the largest upsampled CAM against the truth, where there is tissue."""
    total = np.zeros((5, 5), np.int64)
    height, width = truth.labels.shape
    with open_slide(path) as slide, torch.inference_mode():
        for box in [
            Box(x, y, SIDE, SIDE)
            for y in range(0, height - SIDE, SIDE) for x in range(0, width - SIDE, SIDE)
        ]:  # fmt: skip
            pixels = torch.from_numpy(slide.read(box, truth.mpp)).permute(2, 0, 1)[None] / 255
            cams = F.interpolate(model(pixels).cams, (SIDE, SIDE), mode="bilinear")
            true = truth.labels[box.slices()]
            predicted = cams[0].argmax(0).numpy().astype(np.uint8)
            total += confusion_matrix(true[true != 255], predicted[true != 255], 4)
    return total


def report(step: str, done: int, total: int) -> None:
    """Print the progress of the training."""
    print(f"\r{step} {done}/{total}", end="", flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        make(Path(sys.argv[1]), Path(folder))
