"""Pseudo-masks: their cost above the floor, and a long run that is killed again and again.

    python benchmarks/masks.py speed FOLDER [--model tiny]
    python benchmarks/masks.py kills FOLDER [--model tiny] [--patches 10000] [--kills 8]

Patches are cut at random from a generated slide and labelled by its truth; FOLDER keeps them.
`speed`: CPU milliseconds of one thread per patch, in turn, medians of the rounds. The floor is what
cannot be spared: loading the model, reading the images, the model for every augmentation, and the
dense CRF on given probabilities. `kills`: `wsiseg masks` in one pass without the CRF, undisturbed,
and killed with ``kill -9`` at numbers of masks drawn at random, resumed each time; every byte is
compared.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from wsiseg.annotations import PALETTES
from wsiseg.config import MasksConfig
from wsiseg.demo.synthesis import synthesize_slide
from wsiseg.evaluate.protocols import predict_maps, refine_maps
from wsiseg.masks import write_masks
from wsiseg.model.crf import refine_labels
from wsiseg.model.device import to_images
from wsiseg.model.load import load_source
from wsiseg.slide import open_slide
from wsiseg.train import Patches, load_patches

SIDE, SLIDE = 224, (4_096, 3_072)
NAMES = PALETTES["bcss"].names
TIMED, ROUNDS = 60, 3
WAYS = {
    "TTA 6, CRF": MasksConfig(device="cpu"),
    "TTA 6": MasksConfig(device="cpu", refine=False),
    "one pass": MasksConfig(device="cpu", refine=False, tta=1),
}


def make_patches(folder: Path, count: int) -> Path:
    """Cut labelled patches, unless they are there already; return their table."""
    table = folder / f"patches-{count}" / "patches.csv"
    if table.exists():
        return table
    table.parent.mkdir(parents=True)
    path, rng = folder / "slide.svs", np.random.default_rng(0)
    truth = synthesize_slide(path, *SLIDE, seed=1)
    with open_slide(path) as slide:
        pixels = slide.read(slide.bounds, truth.mpp)
    rows = [["image", *NAMES]]
    height, width = truth.labels.shape
    for number in range(count):
        y, x = rng.integers(0, height - SIDE), rng.integers(0, width - SIDE)
        window = slice(y, y + SIDE), slice(x, x + SIDE)
        shown = [int((truth.labels[window] == k).mean() >= 0.05) for k in range(len(NAMES))]
        Image.fromarray(pixels[window]).save(table.parent / f"{number:05d}.jpg", quality=90)
        rows.append([f"{number:05d}.jpg", *map(str, shown)])
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return table


def measure_speed(folder: Path, model: str) -> None:
    """Print milliseconds per patch beside the floor's."""
    table, source = make_patches(folder, TIMED), load_source(model)
    known = load_patches(table, source.palette.names, to_learn=False)
    groups = np.split(np.arange(TIMED), TIMED // WAYS["one pass"].batch_size)
    print("| way | floor, ms | `wsiseg masks`, ms | of the floor |\n|---|---|---|---|")
    for name, config in WAYS.items():
        given = [weigh(known, group, source, config) for group in groups] if config.refine else []

        def floor(config: MasksConfig = config, given: list = given) -> None:  # type: ignore[type-arg]
            source = load_source(model)
            for at, group in enumerate(groups):
                images = to_images(known.read(tuple(group)))
                with torch.inference_mode():
                    for _ in range(config.tta):
                        source.cams(images)
                if given:
                    refine_labels(*given[at], config.crf)

        def masks(config: MasksConfig = config) -> None:
            with tempfile.TemporaryDirectory() as out:
                write_masks(model, table, out, config)

        least, ours = measure({"floor": floor, "masks": masks})
        print(f"| {name} | {least:.1f} | {ours:.1f} | {ours / least:.2f} |", flush=True)


def weigh(known: Patches, group: np.ndarray, source, config: MasksConfig) -> tuple:  # type: ignore[no-untyped-def,type-arg]
    """Compute the CRF's input: probabilities of some patches, and their images."""
    images = known.read(tuple(group))
    gates = torch.from_numpy(known.labels[group] > 0)
    found = refine_maps(predict_maps(source, images, config), gates, images, None)
    return found.probabilities, torch.from_numpy(np.moveaxis(images, -1, 1).copy())


def measure(ways: dict[str, Callable[[], None]]) -> list[float]:
    """Measure CPU milliseconds per patch, the ways in turn after an uncounted round."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(ROUNDS + 1):
        for name, work in ways.items():
            begun = time.process_time()
            work()
            if turn:
                spent[name].append(1e3 * (time.process_time() - begun) / TIMED)
    return [statistics.median(times) for times in spent.values()]


def kill_and_resume(folder: Path, model: str, count: int, kills: int) -> None:
    """Print whether a run that was killed so often ends with the bytes of one that was not."""
    table, draw = make_patches(folder, count), random.Random(0)
    whole, killed = folder / "whole", folder / "killed"
    for out in (whole, killed):
        shutil.rmtree(out, ignore_errors=True)
    begun = time.perf_counter()
    start(model, table, whole).wait()
    print(f"undisturbed: {time.perf_counter() - begun:.0f} s", flush=True)
    for stop in sorted(draw.sample(range(count), kills)):
        process = start(model, table, killed)
        while process.poll() is None and count_masks(killed) < stop:
            time.sleep(0.05)
        time.sleep(draw.uniform(0, 0.2))
        process.kill()
        print(f"killed ({process.wait()}) with {count_masks(killed)} masks", flush=True)
    assert start(model, table, killed).wait() == 0
    files = hash_files(whole)
    print(f"{len(files)} files, the same bytes: {files == hash_files(killed)}")


def start(model: str, table: Path, out: Path) -> subprocess.Popen[bytes]:
    """Start `wsiseg masks`."""
    line = [sys.executable, "-m", "wsiseg", "-q", "masks", model, str(table), "-o", str(out)]
    settings = ("device=cpu", "refine=false", "tta=1", "confidence=true")
    return subprocess.Popen([*line, *(word for one in settings for word in ("--set", one))])


def count_masks(out: Path) -> int:
    """Count the masks that are there."""
    return sum(1 for _ in (out / "mask").glob("[0-9]*.png"))


def hash_files(folder: Path) -> dict[str, str]:
    """Hash every file, hidden ones too."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", choices=("speed", "kills"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--patches", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=8)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.part == "speed":
        measure_speed(given.folder, given.model)
    else:
        kill_and_resume(given.folder, given.model, given.patches, given.kills)


if __name__ == "__main__":
    main()
