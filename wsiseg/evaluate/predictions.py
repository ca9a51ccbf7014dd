"""Score masks made by any method in the same way as our own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsiseg.annotations import BACKGROUND, Palette
from wsiseg.compute import Progress, SerialExecutor, run
from wsiseg.config import EvaluateConfig
from wsiseg.errors import DataError
from wsiseg.evaluate.bootstrap import bootstrap_intervals
from wsiseg.evaluate.mask_colors import find_renumbered
from wsiseg.evaluate.patches import (
    MaskedPatches,
    load_masked_patches,
    name_images,
    read_mask,
)
from wsiseg.evaluate.protocols import Protocol
from wsiseg.evaluate.run import Evaluation
from wsiseg.evaluate.scores import confusion_matrix, score
from wsiseg.table import refuse

__all__ = ["evaluate_predictions"]

_BATCH = 32


def evaluate_predictions(
    predictions: str | Path,
    data: str | Path,
    palette: Palette,
    protocol: Protocol,
    config: EvaluateConfig | None = None,
    *,
    split: str = "test",
    numbers: Mapping[int, str | None] | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a folder of masks against the masks of a data set.

    Parameters
    ----------
    predictions
        A folder of masks, of one channel or with a palette, named like the images.
    data, split
        As in `load_masked_patches`.
    palette
        Names and colours of the classes, in the order of the data set's numbers.
    protocol
        How they were made, which the files do not say: `oracle` if each patch's true classes were
        given, else `deploy`.
    config
        Settings of the bootstrap; None for the defaults.
    numbers
        Which class a number in the predictions stands for; None is background. If not given, they
        are those of the data set: 0 .. K - 1, and K for background.
    executor
        Serial (None) or threads.
    progress
        Called with ("evaluate", patches done, patches).

    Raises
    ------
    DataError
        If anything is wrong with the patches or the predictions; lists every problem: patches
        without a prediction, predictions without a patch, other sizes, unknown numbers, palettes
        in another order than that of the others.
    """
    config, folder = config or EvaluateConfig(), Path(predictions)
    patches = load_masked_patches(data, palette.names, split)
    reader = _Reader(patches, _pair(patches, folder), _map_numbers(palette, numbers))
    refuse(folder, find_renumbered(reader.predictions), "predictions")
    starts = range(0, len(patches), _BATCH)
    batches = [tuple(range(s, min(s + _BATCH, len(patches)))) for s in starts]
    confusions = np.zeros((len(patches), len(palette) + 1, len(palette) + 1), np.int64)
    problems: dict[int, list[str]] = {}
    done = 0
    for batch, (matrices, wrong) in run(executor or SerialExecutor(), reader.count, batches):
        confusions[list(batch)], problems[batch[0]] = matrices, wrong
        done += len(batch)
        if progress is not None:
            progress("evaluate", done, len(patches))
    refuse(folder, [line for at in sorted(problems) for line in problems[at]], "predictions")
    return Evaluation(
        protocol=protocol, palette=palette, names=tuple(path.name for path in patches.images),
        confusions=confusions, true_classes=confusions.sum(2)[:, :-1] > 0,
        gates=confusions.sum(1)[:, :-1] > 0, scores=score(confusions.sum(0)),
        intervals=bootstrap_intervals(
            confusions, resamples=config.resamples, seed=config.seed, cases=patches.cases
        ),
        config=config, predictions=folder, cases=patches.cases,
    )  # fmt: skip


@dataclass(frozen=True)
class _Reader:
    patches: MaskedPatches
    predictions: tuple[Path, ...]
    labels: Mapping[int, int]
    """Label of each number that may occur."""

    def count(self, numbers: Sequence[int]) -> tuple[NDArray[np.int64], list[str]]:
        """Return a confusion matrix per patch, and what is wrong with the predictions."""
        side, wrong = self.patches.classes + 1, list[str]()
        matrices = np.zeros((len(numbers), side, side), np.int64)
        _, truth = self.patches.read(numbers)
        for at, number in enumerate(numbers):
            try:
                predicted = self._read(self.predictions[number], truth[at].shape)
            except (OSError, SyntaxError, ValueError) as error:
                wrong.append(f"{self.predictions[number].name}: {error}")
                continue
            matrices[at] = confusion_matrix(truth[at], predicted, self.patches.classes)
        return matrices, wrong

    def _read(self, path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        numbers = read_mask(path)
        if numbers.shape != shape:
            (height, width), (tall, wide) = numbers.shape, shape
            raise ValueError(f"is {width} x {height} px, the patch's mask {wide} x {tall}")
        values, where = np.unique(numbers, return_inverse=True)
        odd = [value for value in values.tolist() if value not in self.labels]
        if odd:
            raise ValueError(
                f"holds the numbers {', '.join(map(str, odd[:5]))}; known are "
                f"{', '.join(map(str, self.labels))}; say what each stands for (--numbers)"
            )
        labels = np.array([self.labels[value] for value in values.tolist()], np.uint8)
        return np.asarray(labels[where].reshape(numbers.shape))


def _pair(patches: MaskedPatches, folder: Path) -> tuple[Path, ...]:
    """Find the prediction of each patch."""
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder; give one of masks named like the images")
    problems: list[str] = []
    predictions = name_images(folder, problems)
    names = [path.stem for path in patches.images]
    problems += [f"{name}: has no prediction" for name in names if name not in predictions]
    problems += [
        f"{predictions[name].name}: has no patch" for name in predictions if name not in set(names)
    ]
    refuse(folder, problems, "predictions")
    return tuple(predictions[name] for name in names)


def _map_numbers(palette: Palette, numbers: Mapping[int, str | None] | None) -> dict[int, int]:
    if numbers is None:
        return {**{label: label for label in range(len(palette))}, len(palette): BACKGROUND}
    unknown = sorted({name for name in numbers.values() if name} - set(palette.names))
    if unknown:
        raise DataError(
            f"numbers stand for {unknown[0]!r}, which is none of {', '.join(palette.names)}"
        )
    return {
        number: palette.names.index(name) if name else BACKGROUND
        for number, name in numbers.items()
    }
