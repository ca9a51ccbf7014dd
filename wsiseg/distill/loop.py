"""The second stage's training: labels of a first stage in, checkpoint out, resumed bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from wsiseg.compute import Progress
from wsiseg.config import DistillConfig, digest_of
from wsiseg.distill.augment import Views, draw_views
from wsiseg.distill.labels import LabelledWindows
from wsiseg.distill.setup import (
    check_windows,
    complete_card,
    count_steps,
    describe_info,
    make_network,
    view_side,
)
from wsiseg.distill.step import Trainer, plan_teaching
from wsiseg.errors import TrainingError
from wsiseg.model.card import Card
from wsiseg.model.device import open_device
from wsiseg.model.encoders import keep_portable
from wsiseg.model.segment.source import Segmenter, save_segmenter
from wsiseg.model.threads import fixed_threads
from wsiseg.train.history import draw_curves, write_scores, write_table
from wsiseg.train.resume import Unfinished, is_finished, read_unfinished, write_unfinished
from wsiseg.train.validate import Validate

__all__ = ["distill_model"]

_VERSION = 1
"""Of what is computed: raised when the same run comes out otherwise."""
_AHEAD = 2  # batches that are drawn while one is learned
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
    """Teach a compact network what a first stage says of the pixels of windows.

    A pixel counts by the confidence of its label, and those of which the first stage is least sure
    teach nothing. Windows are seen larger and smaller, turned, in other dyes, light and focus.
    Bit-repeatable on the CPU of one machine; after each epoch all files are written anew, and a run
    that was cut off goes on after its last whole epoch. One that is finished is left as it is.

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
        What people should know of the model; without it, or where it does not say, what taught it.
    validate
        Scores each epoch (``<out>.validation.csv``); without it, the best has the lowest loss.
    overwrite
        Whether the finished model or unfinished run of others that is in `out` may be replaced.

    Raises
    ------
    DataError
        If nothing in the windows teaches, or their side does not fit the network.
    ConfigError
        If a setting or the card does not fit, or what is in `out` is not to be replaced.
    CheckpointError
        If the weights of the network's body are not found or not its own.
    TrainingError
        If a loss is no finite number any more; what was written before stays.
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
    """One run, from wherever it stands."""

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
        self.best_out = out.with_name(f"{out.stem}.best{out.suffix}")
        self.unfinished = out.with_name(f"{out.name}.unfinished")
        self.side = view_side(windows, config)
        self.steps = count_steps(windows, config)
        network = make_network(windows, config)
        self.trainer = Trainer(
            network.to(open_device(config.device)), plan_teaching(windows, config), config,
            self.steps,
        )  # fmt: skip
        self.card = complete_card(card, windows)
        told = "" if validate is None else validate.identity
        plain = config.model_dump(mode="json", exclude={"device"})
        plain["network_options"] = keep_portable(plain["network_options"])
        self.digest = digest_of("distill", _VERSION, plain, windows.identity, network.begun, told)
        self.info = replace(describe_info(windows, config, network, self.card), run=self.digest)
        self.epoch, self.best = 0, -float("inf")
        self.scores: list[float] = []
        self.history: list[list[float]] = []
        if validate is not None:
            validate.check(self._source())

    def _source(self) -> Segmenter:
        return Segmenter(self.trainer.finished(), self.info)

    def resume(self, overwrite: bool) -> bool:
        """Take up what a run that was cut off left; whether nothing is left to do."""
        state = read_unfinished(self.unfinished, self.digest, overwrite=overwrite)
        if state is None:
            return not overwrite and is_finished(self.out, self.digest, self.card)
        self.trainer.restore(state["trainer"])
        self.epoch, self.best = state["epoch"], state["best"]
        self.history, self.scores = state["history"], state["scores"]
        return False

    def train_epoch(self, progress: Progress | None) -> None:
        """Every window once, in new order; the last batch may be smaller."""
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
        """Batch after batch; the next are drawn while one is learned."""
        with ThreadPoolExecutor(_AHEAD) as pool:
            waiting = [
                pool.submit(self._view, batch, step) for step, batch in enumerate(batches[:_AHEAD])
            ]
            for step in range(len(batches)):
                views = waiting.pop(0).result()
                if step + _AHEAD < len(batches):
                    ahead = step + _AHEAD
                    waiting.append(pool.submit(self._view, batches[ahead], ahead))
                yield views

    def _view(self, batch: np.ndarray, step: int) -> Views:
        # The random numbers of a step hang on none before it.
        rng = _draw(self.config, self.epoch, step + 1)
        return draw_views(self.windows.reader(batch.tolist()), self.side, self.config, rng)

    def save(self) -> None:
        """Write the epoch: what is a result first, what takes it up again last."""
        source = self._source()
        save_segmenter(source.network, self.info, self.out)
        score = self._score(source)
        if score > self.best:
            self.best = score
            save_segmenter(source.network, self.info, self.best_out)
        write_table(self.history, self.out.with_name(f"{self.out.name}.csv"), _COLUMNS)
        draw_curves(self.history, self.out.with_name(f"{self.out.name}.png"), _COLUMNS)
        write_unfinished(
            Unfinished(
                digest=self.digest, epoch=self.epoch, trainer=self.trainer.state(),
                history=self.history, best=self.best, scores=self.scores,
            ),
            self.unfinished,
        )  # fmt: skip

    def _score(self, source: Segmenter) -> float:
        """That of `validate`, which is written too, or minus the mean loss of the epoch."""
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
