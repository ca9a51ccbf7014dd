"""Score finished maps by a person's labels: only where somebody labelled, slide by slide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsiseg.annotations import BACKGROUND, agree_on_classes, agree_on_model
from wsiseg.compute import Progress
from wsiseg.config import LabelConfig
from wsiseg.errors import DataError
from wsiseg.evaluate.bootstrap import Intervals, bootstrap_intervals
from wsiseg.evaluate.scores import Scores, confusion_matrix, score
from wsiseg.geometry import Box
from wsiseg.labels import Labelling, SlideLabels, draw_area, label_slides, name_in_run
from wsiseg.table import refuse

__all__ = ["MapScores", "SlideScore", "evaluate_slides"]


@dataclass(frozen=True)
class SlideScore:
    """Agreement of one map with the labels on its slide."""

    slide: str
    """Its name in the output folder."""
    made: str
    """Digest of the map."""
    labelled_mm2: float
    confusion: NDArray[np.int64]
    """``(K + 1, K + 1)`` as from `confusion_matrix`, labelled pixels only; where the map has no
    class or is unsure, it counts as background."""
    scores: Scores


@dataclass(frozen=True)
class MapScores:
    """Agreement over all slides."""

    classes: tuple[str, ...]
    slides: tuple[SlideScore, ...]
    scores: Scores
    intervals: Intervals
    """By resampling slides; meaningless with fewer than about five."""
    guess: Scores
    """Scores of a map that has the class with most labelled area everywhere."""
    guessed: str
    notes: tuple[str, ...]
    labels: tuple[str, ...]
    """Files or folders of labels, as they were given."""

    @property
    def confusion(self) -> NDArray[np.int64]:
        """``(K + 1, K + 1)`` of all slides."""
        total: NDArray[np.int64] = sum(one.confusion for one in self.slides)  # type: ignore[assignment]  # one at least
        return total


def evaluate_slides(
    slides: Sequence[str | Path],
    labels: str | Path | Sequence[str | Path],
    *,
    config: LabelConfig | None = None,
    resamples: int = 1000,
    progress: Progress | None = None,
) -> MapScores:
    """Score maps as they are, after every gate, CRF and smoothing.

    Only pixels that somebody labelled count, and only classes that somebody labelled have scores:
    another that the map has there counts as none. Pixels marked with two classes are ambiguous and
    left out. An area of a kind of background of the model, such as ``Glass``, is background, and so
    is what was not marked in an area of class ``Checked*``.

    Parameters
    ----------
    slides
        Output folders, stores or folders of stores, with finished labels.
    labels
        As `label_slides` takes them; preferably some that the model was not trained on.
    progress
        Called with ("evaluate", slides done, slides).

    Raises
    ------
    DataError
        If labels cannot be used, name a class that the maps lack, or the maps are of different
        models.
    StoreError
        If a map is not finished.
    """
    config = config or LabelConfig()
    draft = label_slides(labels, slides, None, config)
    maps = {one.store.path: one.store.palette.classes.names for one in draft.slides}
    classes = agree_on_classes(maps, "score") if maps else draft.classes
    kinds = (*classes, *_find_background(draft, classes))
    same = draft.classes == kinds
    labelling = draft if same else label_slides(labels, slides, kinds, config)
    problems = [*labelling.problems, *labelling.unmatched]
    if not labelling.slides and not problems:
        problems = ["no slide is labelled"]
    refuse("evaluate", problems, "labels or stores")
    made = [one.store.finished("stitch") for one in labelling.slides]
    agree_on_model({one.store.path: one.store.cam_source for one in labelling.slides}, "score")
    scored = []
    for done, (one, digest) in enumerate(zip(labelling.slides, made, strict=True), 1):
        scored.append(_score_slide(one, digest, len(classes)))
        if progress is not None:
            progress("evaluate", done, len(labelling.slides))
    notes = list(labelling.notes)
    if labelling.unlabelled:
        notes.append(f"slides without labels, which were not scored: {len(labelling.unlabelled)}")
    given = [labels] if isinstance(labels, str | Path) else labels
    return _gather(classes, scored, resamples, notes, tuple(map(str, given)))


def _find_background(labelling: Labelling, classes: Sequence[str]) -> list[str]:
    """Return the kinds of background of the maps' models that labels name."""
    kinds = {name for one in labelling.slides for name in one.store.cam_background}
    return [name for name in labelling.classes if name in kinds and name not in classes]


def _score_slide(slide: SlideLabels, made: str, classes: int) -> SlideScore:
    store = slide.store
    confusion = np.zeros((classes + 1, classes + 1), np.int64)
    for box, truth, known in _draw_truth(slide, classes):
        predicted = store.read_labels(box)
        predicted[predicted >= classes] = BACKGROUND  # unsure
        confusion += confusion_matrix(truth[known], predicted[known], classes)
    area = float(confusion.sum()) * (store.mpp / 1000) ** 2
    scores = score(_of_labelled(confusion, confusion.sum(1)))
    return SlideScore(name_in_run(store), made, area, confusion, scores)


def _of_labelled(confusions: NDArray[np.int64], labelled: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count predictions of classes without `labelled` pixels ``(K + 1,)`` as background.

    Nobody said where such a class is, so its own score would always be 0.
    """
    unknown = np.flatnonzero(labelled[:-1] == 0)
    found = confusions.copy()
    found[..., -1] += found[..., unknown].sum(-1)
    found[..., unknown] = 0
    return found


def _draw_truth(
    slide: SlideLabels, classes: int
) -> Iterator[tuple[Box, NDArray[np.uint8], NDArray[np.bool_]]]:
    """Yield each labelled block: labels ``(H, W)`` uint8, and where they are known."""
    grid, layers = slide.store.grid, slide.layers
    for block in range(grid.n_blocks):
        box = grid.block_box(block)
        marked = [draw_area(shape, box) for shape in layers.classes]
        count = np.sum(marked, 0)
        truth = np.full(count.shape, BACKGROUND, np.uint8)
        for label, where in enumerate(marked):
            truth[where] = label if label < classes else BACKGROUND
        known = (count == 1) | ((count == 0) & draw_area(layers.checked, box))
        if known.any():
            yield box, truth, known


def _name_unlabelled(classes: Sequence[str], confusion: NDArray[np.int64]) -> list[str]:
    true, found = confusion.sum(1), confusion.sum(0)
    names = [name for name, t, f in zip(classes, true, found, strict=False) if f and not t]
    if not names:
        return []
    return [f"not scored, as nobody labelled them: {', '.join(names)}"]


def _gather(
    classes: tuple[str, ...], slides: Sequence[SlideScore], resamples: int, notes: list[str],
    labels: tuple[str, ...],
) -> MapScores:  # fmt: skip
    matrices = np.stack([one.confusion for one in slides])
    if not matrices.sum():
        raise DataError("no labelled area lies on a map; points are not areas")
    labelled = matrices.sum((0, 2))
    confusions = _of_labelled(matrices, labelled)
    total = confusions.sum(0)
    notes = [*_name_unlabelled(classes, matrices.sum(0)), *notes]
    largest = int(total.sum(1)[: len(classes)].argmax())
    guess = np.zeros_like(total)
    guess[:, largest] = total.sum(1)
    return MapScores(
        classes, tuple(slides), score(total),
        bootstrap_intervals(confusions, resamples=resamples), score(guess), classes[largest],
        tuple(notes), labels,
    )  # fmt: skip
