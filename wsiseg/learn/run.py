"""Labels to a model in one call: labelled, split, trained, scored, and trained again on all."""

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
from wsiseg.labels import Labelling, label_slides
from wsiseg.learn.confidence import calibrate_from_folds
from wsiseg.learn.fit import Folds, FoldScore, Places, choose_epochs
from wsiseg.learn.precision import mean_known
from wsiseg.learn.report import Learned, Missed, read_rounds, write_report
from wsiseg.learn.split import Fold, plan_folds
from wsiseg.learn.start import extend_config, known_classes, start_from
from wsiseg.model.checkpoint import read_info
from wsiseg.model.device import open_device
from wsiseg.model.threads import fixed_threads
from wsiseg.table import refuse
from wsiseg.train import StoreTiles, gather_tiles, train_model
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
    """Learn from all labels there are, and say how well on slides that were held out.

    Every patient's slides are held out in turn, or those that the manifest says; a fold ends when
    its loss stops falling. Then a model learns from all slides, for as many epochs as were best.
    What was done is kept, so that the same call again goes on where it was.

    Parameters
    ----------
    slides
        Output folders, stores or folders of stores, as `label_slides` takes them.
    labels
        Files or folders: the first labels, corrections, all that count.
    out
        The ``.safetensors`` file to write. A model of other labels that is there is kept as
        ``<out>.old``. Beside it goes ``<out>.json``, with every figure.
    start
        A checkpoint whose classes go on; new ones begin as their tiles look.
    manifest
        Table ``slide[,labels][,patient][,split]``.
    settings
        Of `TrainConfig`, over those of `start` and `wsiseg.learn.start.DEFAULTS`.

    Raises
    ------
    DataError
        If a label file cannot be used, a class looks like a typing error of another, is shown by no
        tile or missing in none, or the manifest's split leaks; lists every problem.
    ConfigError
        If a setting does not fit `start`.
    """
    out, settings = Path(out), dict(settings or {})
    draft = extend_config(start, ["any"], settings)
    found = label_slides(labels, slides, settings.get("classes"), draft.labels, manifest=manifest)
    if not (found.slides and found.classes):
        nothing = [*found.problems, *found.unmatched] or ["no slide is labelled"]
        refuse("learn", nothing, "labels or stores")
    known = known_classes(start)
    names = [name for name in found.classes if name not in known]
    config = extend_config(start, names if start else found.classes, settings)
    if config.classes != found.classes:
        found = label_slides(
            labels, slides, config.classes, config.labels, manifest=manifest, known=known
        )
    _check(found, known, config)
    tiles, forgotten = _drop_unshown(gather_tiles(found.slides), config.classes)
    folds = plan_folds(found.slides)
    digest = digest_of(config, tiles.identity, start or "", [fold.name for fold in folds])
    work = out.with_name(f"{out.name}.folds")
    with fixed_threads(1), torch.random.fork_rng(devices=[]):
        model = make_model(config)
        check_fit(tiles, config, model.encoder)
        model.to(open_device(config.device))
        folded = Folds(model, tiles, config, start)
        begin = start_from(start, model, tiles, config)
        tried = _score_folds(folded, folds, tiles, work, digest, progress)
    scores = [score for score, _ in tried]
    epochs = choose_epochs(scores, config)
    was_calibrated = start is not None and bool(read_info(start).calibration)
    _keep_former(out, digest)
    final = config.model_copy(update={"epochs": epochs})
    train_model(tiles, final, out, progress, note=_note(start), start=begin)
    notes = [*found.notes, *_tell(found, folds)]
    if was_calibrated:
        notes.append(calibrate_from_folds(out, [places for _, places in tried]))
    learned = Learned(
        out=out, digest=digest, classes=config.classes, tiles=len(tiles),
        shown=tuple(int(n) for n in (tiles.labels == 1).sum(0)),
        absent=tuple(int(n) for n in (tiles.labels == 0).sum(0)),
        slides=len(found.slides), folds=tuple(fold.name for fold in folds), epochs=epochs,
        precision=_mean(scores, 0, config), guess=_mean(scores, 1, config),
        kept=forgotten, missed=_find_missed(out, tiles, config),
        notes=tuple(notes), rounds=read_rounds(out, digest),
    )  # fmt: skip
    write_report(learned)
    shutil.rmtree(work, ignore_errors=True)
    return learned


# -- before -------------------------------------------------------------------------------------


def _check(found: Labelling, known: Sequence[str], config: TrainConfig) -> None:
    """Refuse what would spoil a training, all at once."""
    problems = [*found.problems, *found.unmatched, *found.advise()]
    if not problems:
        labels = gather_tiles(found.slides).labels
        for at, name in enumerate(config.classes):
            if name in config.background:
                continue
            if not (labels[:, at] == 1).any() and name not in known:
                problems.append(
                    f"nothing shows {name!r}, so it cannot be learned: label some, or leave it "
                    f"out of the classes"
                )
            elif (labels[:, at] == 1).any() and not (labels[:, at] == 0).any():
                problems.append(
                    f"nothing is known to be without {name!r}: label other classes, or mark areas "
                    f"as Checked*"
                )
    refuse("learn", problems, "labels or stores")


def _drop_unshown(tiles: StoreTiles, classes: Sequence[str]) -> tuple[StoreTiles, tuple[str, ...]]:
    """Classes that no window shows go on as they were: they are unknown, but where a correction is.

    There something else was said to be, which a class that goes on untouched would outshine.
    """
    unshown = ~(tiles.labels == 1).any(0)
    labels = tiles.labels.copy()
    labels[np.ix_(~tiles.corrected, unshown)] = np.nan
    useful = np.asarray(np.isfinite(labels).any(1))
    kept = replace(tiles, labels=labels).pick(useful)
    return kept, tuple(name for name, no in zip(classes, unshown, strict=True) if no)


def _tell(found: Labelling, folds: Sequence[Fold]) -> list[str]:
    notes = []
    if not folds:
        notes.append(
            "only one patient is labelled, so nothing could be held out and there is no score; "
            "label a slide of another"
        )
    if not any(slide.patient for slide in found.slides) and len(found.slides) > 1:
        notes.append("nobody said which slides are of one patient (--manifest): each is its own")
    if found.unlabelled:
        notes.append(f"{len(found.unlabelled)} slides have no labels and were passed over")
    return notes


# -- folds --------------------------------------------------------------------------------------


def _score_folds(
    model: Folds, folds: Sequence[Fold], tiles: StoreTiles, work: Path, digest: str,
    progress: Progress | None,
) -> list[tuple[FoldScore, Places]]:  # fmt: skip
    """Each fold's score, from the file that an earlier call left or by training."""
    tried = []
    for number, fold in enumerate(folds):
        path = work / f"{digest[:16]}-{number}.npz"
        if path.exists():
            tried.append(_read_fold(path))
            continue
        held = fold.held[tiles.windows[:, 0]]
        if held.all() or not held.any():
            continue
        score, places = model.run(held, fold.name, progress)
        with open_atomic(path) as file:
            np.savez(file, score=json.dumps(score._asdict()), **places._asdict())
        tried.append((score, places))
    return tried


def _read_fold(path: Path) -> tuple[FoldScore, Places]:
    with np.load(path, allow_pickle=False) as kept:
        score = FoldScore(**json.loads(str(kept["score"])))
        return score, Places(*(kept[name] for name in Places._fields))


def _mean(scores: Sequence[FoldScore], which: int, config: TrainConfig) -> tuple[float, ...]:
    if not scores:
        return (float("nan"),) * len(config.classes)
    values = np.array([score.precision[which] for score in scores], float)
    return tuple(mean_known(values).tolist())


# -- after --------------------------------------------------------------------------------------


def _keep_former(out: Path, digest: str) -> None:
    """Keep a finished model of other labels or settings under another name."""
    report = out.with_name(f"{out.name}.json")
    unfinished = out.with_name(f"{out.name}.unfinished")
    if not out.exists() or unfinished.exists():
        return
    try:
        same = json.loads(report.read_text(encoding="utf-8"))["digest"] == digest
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if same:
        return
    put_aside(out)


def _note(start: str | None) -> str:
    begun = "" if start is None else f", begun from {Path(start).name}"
    return f"learned from a person's labels of slides by `wsiseg learn`{begun}"


def _find_missed(out: Path, tiles: StoreTiles, config: TrainConfig) -> tuple[Missed, ...]:
    """Corrections that the finished model still does not follow."""
    from wsiseg.model.trained import load_trained

    which = np.flatnonzero(tiles.corrected)
    if not len(which):
        return ()
    trained = load_trained(out, config.encoder_options)
    logits = Folds(trained.model, tiles, config).predict(torch.from_numpy(which))
    return tuple(_compare(tiles, which, logits, config.classes))


def _compare(
    tiles: StoreTiles, which: NDArray[np.intp], logits: NDArray[np.float32], classes: Sequence[str]
) -> list[Missed]:
    wrong = np.where(tiles.labels[which] == 1, logits < 0, logits > 0)
    wrong &= np.isfinite(tiles.labels[which])
    missed = []
    for row, at in np.argwhere(wrong).tolist():
        shown = bool(tiles.labels[which[row], at] == 1)
        missed.append(Missed(tiles.name(int(which[row])), classes[at], shown))
    return missed
