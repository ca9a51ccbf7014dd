"""Score a model on a set of patches, by one protocol or several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsiseg.annotations import Palette
from wsiseg.compute import Progress, SerialExecutor, run
from wsiseg.config import EvaluateConfig
from wsiseg.errors import DataError
from wsiseg.evaluate.bootstrap import Intervals, bootstrap_intervals
from wsiseg.evaluate.confidence import check_confidence
from wsiseg.evaluate.patches import MaskedPatches
from wsiseg.evaluate.places import check_places, weigh_by_slide
from wsiseg.evaluate.protocols import Protocol, label_maps, predict_maps, present
from wsiseg.evaluate.reliability import Reliability
from wsiseg.evaluate.scores import Scores, confusion_matrix, score
from wsiseg.model.source import CamSource
from wsiseg.model.threads import fixed_threads

__all__ = ["Evaluation", "Scored", "check_patches", "evaluate_model"]


class Scored(NamedTuple):
    """One patch, as it was scored."""

    protocol: Protocol
    """The protocol that scored it."""
    number: int
    """Index of the patch, in the order of the names."""
    name: str
    """File name of the image."""
    image: NDArray[np.uint8]
    """``(H, W, 3)`` RGB."""
    truth: NDArray[np.uint8]
    """``(H, W)`` labels of the mask."""
    labels: NDArray[np.uint8]
    """``(H, W)`` predicted labels."""
    maps: NDArray[np.float32]
    """``(K, H, W)`` in [0, 1]: the fused maps before the gate."""
    gates: NDArray[np.bool_]
    """``(K,)``: the classes let through."""


@dataclass(frozen=True)
class Evaluation:
    """Result of a protocol on a set of patches."""

    protocol: Protocol
    """How classes were let through; numbers of different protocols are not comparable."""
    palette: Palette
    """Names and colours of the classes."""
    names: tuple[str, ...]
    """File names of the images."""
    confusions: NDArray[np.int64]
    """``(N, K + 1, K + 1)``: one matrix per image, rows truth, background last."""
    true_classes: NDArray[np.bool_]
    """``(N, K)``: classes that occur in each mask."""
    gates: NDArray[np.bool_]
    """``(N, K)``: classes that were let through; in `oracle` the same as the true ones."""
    scores: Scores
    """Scores over all pixels together."""
    intervals: Intervals
    """By bootstrap over the cases if they are known, else over the images."""
    config: EvaluateConfig
    """The settings."""
    predictions: Path | None = None
    """The folder of masks that was scored, if somebody else made them."""
    reliability: Reliability | None = None
    """How well confidence agrees with accuracy; the same in every protocol, as it is ungated."""
    cases: tuple[str, ...] | None = None
    """The patient or slide of each image; None if unknown."""

    @property
    def confusion(self) -> NDArray[np.int64]:
        """``(K + 1, K + 1)`` over all images."""
        return np.asarray(self.confusions.sum(0))


def evaluate_model(
    source: CamSource,
    patches: MaskedPatches,
    config: EvaluateConfig,
    *,
    executor: Executor | None = None,
    progress: Progress | None = None,
    visit: Callable[[Scored], None] | None = None,
) -> tuple[Evaluation, ...]:
    """Score a model, one `Evaluation` per protocol of `config`, in one pass over the patches.

    Protocol `slide` needs a pass before that, as the gates of a patch depend on those around it.

    On a CPU every batch computes with one thread, so that the numbers do not depend on how many
    there are; give an executor of threads to use the others.

    Parameters
    ----------
    source
        On its device. It is scored in evaluation mode, and left in the mode that it had.
    executor
        Serial (None) or threads, which share the model.
    progress
        Called with ("evaluate", patches done, patches), in that earlier pass with "context".
    visit
        Called with every patch as it was scored, in no fixed order, in the thread that scored it:
        the pixels are kept no longer than that, whatever the number of patches.

    Raises
    ------
    DataError
        If the patches do not fit the source's classes or sides, or it gives one cell per patch; or
        for protocol `slide`, if their positions are unknown.
    """
    check_patches(source, patches)
    if "slide" in config.protocols:
        check_places(patches)
    palette = source.palette
    starts = range(0, len(patches), config.batch_size)
    batches = [tuple(range(s, min(s + config.batch_size, len(patches)))) for s in starts]
    executor = executor or SerialExecutor()
    tables = {protocol: _Table(len(patches), len(palette)) for protocol in config.protocols}
    done = 0
    reliabilities: dict[int, Reliability] = {}
    with source.evaluating():
        weights = None
        if "slide" in config.protocols:
            weights = _find_context(source, patches, config, executor, progress, batches)
        work = partial(_score_batch, source, patches, config, weights, visit)
        for numbers, (parts, measured) in run(executor, work, batches):
            reliabilities[numbers[0]] = measured
            for protocol, part in parts.items():
                tables[protocol].fill(numbers, part)
            done += len(numbers)
            if progress is not None:
                progress("evaluate", done, len(patches))
    # In the order of the patches, so that sums round the same whichever batch finished first.
    reliability = reduce(add, (reliabilities[first] for first in sorted(reliabilities)))
    return tuple(
        _sum_up(protocol, table, palette, patches, config, reliability)
        for protocol, table in tables.items()
    )


class _Part(NamedTuple):
    """One batch, by one protocol."""

    confusions: NDArray[np.int64]
    true_classes: NDArray[np.bool_]
    gates: NDArray[np.bool_]


class _Table:
    """The numbers of every image, filled in as batches finish."""

    def __init__(self, count: int, classes: int) -> None:
        self.confusions = np.zeros((count, classes + 1, classes + 1), np.int64)
        self.true_classes, self.gates = np.zeros((2, count, classes), bool)

    def fill(self, numbers: Sequence[int], part: _Part) -> None:
        rows = list(numbers)
        self.confusions[rows] = part.confusions
        self.true_classes[rows], self.gates[rows] = part.true_classes, part.gates


def _find_context(
    source: CamSource, patches: MaskedPatches, config: EvaluateConfig, executor: Executor,
    progress: Progress | None, batches: Sequence[tuple[int, ...]],
) -> NDArray[np.float32]:  # fmt: skip
    """``(N, K)``: how much each class weighs in each patch, judging by those around it."""
    logits = np.zeros((len(patches), len(source.palette)), np.float32)
    done = 0
    for numbers, pooled in run(executor, partial(_pool_batch, source, patches, config), batches):
        logits[list(numbers)] = pooled
        done += len(numbers)
        if progress is not None:
            progress("context", done, len(patches))
    return weigh_by_slide(logits, patches, config)


def _pool_batch(
    source: CamSource, patches: MaskedPatches, config: EvaluateConfig, numbers: tuple[int, ...]
) -> NDArray[np.float32]:
    """``(B, K)`` class logits."""
    images, _ = patches.read(numbers)
    with fixed_threads(1) if source.device.type == "cpu" else nullcontext():
        logits = predict_maps(source, images, config).logits
    return np.asarray(logits[:, : len(source.palette)].cpu().numpy())


def _score_batch(
    source: CamSource,
    patches: MaskedPatches,
    config: EvaluateConfig,
    context: NDArray[np.float32] | None,
    visit: Callable[[Scored], None] | None,
    numbers: tuple[int, ...],
) -> tuple[dict[Protocol, _Part], Reliability]:
    images, truth = patches.read(numbers)
    on_cpu, classes = source.device.type == "cpu", len(source.palette)
    parts: dict[Protocol, _Part] = {}
    with fixed_threads(1) if on_cpu else nullcontext():
        reliability = check_confidence(source, images, truth)
        outputs = predict_maps(source, images, config)
        for protocol in dict.fromkeys(config.protocols):
            around = None if context is None else context[list(numbers)]
            predicted = label_maps(outputs, images, truth, protocol, source, config, around)
            gates = predicted.gates.cpu().numpy()
            matrices = [
                confusion_matrix(true, labels, classes)
                for true, labels in zip(truth, predicted.labels, strict=True)
            ]
            parts[protocol] = _Part(np.stack(matrices), present(truth, classes), gates)
            if visit is not None:
                names = [patches.images[number].name for number in numbers]
                maps = outputs.maps[:, :classes].cpu().numpy()
                for row in zip(
                    numbers, names, images, truth, predicted.labels, maps, gates, strict=True
                ):
                    visit(Scored(protocol, *row))
    return parts, reliability


def check_patches(source: CamSource, patches: MaskedPatches) -> None:
    """Refuse patches that do not fit a source; raises `DataError` as `evaluate_model` does."""
    if patches.classes != len(source.palette):
        raise DataError(
            f"{patches.folder}: the masks have {patches.classes} classes, the model has "
            f"{len(source.palette)}; they must agree"
        )
    width, height = patches.size
    if not all(map(source.sides.fits, patches.size)):
        raise DataError(
            f"{patches.folder}: its patches are {width} x {height} px; the encoder needs "
            f"{source.sides}"
        )
    if max(patches.size) == source.stride:
        # Each map is scaled to its own range, which one cell does not have.
        raise DataError(
            f"{patches.folder}: the model gives one cell per patch of {width} x {height} px, and "
            f"evaluation needs several; with prompts, set prompt_features to patch"
        )


def _sum_up(
    protocol: Protocol,
    table: _Table,
    palette: Palette,
    patches: MaskedPatches,
    config: EvaluateConfig,
    reliability: Reliability,
) -> Evaluation:
    names = tuple(path.name for path in patches.images)
    return Evaluation(
        protocol=protocol, palette=palette, names=names,
        confusions=table.confusions, true_classes=table.true_classes, gates=table.gates,
        scores=score(table.confusions.sum(0)),
        intervals=bootstrap_intervals(
            table.confusions, resamples=config.resamples, seed=config.seed,
            cases=patches.cases,
        ),
        config=config, reliability=reliability, cases=patches.cases,
    )  # fmt: skip
