"""From labels to a model in one call: label, split, train and score folds, train on all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wsiseg.atomic import open_atomic, put_aside
from wsiseg.compute import Progress
from wsiseg.config import TrainConfig, digest_of
from wsiseg.errors import ConfigError
from wsiseg.labels import Labelling, label_slides
from wsiseg.learn.confidence import calibrate_from_folds, start_calibration
from wsiseg.learn.fit import Folds, FoldScore, Places, choose_epochs
from wsiseg.learn.precision import mean_known
from wsiseg.learn.report import Learned, Missed, read_rounds, write_report
from wsiseg.learn.split import Fold, plan_folds
from wsiseg.learn.start import extend_config, known_classes, start_from
from wsiseg.model.checkpoint import find_checkpoint, read_info
from wsiseg.model.device import open_device
from wsiseg.model.threads import fixed_threads
from wsiseg.table import refuse
from wsiseg.train import StoreTiles, gather_tiles, train_model
from wsiseg.train.resume import name_unfinished
from wsiseg.train.setup import check_fit, make_model

__all__ = ["learn_model"]


def learn_model(
    slides: Sequence[str | Path],
    labels: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    start: str | None = None,
    manifest: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Learned:
    """Train on all given labels, and score on held-out slides.

    Each patient's slides are held out in turn, or those that the manifest names; a fold ends when
    its loss stops falling. Then a model is trained on all slides, for the best number of epochs.
    Finished folds are kept, so that the same call again resumes.

    Parameters
    ----------
    slides
        Output folders, stores or folders of stores, as `label_slides` takes them.
    labels
        Files or folders with all labels to use: first labels and corrections.
    out
        The ``.safetensors`` file to write. An existing model of other labels is kept as
        ``<out>.old``. ``<out>.json`` beside it has every figure.
    start
        A checkpoint to continue from; prototypes of new classes start from their tiles.
    manifest
        Table ``slide[,labels][,patient][,split]``.
    settings
        Fields of `TrainConfig` that override those of `start` and `wsiseg.learn.start.DEFAULTS`.

    Raises
    ------
    DataError
        If a label file cannot be used, a class looks like a misspelling of another, no tile or
        every tile shows it, or the manifest's split leaks; lists every problem.
    ConfigError
        If a setting does not fit `start`, or `out` is `start`.
    """
    out = Path(out)
    begun = _identify(start, out)
    labelling, config = _label(slides, labels, manifest, start, dict(settings or {}))
    tiles, unshown = _drop_unshown(gather_tiles(labelling.slides), config.classes)
    folds = plan_folds(labelling.slides)
    digest = digest_of(config, tiles.identity, begun, [fold.name for fold in folds])
    work = out.with_name(f"{out.name}.folds")
    with fixed_threads(1), torch.random.fork_rng(devices=[]):
        model = make_model(config)
        check_fit(tiles, config, model.encoder)
        model.to(open_device(config.device))
        trainer = Folds(model, tiles, config, start)
        state = start_from(start, model, tiles, config)
        results = _score_folds(trainer, folds, tiles, work, digest, progress)
    scores = [score for score, _ in results]
    epochs = choose_epochs(scores, config)
    former = start_calibration(start, config.classes)
    _keep_former(out, digest)
    final = config.model_copy(update={"epochs": epochs})
    train_model(
        tiles, final, out, progress, note=_note(start), start=state,
        overwrite=name_unfinished(out).exists(),  # of other labels, it is of no use to anybody
    )  # fmt: skip
    notes = [*labelling.notes, *_explain(labelling, folds)]
    if former:
        notes.append(calibrate_from_folds(out, former, [places for _, places in results]))
    learned = Learned(
        out=out, digest=digest, classes=config.classes, tiles=len(tiles),
        shown=_count_labels(tiles, 1), absent=_count_labels(tiles, 0),
        slides=len(labelling.slides), folds=tuple(fold.name for fold in folds), epochs=epochs,
        precision=_mean(scores, 0, config), guess=_mean(scores, 1, config),
        kept=unshown, remembers="exemplars.known" in (state or {}),
        missed=_find_missed(out, tiles, config),
        notes=tuple(notes), rounds=read_rounds(out, digest), balance=config.balance,
    )  # fmt: skip
    write_report(learned)
    shutil.rmtree(work, ignore_errors=True)
    return learned


# -- before training ----------------------------------------------------------------------------


def _identify(start: str | None, out: Path) -> str:
    """Return the checksum of the checkpoint `start`; empty without one."""
    if start is None:
        return ""
    if out.exists() and find_checkpoint(start).samefile(out):
        raise ConfigError(
            f"{out}: is the checkpoint to continue from; give the new model another name, so that "
            f"an interrupted run can go on from the same one"
        )
    return read_info(start).sha256


def _label(
    slides: Sequence[str | Path], labels: str | Path | Sequence[str | Path],
    manifest: str | Path | None, start: str | None, settings: dict[str, Any],
) -> tuple[Labelling, TrainConfig]:  # fmt: skip
    """Label the slides, and complete the settings with the classes of the labels."""
    draft = extend_config(start, ["any"], settings)
    labelling = label_slides(
        labels, slides, settings.get("classes"), draft.labels, manifest=manifest
    )
    known = known_classes(start)
    if not (labelling.slides and (labelling.classes or known)):
        nothing = [*labelling.problems, *labelling.unmatched] or [_tell_nothing(labelling)]
        refuse("learn", nothing, "labels or stores")
    names = [name for name in labelling.classes if name not in known]
    config = extend_config(start, names if start else labelling.classes, settings)
    if config.classes != labelling.classes:
        labelling = label_slides(
            labels, slides, config.classes, config.labels, manifest=manifest, known=known
        )
    _check(labelling, known, config)
    return labelling, config


def _tell_nothing(labelling: Labelling) -> str:
    if not labelling.slides:
        return "no slide is labelled"
    return "no label is of a class: draw areas of classes, or learn with --from a checkpoint"


def _check(labelling: Labelling, known: Sequence[str], config: TrainConfig) -> None:
    """Refuse labels that cannot be trained on, with all problems at once."""
    problems = [*labelling.problems, *labelling.unmatched, *labelling.advise()]
    if not problems:
        tiles = gather_tiles(labelling.slides)
        if not len(_drop_unshown(tiles, config.classes)[0]):
            problems.append(
                "the labels show no class and correct no region, so there is nothing to learn: "
                "draw areas of classes"
            )
        for name, column in zip(config.classes, tiles.labels.T, strict=True):
            if name in config.background:
                continue
            if not (column == 1).any() and name not in known:
                problems.append(
                    f"nothing shows {name!r}, so it cannot be learned: label some, or leave it "
                    f"out of the classes"
                )
            elif (column == 1).any() and not (column == 0).any():
                problems.append(
                    f"nothing is known to be without {name!r}: label other classes, or mark areas "
                    f"as Checked*"
                )
    refuse("learn", problems, "labels or stores")


def _drop_unshown(tiles: StoreTiles, classes: Sequence[str]) -> tuple[StoreTiles, tuple[str, ...]]:
    """Mark classes that no window shows as unknown, so that they stay unchanged; and name them.

    Corrected windows are the exception: there the class must not win over what was corrected.
    """
    unshown = ~(tiles.labels == 1).any(0)
    labels = tiles.labels.copy()
    labels[np.ix_(~tiles.corrected, unshown)] = np.nan
    useful = np.asarray(np.isfinite(labels).any(1))
    kept = replace(tiles, labels=labels).pick(useful)
    return kept, tuple(np.array(classes)[unshown].tolist())


def _explain(labelling: Labelling, folds: Sequence[Fold]) -> list[str]:
    notes = []
    if not folds:
        notes.append(
            "only one patient is labelled, so nothing could be held out and there is no score; "
            "label a slide of another patient"
        )
    if not any(slide.patient for slide in labelling.slides) and len(labelling.slides) > 1:
        notes.append("no patients are given (--manifest), so each slide counts as a patient")
    if labelling.unlabelled:
        notes.append(f"slides without labels, which were skipped: {len(labelling.unlabelled)}")
    return notes


# -- folds --------------------------------------------------------------------------------------


def _score_folds(
    model: Folds, folds: Sequence[Fold], tiles: StoreTiles, work: Path, digest: str,
    progress: Progress | None,
) -> list[tuple[FoldScore, Places]]:  # fmt: skip
    """Score each fold by training, unless an earlier call has."""
    results = []
    for number, fold in enumerate(folds):
        path = work / f"{digest[:16]}-{number}.npz"
        if path.exists():
            results.append(_read_fold(path))
            continue
        held = fold.held[tiles.windows[:, 0]]
        if held.all() or not held.any():
            continue
        score, places = model.run(held, fold.name, progress)
        with open_atomic(path) as file:
            np.savez(file, score=json.dumps(score._asdict()), **places._asdict())
        results.append((score, places))
    return results


def _read_fold(path: Path) -> tuple[FoldScore, Places]:
    with np.load(path, allow_pickle=False) as arrays:
        score = FoldScore(**json.loads(str(arrays["score"])))
        return score, Places(*(arrays[name] for name in Places._fields))


def _mean(scores: Sequence[FoldScore], row: int, config: TrainConfig) -> tuple[float, ...]:
    if not scores:
        return (float("nan"),) * len(config.classes)
    values = np.array([score.precision[row] for score in scores], float)
    return tuple(mean_known(values).tolist())


# -- after training -----------------------------------------------------------------------------


def _keep_former(out: Path, digest: str) -> None:
    """Rename a finished model of other labels or settings, to keep it."""
    report = out.with_name(f"{out.name}.json")
    if not out.exists() or name_unfinished(out).exists():
        return
    try:
        same = json.loads(report.read_text(encoding="utf-8"))["digest"] == digest
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        put_aside(out)


def _note(start: str | None) -> str:
    begun = "" if start is None else f", begun from {Path(start).name}"
    return f"learned from a person's labels of slides by `wsiseg learn`{begun}"


def _count_labels(tiles: StoreTiles, value: int) -> tuple[int, ...]:
    return tuple(int(count) for count in (tiles.labels == value).sum(0))


def _find_missed(out: Path, tiles: StoreTiles, config: TrainConfig) -> tuple[Missed, ...]:
    """Find corrections that the finished model did not learn."""
    from wsiseg.model.trained import load_trained

    corrected = np.flatnonzero(tiles.corrected)
    if not len(corrected):
        return ()
    trained = load_trained(out, config.encoder_options)
    logits = Folds(trained.model, tiles, config).predict(torch.from_numpy(corrected))
    return tuple(_compare(tiles, corrected, logits, config.classes))


def _compare(
    tiles: StoreTiles, numbers: NDArray[np.intp], logits: NDArray[np.float32],
    classes: Sequence[str],
) -> list[Missed]:  # fmt: skip
    labels = tiles.labels[numbers]
    wrong = np.where(labels == 1, logits < 0, logits > 0) & np.isfinite(labels)
    return [
        Missed(tiles.name(int(numbers[row])), classes[k], bool(labels[row, k] == 1))
        for row, k in np.argwhere(wrong).tolist()
    ]
