"""The training of the second stage, from a first stage's labels to a checkpoint; resumable."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from wsiseg.compute import Progress
from wsiseg.config import DistillConfig
from wsiseg.distill.augment import Views, draw_views
from wsiseg.distill.labels import LabelledWindows
from wsiseg.distill.setup import (
    check_windows,
    complete_card,
    count_steps,
    describe_info,
    identify_run,
    make_network,
    view_side,
)
from wsiseg.distill.step import Trainer, plan_teaching
from wsiseg.errors import TrainingError
from wsiseg.model.card import Card
from wsiseg.model.device import open_device
from wsiseg.model.segment.source import Segmenter, save_segmenter
from wsiseg.model.threads import fixed_threads
from wsiseg.train.history import draw_curves, write_scores, write_table
from wsiseg.train.resume import (
    Unfinished,
    discard_results,
    is_finished,
    name_best,
    name_unfinished,
    read_unfinished,
    write_unfinished,
)
from wsiseg.train.validate import Validate

__all__ = ["distill_model"]

_AHEAD = 2  # batches prepared in advance
_COLUMNS = ("learning_rate", "loss")


def distill_model(
    windows: LabelledWindows,
    config: DistillConfig,
    out: str | Path,
    progress: Progress | None = None,
    *,
    card: Card | None = None,
    validate: Validate | None = None,
    overwrite: bool = False,
) -> Path:
    """Train a compact network on a first stage's labels of windows.

    Pixels are weighted by the confidence of their label, and the least confident ones are not used.
    Besides, the network learns which classes a tile shows, by which its maps are gated.
    Windows are augmented in scale, rotation, stain, light and focus. Bit-repeatable on the CPU of
    one machine. After each epoch all files are rewritten, and an interrupted run resumes after its
    last whole epoch; a finished one is left as it is.

    Parameters
    ----------
    windows
        From `load_masks` or `load_stores`.
    out
        The ``.safetensors`` file to write: the last epoch. Beside it go the best epoch
        (``<stem>.best.safetensors``), losses (``<out>.csv`` and ``.png``) and, until the end, what
        a resumed run needs (``<out>.unfinished``).
    progress
        Called with ("distill", step, steps).
    card
        What people should know about the model; gaps are filled in with its training data.
    validate
        Scores each epoch (``<out>.validation.csv``); without it, the best has the lowest loss.
    overwrite
        Whether `out` may be replaced if it is the finished model or unfinished run of other
        settings or windows.

    Raises
    ------
    DataError
        If nothing can be learned from the windows, or their size does not fit the network.
    ConfigError
        If a setting or the card does not fit, or `out` is not to be replaced.
    CheckpointError
        If the weights of the network's body are not found, or of another network.
    TrainingError
        If a loss is no longer finite; files written before are kept.
    """
    with fixed_threads(1), torch.random.fork_rng(devices=[]):
        run = _Run(windows, config, Path(out), card, validate)
        if run.resume(overwrite):
            return run.out
        while run.epoch < config.epochs:
            run.train_epoch(progress)
            run.save()
        run.unfinished.unlink(missing_ok=True)
    return run.out


class _Run:
    """One training run, new or resumed."""

    def __init__(
        self,
        windows: LabelledWindows,
        config: DistillConfig,
        out: Path,
        card: Card | None,
        validate: Validate | None,
    ) -> None:
        check_windows(windows, config)
        self.windows, self.config, self.out, self.validate = windows, config, out, validate
        self.best_out = name_best(out)
        self.unfinished = name_unfinished(out)
        self.side = view_side(windows, config)
        self.steps = count_steps(windows, config)
        network = make_network(windows, config)
        self.trainer = Trainer(
            network.to(open_device(config.device)), plan_teaching(windows, config), config,
            self.steps,
        )  # fmt: skip
        self.card = complete_card(card, windows)
        self.digest = identify_run(windows, config, network.begun, validate)
        self.info = replace(describe_info(windows, config, network, self.card), run=self.digest)
        self.epoch, self.best = 0, -float("inf")
        self.scores: list[float] = []
        self.history: list[list[float]] = []
        if validate is not None:
            validate.check(self._source())

    def _source(self) -> Segmenter:
        return Segmenter(self.trainer.finished(), self.info)

    def resume(self, overwrite: bool) -> bool:
        """Restore an interrupted run, and score its last epoch; return whether nothing is left."""
        state = read_unfinished(self.unfinished, self.digest, overwrite=overwrite)
        if state is None:
            return not overwrite and is_finished(self.out, self.digest, self.card)
        self.trainer.restore(state["trainer"])
        self.epoch, self.best = state["epoch"], state["best"]
        self.history, self.scores = state["history"], state["scores"]
        self.save()  # the run may have been interrupted in it
        return False

    def train_epoch(self, progress: Progress | None) -> None:
        """Train on every window once, in a new order; the last batch may be smaller."""
        order = _draw(self.config, self.epoch).permutation(len(self.windows))
        batches = np.split(order, range(self.config.batch_size, len(order), self.config.batch_size))
        for batch, views in zip(batches, self._stream(batches), strict=True):
            rate = self.trainer.rate * self.config.learning_rate
            try:
                loss = self.trainer.step(views)
            except TrainingError as error:
                names = ", ".join(self.windows.name(int(index)) for index in batch)
                kept = f"epoch {self.epoch} is kept in {self.out}" if self.epoch else "none is kept"
                raise TrainingError(
                    f"epoch {self.epoch + 1}, step {len(self.history) + 1}: {error}; {kept}; try a "
                    f"lower learning_rate or precision float32, or look at {names}"
                ) from error
            self.history.append([rate, loss])
            if progress is not None:
                progress("distill", len(self.history), self.steps)
        self.epoch += 1

    def _stream(self, batches: list[np.ndarray]) -> Iterator[Views]:
        """Yield batch after batch, preparing the next in threads."""
        with ThreadPoolExecutor(_AHEAD) as pool:
            pending = [
                pool.submit(self._view, batch, step) for step, batch in enumerate(batches[:_AHEAD])
            ]
            for step in range(len(batches)):
                views = pending.pop(0).result()
                if step + _AHEAD < len(batches):
                    ahead = step + _AHEAD
                    pending.append(pool.submit(self._view, batches[ahead], ahead))
                yield views

    def _view(self, batch: np.ndarray, step: int) -> Views:
        # The random numbers of a step do not depend on earlier steps.
        rng = _draw(self.config, self.epoch, step + 1)
        return draw_views(self.windows.reader(batch.tolist()), self.side, self.config, rng)

    def save(self) -> None:
        """Write the epoch's files: the state to resume from first, then the results.

        As in `train_model`: until the last epoch is scored, no model is without its state.
        """
        write_unfinished(self._state(), self.unfinished)
        if self.best == -float("inf"):
            discard_results(self.out)
        source = self._source()
        save_segmenter(source.network, self.info, self.out)
        score = self._score(source)
        if score > self.best:
            self.best = score
            save_segmenter(source.network, self.info, self.best_out)
        write_table(self.history, self.out.with_name(f"{self.out.name}.csv"), _COLUMNS)
        draw_curves(self.history, self.out.with_name(f"{self.out.name}.png"), _COLUMNS)

    def _state(self) -> Unfinished:
        return Unfinished(
            digest=self.digest, epoch=self.epoch, trainer=self.trainer.state(),
            history=self.history, best=self.best, scores=self.scores,
        )  # fmt: skip

    def _score(self, source: Segmenter) -> float:
        """Return the score of `validate`, also written, or minus the mean loss of the epoch."""
        if self.validate is None:
            losses = [row[1] for row in self.history[-(self.steps // self.config.epochs) :]]
            return -sum(losses) / len(losses)
        score = self.validate(source)
        self.scores.append(score)
        table = self.out.with_name(f"{self.out.name}.validation.csv")
        write_scores(self.scores, self.validate.measure, table)
        return score


def _draw(config: DistillConfig, epoch: int, part: int = 0) -> np.random.Generator:
    return np.random.default_rng([config.seed, epoch, part])
