"""The training loop: labels in, checkpoint out; the same bits on every run of one CPU.

A run that was killed is taken up after its last whole epoch, to the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from wsiseg.compute import Progress
from wsiseg.config import TrainConfig
from wsiseg.model.checkpoint import CheckpointInfo, save_checkpoint
from wsiseg.model.construct import ConStruct
from wsiseg.model.device import open_device
from wsiseg.model.encoders import keep_portable
from wsiseg.model.threads import fixed_threads
from wsiseg.train.features import FrozenFeatures, draw_turns
from wsiseg.train.history import draw_curves, write_table
from wsiseg.train.patches import Patches
from wsiseg.train.resume import Unfinished, read_unfinished, run_digest, write_unfinished
from wsiseg.train.setup import check_fit, count_steps, describe_classes, make_model
from wsiseg.train.step import Trainer

__all__ = ["train_model"]

_THREADS = 1  # fixed, so that sums round alike whatever the machine has


Validate = Callable[[ConStruct], float]
"""Scores a model in evaluation mode; higher is better."""


def train_model(
    patches: Patches,
    config: TrainConfig,
    out: str | Path,
    progress: Progress | None = None,
    *,
    note: str = "",
    validate: Validate | None = None,
) -> Path:
    """Train on patch labels and write a checkpoint, with its losses beside it.

    Bit-repeatable on the CPU of one machine: seed, order, augmentation and number of threads are
    fixed. After each epoch all files are written anew, and a run that was cut off goes on after its
    last whole epoch when it is called again.

    Parameters
    ----------
    patches
        From `load_patches`, with the classes of `config`.
    out
        The ``.safetensors`` file to write: the last epoch. Beside it go the best epoch
        (``<stem>.best.safetensors``), losses (``<out>.csv`` and ``.png``) and, until the end, what
        a resumed run needs (``<out>.unfinished``).
    progress
        Called with ("train", step, steps).
    note
        Kept in the checkpoint and shown to who loads it.
    validate
        Scores each epoch; without it, the best epoch has the lowest mean loss.

    Returns
    -------
    Path of the checkpoint.

    Raises
    ------
    DataError
        If the labels do not fit the classes, or the patches the encoder.
    ConfigError
        If a setting does not fit the others, or an unfinished run of other settings is there.
    CheckpointError
        If the encoder's weights are not found or not its own.
    """
    with fixed_threads(_THREADS), torch.random.fork_rng(devices=[]):
        model = make_model(config)
        check_fit(patches, config, model.encoder)
        model.to(open_device(config.device))
        run = _Run(model, patches, config, Path(out), note)
        run.resume()
        while run.epoch < config.epochs:
            run.train_epoch(progress)
            run.save(validate)
        run.finish()
    return run.out


class _Run:
    """One training run, from wherever it stands."""

    def __init__(
        self, model: ConStruct, patches: Patches, config: TrainConfig, out: Path, note: str
    ) -> None:
        self.patches, self.config, self.out, self.note = patches, config, out, note
        self.best_out = out.with_name(f"{out.stem}.best{out.suffix}")
        self.unfinished = out.with_name(f"{out.name}.unfinished")
        self.generator = torch.Generator().manual_seed(config.seed)
        self.steps = count_steps(patches, config)
        self.trainer = Trainer(model, config, self.steps, self.generator)
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
        )
        self.labels = torch.from_numpy(patches.labels)
        self.digest = run_digest(patches, config, _identities(model), note)
        self.epoch, self.best = 0, -float("inf")
        self.history: list[list[float]] = []

    def resume(self) -> None:
        """Take up what a run that was cut off left."""
        state = read_unfinished(self.unfinished, self.digest)
        if state is not None:
            self.trainer.restore(state["trainer"])
            self.generator.set_state(state["generator"])
            self.epoch, self.best = state["epoch"], state["best"]
            self.history = state["history"]

    def train_epoch(self, progress: Progress | None) -> None:
        """Every patch once, in new order; the last batch may be smaller."""
        order = torch.randperm(len(self.patches), generator=self.generator)
        for batch in torch.split(order, self.config.batch_size):
            turns = draw_turns(len(batch), self.config.preset, self.generator)
            rate = self.trainer.rate
            losses = self.trainer.step(self.source.read(batch, turns), self.labels[batch])
            self.history.append([rate, *(loss.item() for loss in losses)])
            if progress is not None:
                progress("train", self.trainer.done, self.steps)
        self.epoch += 1

    def save(self, validate: Validate | None) -> None:
        """Write the epoch: what is a result first, what takes it up again last."""
        self.model.eval()
        info = _make_info(self.model, self.patches, self.config, self.note)
        save_checkpoint(self.model, info, self.out)
        score = self._score() if validate is None else validate(self.model)
        self.model.train()
        if score > self.best:
            self.best = score
            save_checkpoint(self.model, info, self.best_out)
        write_table(self.history, self.out.with_name(f"{self.out.name}.csv"))
        draw_curves(self.history, self.out.with_name(f"{self.out.name}.png"))
        write_unfinished(self._state(), self.unfinished)

    def _score(self) -> float:
        """Minus the mean loss of the last epoch."""
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
        )

    def finish(self) -> None:
        """Nothing is left to take up."""
        self.model.eval()
        self.unfinished.unlink(missing_ok=True)


def _identities(model: ConStruct) -> list[str]:
    frozen = (model.encoder, model.teacher)
    return [str(getattr(part, "identity", type(part).__name__)) for part in frozen]


def _make_info(
    model: ConStruct, patches: Patches, config: TrainConfig, note: str
) -> CheckpointInfo:
    prompts, palette = describe_classes(config)
    plain = config.model_dump(mode="json")
    for options in ("encoder_options", "teacher_options"):
        plain[options] = keep_portable(plain[options])
    return CheckpointInfo(
        encoder=config.encoder, identity=model.encoder.identity, names=palette.names,
        colors=palette.colors, prompts=prompts, prototypes_per_class=config.prototypes_per_class,
        mpp=config.mpp, tile=patches.side, config=plain, note=note, preset=config.preset,
        guidance_levels=model.guidance_levels, encoder_options=plain["encoder_options"],
        weights=_name_weights(model),
    )  # fmt: skip


def _name_weights(model: ConStruct) -> dict[str, dict[str, str]]:
    """Source, revision and sha256 of the frozen weights; never where they lie on this machine."""
    named: dict[str, dict[str, str]] = {}
    for part, frozen in (("encoder", model.encoder), ("teacher", model.teacher)):
        weights: Any = getattr(frozen, "weights", None)
        if weights is not None:
            facts = asdict(weights)
            named[part] = {name: facts[name] for name in ("source", "revision", "sha256")}
    return named
