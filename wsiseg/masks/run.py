"""Write pseudo-masks of patches: the paper's inference, gated by labels or by the model."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsiseg.atomic import remove_parts
from wsiseg.compute import Progress, SerialExecutor, run
from wsiseg.config import MasksConfig, digest_of
from wsiseg.errors import ConfigError, DataError
from wsiseg.evaluate.protocols import predict_maps, predicted_gates, refine_maps, restore_images
from wsiseg.masks.png import (
    Stamp,
    read_confidence_digest,
    read_mask,
    write_confidence,
    write_mask,
)
from wsiseg.model.cam import MapsAndLogits
from wsiseg.model.device import open_device
from wsiseg.model.load import load_source
from wsiseg.model.segment.source import Segmenter
from wsiseg.model.source import CamSource
from wsiseg.model.threads import fixed_threads
from wsiseg.model.trained import TrainedModel
from wsiseg.table import format_csv
from wsiseg.text import write_text
from wsiseg.train.patches import Patches, has_labels, load_images, load_patches

__all__ = ["MaskedPatch", "write_masks"]

_VERSION = 2
"""Version of the computation; raised when the same settings give different masks."""

_APART = {"device", "encoder_options", "gate", "confidence"}
"""Settings that affect no label, or enter the digest in another form."""

Gate = Literal["labels", "predicted", "none"]


class MaskedPatch(NamedTuple):
    """One patch and its mask: a row of the index."""

    image: Path
    mask: Path
    classes: tuple[str, ...]
    """The classes that were allowed."""
    confidence: float
    """Mean over the pixels, in [0, 1], of the label's probability before the CRF."""
    shares: tuple[float, ...]
    """Fraction of the pixels of each class, and of background."""


def write_masks(
    checkpoint: str | Path,
    data: str | Path,
    out: str | Path,
    config: MasksConfig | None = None,
    *,
    overwrite: bool = False,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> tuple[MaskedPatch, ...]:
    """Label every pixel of patches that have at most image labels.

    Writes ``mask/<image>.png``, numbered like the masks of BCSS-WSSS (K is background), on request
    ``confidence/<image>.png``, ``masks.csv`` with one row per patch, and ``masks.json``, which
    records what made them. Existing masks of the same image, model and settings are kept, so that
    an interrupted run resumes and ends with the same bytes. A mask that is replaced takes its
    confidence with it.

    Parameters
    ----------
    checkpoint
        A file, or the name of a shipped checkpoint.
    data
        As in `load_patches`, with or without labels of the model's kinds of background; or images
        without labels, as in `load_images`.
    config
        The default if None.
    overwrite
        Whether to replace masks made with other settings. Files that are not our masks, or were
        edited, are never replaced.
    executor
        Serial (None) or threads, which share the model.
    progress
        Called with ("masks", patches done, patches in total).

    Raises
    ------
    CheckpointError
        If the checkpoint cannot be used.
    DataError
        If the patches are invalid; lists every problem.
    ConfigError
        If the device does not exist, or `out` holds masks that would have to be replaced.
    """
    config, out, began = config or MasksConfig(), Path(out), time.time()
    source = load_source(checkpoint, config.encoder_options, open_device(config.device))
    gate = _choose_gate(config, data)
    names = source.palette.names
    patches = _load(source, data, gate)
    _check(source, patches, data)
    job = _Job(source, patches, gate, config, out)
    executor = executor or SerialExecutor()
    batches = _batch(len(patches), config.batch_size)
    with source.evaluating():
        kept = _find_kept(job, batches, executor, overwrite)
        rows = _label_all(job, batches, kept, executor, progress)
    _write_index(out / "masks.csv", rows, names, gate)
    _write_about(out / "masks.json", job)
    for folder in (out / "mask", out / "confidence"):
        remove_parts(folder, before=began)  # no writer takes so long: of runs that were killed
    with suppress(OSError):  # missing, or in use
        (out / "confidence").rmdir()  # if all that it held was of masks that were replaced
    return rows


@dataclass(frozen=True)
class _Job:
    source: TrainedModel | Segmenter
    patches: Patches
    gate: Gate
    config: MasksConfig
    out: Path

    @property
    def settings(self) -> dict[str, object]:
        """Everything but the image that determines a mask."""
        settings = self.config.model_dump(mode="json", exclude=_APART)
        return {**settings, "gate": self.gate, "crf": settings["crf"] if settings["refine"] else {}}

    def digest(self, number: int) -> str:
        image = hashlib.sha256(self.patches.paths[number].read_bytes()).hexdigest()
        label = self.patches.labels[number].tolist() if self.gate == "labels" else []
        return digest_of(_VERSION, self.source.info.sha256, self.settings, image, label)

    def mask(self, number: int) -> Path:
        return self.out / "mask" / f"{self.patches.paths[number].stem}.png"

    def confidence(self, number: int) -> Path:
        return self.out / "confidence" / self.mask(number).name

    def row(self, number: int, numbers: NDArray[np.uint8], stamp: Stamp) -> MaskedPatch:
        names = self.source.palette.names
        counts = np.bincount(numbers.ravel(), minlength=len(names) + 1)
        shown = tuple(name for name, gate in zip(names, stamp.gates, strict=True) if gate)
        shares = tuple((counts / counts.sum()).tolist())
        image = self.patches.paths[number]
        return MaskedPatch(image, self.mask(number), shown, stamp.confidence, shares)


def _choose_gate(config: MasksConfig, data: str | Path) -> Gate:
    if config.gate != "auto":
        return config.gate
    return "labels" if has_labels(data) else "predicted"


def _load(source: CamSource, data: str | Path, gate: Gate) -> Patches:
    """Load the patches; what labels say of kinds of background is dropped, as it gates nothing."""
    if gate != "labels":
        return load_images(data)
    names = source.palette.names
    patches = load_patches(data, names, background=source.background, to_learn=False)
    return replace(patches, labels=patches.labels[:, : len(names)])


def _check(source: CamSource, patches: Patches, data: str | Path) -> None:
    side = patches.side
    if not source.sides.fits(side) or side == source.stride:
        raise DataError(
            f"{data}: its patches are {side} x {side} px; {source.name} needs {source.sides}, "
            f"more than {source.stride}"
        )
    repeated = [stem for stem, count in Counter(p.stem for p in patches.paths).items() if count > 1]
    if repeated:
        raise DataError(
            f"{data}: {len(repeated)} name(s) belong to several images, such as {repeated[0]!r}; "
            f"masks are named after their images, so give each image a unique name"
        )


def _batch(count: int, size: int) -> list[tuple[int, ...]]:
    return [tuple(range(s, min(s + size, count))) for s in range(0, count, size)]


def _find_kept(
    job: _Job, batches: Sequence[tuple[int, ...]], executor: Executor, overwrite: bool
) -> dict[int, MaskedPatch]:
    """Return the patches that have a mask already; any other existing file is an error."""
    kept: dict[int, MaskedPatch] = {}
    ours: list[Path] = []
    foreign: list[Path] = []
    for _, existing in run(executor, partial(_find_existing, job), batches):
        for number, row in existing.items():
            if isinstance(row, MaskedPatch):
                kept[number] = row
            else:
                (ours if row else foreign).append(job.mask(number))
    if foreign:
        raise ConfigError(
            f"{_name(foreign)} edited or made elsewhere; such masks are never replaced: move them, "
            f"or write to another folder"
        )
    if ours and not overwrite:
        raise ConfigError(
            f"{_name(ours)} made with another model, image or settings; give --overwrite to "
            f"replace them, or another folder"
        )
    return kept


def _name(paths: Sequence[Path]) -> str:
    return f"{min(paths)} {f'and {len(paths) - 1} more were' if len(paths) > 1 else 'was'}"


def _find_existing(job: _Job, numbers: Sequence[int]) -> dict[int, MaskedPatch | bool]:
    """Return for each existing mask its row if it is kept, else whether it is one of ours."""
    existing: dict[int, MaskedPatch | bool] = {}
    for number in numbers:
        path = job.mask(number)
        if not path.exists():
            continue
        mask = read_mask(path)
        if mask is None or mask[1].digest != job.digest(number):
            existing[number] = mask is not None
        elif not job.config.confidence or _has_confidence(job, number, mask[1]):
            existing[number] = job.row(number, *mask)
    return existing


def _has_confidence(job: _Job, number: int, stamp: Stamp) -> bool:
    """Whether the confidence that is there is of this mask."""
    return read_confidence_digest(job.confidence(number)) == stamp.digest


def _label_all(
    job: _Job,
    batches: Sequence[tuple[int, ...]],
    kept: dict[int, MaskedPatch],
    executor: Executor,
    progress: Progress | None,
) -> tuple[MaskedPatch, ...]:
    """Return one row per patch. Batches are computed whole, so that sums round identically."""
    rows, count = dict(kept), len(job.patches)
    missing = [numbers for numbers in batches if not kept.keys() >= set(numbers)]
    done = count - sum(map(len, missing))
    for numbers, new_rows in run(executor, partial(_label, job, frozenset(kept)), missing):
        rows |= new_rows
        done += len(numbers)
        if progress is not None:
            progress("masks", done, count)
    return tuple(rows[number] for number in range(count))


def _label(job: _Job, kept: frozenset[int], numbers: tuple[int, ...]) -> dict[int, MaskedPatch]:
    images = job.patches.read(numbers)
    config, source = job.config, job.source
    with fixed_threads(1) if source.device.type == "cpu" else nullcontext():
        maps = predict_maps(source, images, config)
        gates = _gates(job, numbers, maps)
        if job.gate == "labels":
            images = restore_images(images, source)
        predicted = refine_maps(maps, gates, images, config.crf if config.refine else None)
    index = torch.from_numpy(predicted.labels.astype(np.int64))
    index = index.clamp(max=len(source.palette))[:, None]  # background is the last
    confidence = predicted.probabilities.cpu().gather(1, index)[:, 0].numpy()
    rows = {}
    for position, number in enumerate(numbers):
        if number not in kept:
            stamp = Stamp(
                job.digest(number),
                tuple(gates[position].tolist()),
                round(float(confidence[position].mean()), 6),
            )
            shown = index[position, 0].numpy().astype(np.uint8)
            path = job.confidence(number)
            if config.confidence:  # first: the mask marks the patch as complete
                model = source.info.sha256
                write_confidence(confidence[position], shown, stamp.digest, model, path)
            else:
                path.unlink(missing_ok=True)  # of the mask that is replaced
            write_mask(predicted.labels[position], source.palette, stamp, job.mask(number))
            rows[number] = job.row(number, shown, stamp)
    return rows


def _gates(job: _Job, numbers: Sequence[int], maps: MapsAndLogits) -> Tensor:
    classes = len(job.source.palette)
    if job.gate == "labels":
        return torch.from_numpy(job.patches.labels[list(numbers)] > 0)
    if job.gate == "predicted":
        return predicted_gates(maps, classes, job.config.gate_threshold)
    return torch.ones(len(numbers), classes, dtype=torch.bool)


def _write_index(path: Path, rows: Sequence[MaskedPatch], names: Sequence[str], gate: Gate) -> None:
    table = [["image", "mask", "gate", "classes", "confidence", *names, "background"]]
    for row in rows:
        shares = [f"{share:.6f}" for share in row.shares]
        mask = f"mask/{row.mask.name}"
        table.append(
            [row.image.name, mask, gate, ";".join(row.classes), f"{row.confidence:.6f}", *shares]
        )
    write_text(format_csv(table), path)


def _write_about(path: Path, job: _Job) -> None:
    info, palette = job.source.info, job.source.palette
    about = {
        "checkpoint": {
            "sha256": info.sha256, "kind": info.kind, "encoder": info.identity,
            "preset": info.preset, "mpp": info.mpp,
        },
        "gate": job.gate,
        "gate_means": _GATES[job.gate],
        "settings": job.settings,
        "patches": len(job.patches),
        "numbers": {name: number for number, name in enumerate((*palette.names, "background"))},
        "colors": dict(zip(palette.names, palette.colors, strict=True)),
    }  # fmt: skip
    write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", path)


_GATES: dict[Gate, str] = {
    "labels": "classes let through by the given label of each patch",
    "predicted": "classes let through by the model's own prediction",
    "none": "every class let through",
}
