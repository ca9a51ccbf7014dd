"""The tiny encoder on real H&E: seven tissues of Kather et al., ten tiles each, from tile labels.

    python benchmarks/real_he.py FOLDER [--seeds 1 2 3 4 5]       FOLDER holds CLASS___*.jpg

Each seed splits the tiles into five folds; every tile is scored once, by a model that was not
trained on its fold. It is compared with the best constant guess, and with colour histograms (RGB
and HSV, joint and by channel) with logistic regression or nearest neighbours, whose settings are
chosen within the training folds. ConStruct's settings were chosen on seed 0, which is not reported.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from wsiseg.config import TrainConfig
from wsiseg.model.checkpoint import load_checkpoint
from wsiseg.train import Patches, train_model

FOLDS = 5
INNER = 4
# As many steps as in the demo. No contrast: a tile shows one tissue, so it has no background.
SETTINGS = {"epochs": 120, "contrast_weight": 0.0}


class Tiles(NamedTuple):
    """All tiles."""

    paths: tuple[Path, ...]
    classes: tuple[str, ...]
    labels: np.ndarray
    """``(N,)`` int64."""


def find_tiles(folder: Path) -> Tiles:
    """Find the tiles of a folder; the class is the name up to the first underscore."""
    paths = tuple(sorted(folder.glob("*___*.jpg")))
    names = [path.name.split("_")[0] for path in paths]
    classes = tuple(sorted(set(names)))
    return Tiles(paths, classes, np.array([classes.index(name) for name in names]))


def split(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Return the fold of each tile ``(N,)``, stratified by class."""
    rng, fold = np.random.default_rng(seed), np.zeros(len(labels), int)
    for label in np.unique(labels):
        (at,) = np.nonzero(labels == label)
        fold[rng.permutation(at)] = np.arange(len(at)) % folds
    return fold


def construct(tiles: Tiles, train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """Label the `test` tiles by the largest class logit of a model trained on the others."""
    config = TrainConfig(classes=tiles.classes, device="cpu", seed=seed, **SETTINGS)
    known, asked = (_patches(tiles, which) for which in (train, test))
    with tempfile.TemporaryDirectory() as folder:
        model, _ = load_checkpoint(train_model(known, config, Path(folder, "m.safetensors")))
    images = torch.from_numpy(asked.read(range(len(asked)))).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        return model(images).logits.argmax(1).numpy()


def _patches(tiles: Tiles, which: np.ndarray) -> Patches:
    labels = np.eye(len(tiles.classes), dtype=np.float32)[tiles.labels[which]]
    return Patches(tuple(tiles.paths[i] for i in which), labels, 224)


def histograms(paths: tuple[Path, ...]) -> list[np.ndarray]:
    """Return square roots of relative frequencies ``(N, D)``, one array per kind of histogram."""
    images = [Image.open(path).convert("RGB") for path in paths]
    pixels = {
        mode: [np.asarray(image.convert(mode)).reshape(-1, 3) for image in images]
        for mode in ("RGB", "HSV")
    }
    found = []
    for mode, bins in product(pixels, (8, 16, 32)):
        counts = [[np.histogram(p[:, c], bins, (0, 256))[0] for c in range(3)]
                  for p in pixels[mode]]  # fmt: skip
        found.append(np.array(counts).reshape(len(paths), -1))
    for mode, bins in product(pixels, (4, 6, 8)):
        edges = [(0, 256)] * 3
        counts = [np.histogramdd(p, (bins,) * 3, edges)[0].ravel() for p in pixels[mode]]
        found.append(np.array(counts))
    return [np.sqrt(counts / counts.sum(1, keepdims=True)) for counts in found]


def regress(x: np.ndarray, y: np.ndarray, asked: np.ndarray, penalty: float) -> np.ndarray:
    """Classify by multinomial logistic regression."""
    known, labels = torch.from_numpy(x), torch.from_numpy(y)
    weight = torch.zeros(x.shape[1], int(y.max()) + 1, dtype=torch.double, requires_grad=True)
    bias = torch.zeros(weight.shape[1], dtype=torch.double, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        solver.zero_grad()
        value = F.cross_entropy(known @ weight + bias, labels) + penalty * weight.square().sum()
        value.backward()
        return value

    solver.step(loss)
    with torch.no_grad():
        return (torch.from_numpy(asked) @ weight + bias).argmax(1).numpy()


def neighbours(x: np.ndarray, y: np.ndarray, asked: np.ndarray, k: int) -> np.ndarray:
    """Classify by the majority of the k nearest neighbours."""
    near = ((asked[:, None] - x) ** 2).sum(2).argsort(1, kind="stable")[:, :k]
    return np.array([np.bincount(y[row]).argmax() for row in near])


WAYS = [*product([regress], (1e-5, 1e-4, 1e-3, 1e-2)), *product([neighbours], (1, 3, 5))]


def colours(
    found: list[np.ndarray], y: np.ndarray, train: np.ndarray, test: np.ndarray, seed: int
) -> np.ndarray:
    """Label by the histogram, method and setting that are best within the training tiles."""
    inner = split(y[train], INNER, seed)
    scores = {}
    for (at, x), (method, setting) in product(enumerate(found), WAYS):
        right = 0
        for fold in range(INNER):
            known, asked = train[inner != fold], train[inner == fold]
            right += (method(x[known], y[known], x[asked], setting) == y[asked]).sum()
        scores[at, method, setting] = right
    at, method, setting = max(scores, key=lambda way: scores[way])
    return method(found[at][train], y[train], found[at][test], setting)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    given = parser.parse_args()
    torch.set_num_threads(1)
    tiles = find_tiles(given.folder)
    found, y = histograms(tiles.paths), tiles.labels
    rows, confusion = [], np.zeros((len(tiles.classes),) * 2, int)
    print("| seed | ConStruct, tiny | colour histogram | constant |\n|---|---|---|---|")
    for seed in given.seeds:
        fold, right = split(y, FOLDS, seed), np.zeros(2)
        for out in range(FOLDS):
            (train,), (test,) = np.nonzero(fold != out), np.nonzero(fold == out)
            ours = construct(tiles, train, test, seed)
            right += [(ours == y[test]).sum(),
                      (colours(found, y, train, test, seed) == y[test]).sum()]  # fmt: skip
            np.add.at(confusion, (y[test], ours), 1)
        rows.append(right / len(y))
        constant = np.bincount(y).max() / len(y)
        print(f"| {seed} | {rows[-1][0]:.3f} | {rows[-1][1]:.3f} | {constant:.3f} |", flush=True)
    mean, spread = np.mean(rows, 0), np.std(rows, 0, ddof=1)
    print(
        f"| mean ± spread | {mean[0]:.3f} ± {spread[0]:.3f} | {mean[1]:.3f} ± {spread[1]:.3f} | |"
    )
    print(f"\nConStruct, all seeds; rows are truth: {', '.join(tiles.classes)}\n{confusion}")


if __name__ == "__main__":
    main()
