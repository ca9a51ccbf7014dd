"""The training loop: labels in, checkpoint out; the same bits on every run of one CPU.

A run that was killed resumes after its last whole epoch, to the same bits.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from wsiseg.compute import Progress
from wsiseg.config import TrainConfig
from wsiseg.errors import ConfigError, TrainingError
from wsiseg.model.card import Card
from wsiseg.model.checkpoint import save_checkpoint, trained_state
from wsiseg.model.construct import ConStruct
from wsiseg.model.threads import fixed_threads
from wsiseg.model.trained import TrainedModel
from wsiseg.train.card import complete_card
from wsiseg.train.exemplars import keep_exemplars
from wsiseg.train.familiar import remember_patches
from wsiseg.train.features import FrozenFeatures, draw_turns
from wsiseg.train.history import draw_curves, write_scores, write_table
from wsiseg.train.info import identify_run, make_info
from wsiseg.train.parallel import Group, check_parts, open_group, share_batch_norms
from wsiseg.train.patches import PatchSource
from wsiseg.train.prototypes import begin_as_images
from wsiseg.train.resume import (
    Unfinished,
    discard_results,
    is_finished,
    name_best,
    name_unfinished,
    read_unfinished,
    write_unfinished,
)
from wsiseg.train.setup import (
    check_fit,
    count_steps,
    describe_distillation,
    guided_levels,
    make_model,
)
from wsiseg.train.step import Trainer
from wsiseg.train.validate import Validate
from wsiseg.train.weigh import weigh_labels

__all__ = ["train_model"]

_LOG = logging.getLogger(__name__)
_THREADS = 1  # fixed, so that sums round alike whatever the machine has
_SCALING = 32  # steps that float16 may skip while it finds its scale


def train_model(
    patches: PatchSource,
    config: TrainConfig,
    out: str | Path,
    progress: Progress | None = None,
    *,
    note: str = "",
    card: Card | None = None,
    validate: Validate | None = None,
    overwrite: bool = False,
    start: Mapping[str, Tensor] | None = None,
) -> Path:
    """Train on patch labels and write a checkpoint, with its losses beside it.

    Bit-repeatable on the CPU of one machine: seed, order, augmentation and number of threads are
    fixed. After each epoch all files are rewritten, and an interrupted run resumes after its last
    whole epoch when it is called again; a finished one is left as it is. Under ``torchrun`` its
    processes share every batch; only the first writes files, on a file system that all of them see.

    Parameters
    ----------
    patches
        From `load_patches` or `load_tiles`, with the classes of `config`.
    out
        The ``.safetensors`` file to write: the last epoch. Beside it go the best epoch
        (``<stem>.best.safetensors``), losses (``<out>.csv`` and ``.png``) and, until the end, what
        a resumed run needs (``<out>.unfinished``).
    progress
        Called with ("train", step, steps).
    note
        Stored in the checkpoint and shown to whoever loads it.
    card
        What people should know about the model, from `load_card`; stored in the checkpoint. If it
        lists no data, or is None, the number and hash of the patches are filled in.
    validate
        Scores each epoch, as `HeldOut` or `MaskScore` does (``<out>.validation.csv``); without it,
        the best epoch has the lowest mean loss.
    overwrite
        Whether the finished model or unfinished run of other settings, patches or weights that is
        in `out` may be replaced.
    start
        Trained tensors by name to start from, as `trained_state` gives them; without them, the
        prototypes start from prompts or patches.

    Returns
    -------
    Path of the checkpoint.

    Raises
    ------
    DataError
        If the labels do not fit the classes, or the patches the encoder, or no patch shows a class
        whose prototypes start from images.
    ConfigError
        If a setting or the card does not fit the rest, or `out` is not to be replaced.
    CheckpointError
        If the encoder's weights are not found or not its own.
    TrainingError
        If a loss or a weight is no longer finite (preset `reference` goes on), or if most steps
        were skipped because gradients overflow in float16; files written before are kept.
    """
    card = complete_card(card, patches, config.classes)
    with fixed_threads(_THREADS), torch.random.fork_rng(devices=[]):
        group, device = open_group(config.device)
        model = make_model(config)
        model.begin_from(start or {})
        check_fit(patches, config, model.encoder)
        check_parts(len(patches), config, group)
        model.to(device)
        if start is None:
            begin_as_images(model, patches, config, group)
        share_batch_norms(model.structure_adapters, group)
        if config.preset == "wsiseg" and model.familiar is None:
            remember_patches(model, patches, device)
        if config.exemplars and model.exemplars is None:
            keep_exemplars(model, patches, config.exemplars, device)
        if (
            group.leads
            and config.struct_weight
            and not {*model.cam_levels} & {*guided_levels(config, model.encoder)}
        ):
            _LOG.warning("distillation %s", describe_distillation(config, model.encoder))
        run = _Run(model, patches, config, Path(out), note, card, group, validate, start)
        if run.resume(overwrite):
            return run.out
        while run.epoch < config.epochs:
            run.train_epoch(progress)
            run.save()
        run.finish()
    return run.out


class _Run:
    """One training run, new or resumed."""

    def __init__(
        self,
        model: ConStruct,
        patches: PatchSource,
        config: TrainConfig,
        out: Path,
        note: str,
        card: Card,
        group: Group,
        validate: Validate | None,
        start: Mapping[str, Tensor] | None,
    ) -> None:
        self.patches, self.config, self.out, self.note = patches, config, out, note
        self.card = card  # does not affect training: a resumed run may have another
        self.group = group
        self.best_out = name_best(out)
        self.unfinished = name_unfinished(out)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.steps = count_steps(patches, config)
        self.trainer = Trainer(model, config, self.steps, self.generator, group)
        self.model = model
        guided = model.teacher is not None
        self.source = FrozenFeatures(
            model.encoder,
            model.teacher,
            patches,
            levels=sorted(model.levels_for(guided)),
            guided=model.guidance_levels,
            device=self.trainer.device,
            autocast=self.trainer.autocast,
            turns=config.turns,
            images=config.contrast_weight > 0,
        )
        weights = weigh_labels(patches.labels, patches.weights, config.balance)
        # An unknown label has the weight 0, and stands for no region in the contrast.
        self.labels = torch.from_numpy(patches.labels).nan_to_num(0)
        self.weights = None if weights is None else torch.from_numpy(weights)
        self.validate = validate
        self.digest = identify_run(model, patches, config, note, validate, start)
        info = make_info(model, patches, config, note, card, begun=start is not None)
        self.info = replace(info, run=self.digest)
        if validate is not None:
            validate.check(TrainedModel(model, self.info))
        self.epoch, self.best = 0, -float("inf")
        self.scores: list[float] = []
        self.history: list[list[float]] = []

    def resume(self, overwrite: bool) -> bool:
        """Restore an interrupted run, and score its last epoch; return whether nothing is left."""
        self.group.wait(self.trainer.device)  # the first may still be writing the run before this
        state = read_unfinished(self.unfinished, self.digest, overwrite=overwrite)
        if state is None and not overwrite and is_finished(self.out, self.digest, self.card):
            return True
        if state is not None:
            self.trainer.restore(state["trainer"])
            self.generator.set_state(state["generator"])
            self.epoch, self.best = state["epoch"], state["best"]
            self.history, self.scores = state["history"], state["scores"]
        epochs = self.group.gather(torch.tensor([self.epoch], device=self.trainer.device)).tolist()
        if len(set(epochs)) > 1:
            raise ConfigError(
                f"{self.unfinished}: the processes would resume after different epochs, {epochs}; "
                f"all of them need to see the same file"
            )
        if state is not None:
            self.save()  # the run may have been interrupted in it
        return False

    def train_epoch(self, progress: Progress | None) -> None:
        """Train on every patch once, in a new order; the last batch may be smaller."""
        order = torch.randperm(len(self.patches), generator=self.generator)
        batches = torch.split(order, self.config.batch_size)
        preset = self.config.preset
        turns = [draw_turns(len(batch), preset, self.generator) for batch in batches]
        if not self.config.turns:
            turns = [torch.zeros_like(drawn) for drawn in turns]
        part = self.group.part
        seen = self.source.stream([(part(b), part(t)) for b, t in zip(batches, turns, strict=True)])
        for batch, patches in zip(batches, seen, strict=True):
            rate = self.trainer.rate
            try:
                rows = part(batch)
                weights = None if self.weights is None else self.weights[rows]
                losses = self.trainer.step(patches, self.labels[rows], weights)
            except TrainingError as error:
                raise self._explain(error, batch.tolist()) from error
            self.history.append([rate, *(loss.item() for loss in losses)])
            if progress is not None and self.group.leads:
                progress("train", len(self.history), self.steps)
        self.epoch += 1

    def _explain(self, error: TrainingError, batch: list[int]) -> TrainingError:
        names = ", ".join(self.patches.name(index) for index in batch)
        kept = f"epoch {self.epoch} is kept in {self.out}" if self.epoch else "nothing was written"
        return TrainingError(
            f"epoch {self.epoch + 1}, step {len(self.history) + 1}: {error}; {kept}; try a lower "
            f"learning_rate or precision float32, or look at the patches of this batch: {names}"
        )

    def save(self) -> None:
        """Write the epoch's files: the state to resume from first, then the results.

        The other way round, a run that is killed while it scores its first epoch would leave a
        model that looks finished.
        """
        if self.config.preset != "reference":
            self._check_weights()
        skipping = self._check_skipped()
        self.group.lead(lambda: self._write(skipping))

    def _write(self, skipping: bool) -> None:
        write_unfinished(self._state(), self.unfinished)
        if skipping:  # no result yet
            self.scores += [float("nan")] * (self.validate is not None)
            return
        if self.best == -float("inf"):
            discard_results(self.out)
        self.model.eval()
        save_checkpoint(self.model, self.info, self.out)
        score = self._score()
        self.model.train()
        if score > self.best:
            self.best = score
            save_checkpoint(self.model, self.info, self.best_out)
        write_table(self.history, self.out.with_name(f"{self.out.name}.csv"))
        draw_curves(self.history, self.out.with_name(f"{self.out.name}.png"))

    def _check_weights(self) -> None:
        """Check the weights, as no loss has shown yet whether the last step ruined them."""
        for name, tensor in trained_state(self.model).items():
            if not tensor.isfinite().all():
                last = self.epoch - 1
                kept = f"epoch {last} is kept in {self.out}" if last else "nothing was written"
                raise TrainingError(
                    f"epoch {self.epoch}: {name} is not finite after its last step; {kept}; try a "
                    f"lower learning_rate or precision float32"
                )

    def _check_skipped(self) -> bool:
        """Whether most steps so far were skipped because their gradients overflowed.

        At first that is how float16 finds its scale; later it means that nothing is learned.
        """
        taken, skipped = self.trainer.done, len(self.history) - self.trainer.done
        if skipped <= taken:
            return False
        if skipped > _SCALING or self.epoch == self.config.epochs:
            raise TrainingError(
                f"epoch {self.epoch}: {skipped} of {len(self.history)} steps were skipped because "
                f"their gradients overflow in {self.config.precision}; set precision to bfloat16 "
                f"or float32"
            )
        return True

    def _score(self) -> float:
        """Return the score of `validate`, also written, or minus the mean loss of the epoch."""
        if self.validate is not None:
            score = self.validate(TrainedModel(self.model, self.info))
            self.scores.append(score)
            table = self.out.with_name(f"{self.out.name}.validation.csv")
            write_scores(self.scores, self.validate.measure, table)
            return score
        totals = [row[1] for row in self.history[-(self.steps // self.config.epochs) :]]
        return -sum(totals) / len(totals)

    def _state(self) -> Unfinished:
        return Unfinished(
            digest=self.digest,
            epoch=self.epoch,
            trainer=self.trainer.state(),
            generator=self.generator.get_state(),
            history=self.history,
            best=self.best,
            scores=self.scores,
        )

    def finish(self) -> None:
        """Remove the state to resume from."""
        self.model.eval()
        if self.group.leads:
            self.unfinished.unlink(missing_ok=True)
        self.group.wait(self.trainer.device)
