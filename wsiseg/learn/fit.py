"""Training with slides held out: the features of all tiles are computed once, for every fold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from wsiseg.compute import Progress
from wsiseg.config import TrainConfig
from wsiseg.learn.precision import precision_by_class
from wsiseg.learn.start import known_classes, start_from
from wsiseg.model.checkpoint import trained_state
from wsiseg.model.construct import ConStruct
from wsiseg.train.features import FrozenFeatures, draw_turns
from wsiseg.train.step import Trainer
from wsiseg.train.stores import StoreTiles
from wsiseg.train.weigh import weigh_labels

__all__ = ["FoldScore", "Folds", "Places", "choose_epochs"]

_PLACES = 7
"""Along a tile's side."""
_LEAST_STEPS = 60
"""Steps before which no epoch is the best: prototypes have hardly moved, whatever is held out."""
_PATIENCE, _PATIENT_STEPS = 5, 40
"""Epochs and steps without a lower held-out loss after which a fold ends: few tiles are few steps
an epoch, and the loss does not fall evenly."""


class FoldScore(NamedTuple):
    """What a model made of slides that it had not seen."""

    epoch: int
    """The one with the lowest loss, from 1."""
    epochs: int
    """How many were tried."""
    precision: list[list[float]]
    """``(2, K)`` of `precision_by_class` after it."""


class Places(NamedTuple):
    """Places in tiles of one class, and what a model that had not seen them made of them."""

    logits: NDArray[np.float32]
    """``(M, C)`` CAM logits."""
    classes: NDArray[np.int64]
    """``(M,)``: the class of the tile."""
    tiles: NDArray[np.int64]
    """``(M,)``: its number."""


class Folds:
    """Trains one model after the other from one start, on parts of the tiles.

    Parameters
    ----------
    model
        Untrained; used up.
    tiles
        All of them.
    config
        Its epochs are the most that a fold takes.
    start
        The checkpoint that every fold begins from, as `start_from` has it.
    """

    def __init__(
        self, model: ConStruct, tiles: StoreTiles, config: TrainConfig, start: str | None = None
    ) -> None:
        self._model, self._patches, self._config, self._start = model, tiles, config, start
        self._fresh = {name: value.clone() for name, value in trained_state(model).items()}
        self._source = FrozenFeatures(
            model.encoder,
            model.teacher,
            tiles,
            levels=sorted(model.levels_for(model.teacher is not None)),
            guided=model.guidance_levels,
            device=model.prototypes.device,
            turns=config.turns,
            images=config.contrast_weight > 0,
        )

    def run(
        self, held: NDArray[np.bool_], name: str, progress: Progress | None = None
    ) -> tuple[FoldScore, Places]:
        """Train on all but the tiles `held` ``(N,)``, and end when their loss stops falling.

        Not when their precision stops rising: that asks for the order of tiles alone, which is
        right after a few steps, long before classes can be compared with each other in a map.

        A class that only the tiles `held` show cannot be learned from the others, and has no score.
        """
        config, labels = self._config, self._patches.labels.copy()
        unshown = np.isin(np.arange(labels.shape[1]), self._begin(held))
        labels[(labels == 1) & held[:, None] & unshown] = np.nan
        learned, unseen = (torch.from_numpy(np.flatnonzero(which)) for which in (~held, held))
        weights, asked = (
            weigh_labels(labels[which], self._patches.weights[which], config.balance)
            for which in (~held, held)
        )
        generator = torch.Generator().manual_seed(config.seed)
        steps = config.epochs * -(-len(learned) // config.batch_size)
        trainer = Trainer(self._model, config, steps, generator)
        first = min(config.epochs, -(-_LEAST_STEPS * config.epochs // steps))
        patience = max(_PATIENCE, -(-_PATIENT_STEPS * config.epochs // steps))
        best, least = first, float("inf")
        for epoch in range(1, config.epochs + 1):
            self._train(trainer, learned, weights, generator)
            if epoch >= first:
                logits, seen = self._ask(unseen, labels)
                loss = _measure_loss(logits, labels[unseen.numpy()], asked)
                if epoch == first or loss < least:
                    least, best, kept = loss, epoch, (logits, seen)
            if progress is not None:
                progress(f"without {name}", epoch, config.epochs)
            if epoch - best >= patience:
                break
        if progress is not None:
            progress(f"without {name}", config.epochs, config.epochs)
        precision = precision_by_class(kept[0], labels[unseen.numpy()])
        return FoldScore(best, epoch, precision.tolist()), kept[1]

    def _begin(self, held: NDArray[np.bool_]) -> list[int]:
        """Begin as what the tiles that are not `held` look like; the classes that none shows."""
        known, rest = known_classes(self._start), self._patches.pick(~held)
        shown = (rest.labels == 1).any(0)
        names = enumerate(self._config.classes)
        unseen = [at for at, name in names if not shown[at] and name not in known]
        self._model.load_state_dict(self._fresh, strict=False)
        begun = start_from(self._start, self._model, rest, self._config, unseen)
        self._model.load_state_dict(begun or {}, strict=False)
        return unseen

    def _train(
        self,
        trainer: Trainer,
        learned: torch.Tensor,
        weights: NDArray[np.float32] | None,
        generator: torch.Generator,
    ) -> None:
        """One epoch over the tiles `learned`, of which row i has the weights i."""
        self._model.train()
        labels = torch.from_numpy(self._patches.labels).nan_to_num(0)
        order = torch.randperm(len(learned), generator=generator)
        batches = torch.split(order, self._config.batch_size)
        turns = [draw_turns(len(b), self._config.preset, generator) for b in batches]
        if not self._config.turns:
            turns = [torch.zeros_like(some) for some in turns]
        plan = [(learned[batch], turn) for batch, turn in zip(batches, turns, strict=True)]
        for batch, seen in zip(batches, self._source.stream(plan), strict=True):
            part = None if weights is None else torch.from_numpy(weights)[batch]
            trainer.step(seen, labels[learned[batch]], part)

    def predict(self, which: torch.Tensor) -> NDArray[np.float32]:
        """``(n, K)`` class logits of what is known of some tiles, by the model as it stands."""
        return self._ask(which, self._patches.labels)[0]

    @torch.no_grad()
    def _ask(
        self, which: torch.Tensor, labels: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], Places]:
        """`predict`, and the places of which the class is known by `labels` ``(N, K)``."""
        self._model.eval()
        shown = (self._patches.labels == 1).any(0)
        pure = ((labels == 1).sum(1) == 1) & np.isfinite(labels[:, shown]).all(1)
        batches = torch.split(which, self._config.batch_size) if len(which) else ()
        plan = [(batch, torch.zeros(len(batch), 2, dtype=torch.int64)) for batch in batches]
        logits = [np.empty((0, labels.shape[1]), np.float32)]
        places = [Places(logits[0], np.empty(0, np.int64), np.empty(0, np.int64))]
        for (batch, _), seen in zip(plan, self._source.stream(plan) if plan else (), strict=True):
            cams = self._model.read_pyramid(seen.pyramid).cams.float()
            logits.append(self._model.pool(cams, seen.known).float().cpu().numpy())
            places.append(_find_places(cams, seen.known, batch.numpy(), labels, pure))
        return np.concatenate(logits), Places(*map(np.concatenate, zip(*places, strict=True)))


def _measure_loss(
    logits: NDArray[np.float32], labels: NDArray[np.float32], weights: NDArray[np.float32] | None
) -> float:
    """The class loss of training, over all that is known."""
    known = np.isfinite(labels)
    losses = np.logaddexp(0, np.where(labels == 1, -logits, logits))
    return float((losses * (known if weights is None else weights)).sum() / max(1, known.sum()))


def _find_places(
    cams: torch.Tensor, known: torch.Tensor | None, tiles: NDArray[np.int64],
    labels: NDArray[np.float32], pure: NDArray[np.bool_],
) -> Places:  # fmt: skip
    """Some 49 places of each tile that is `pure` ``(N,)``: those that are known throughout."""
    side = min(_PLACES, cams.shape[2])
    found = F.adaptive_avg_pool2d(cams, side).permute(0, 2, 3, 1).cpu().numpy()
    useful = np.broadcast_to(pure[tiles, None, None], found.shape[:3]).copy()
    if known is not None:
        useful &= F.adaptive_avg_pool2d(known[:, None].float(), side)[:, 0].cpu().numpy() > 1 - 1e-6
    numbers = np.broadcast_to(tiles[:, None, None], useful.shape)[useful]
    return Places(found[useful], (labels[numbers] == 1).argmax(1), numbers)


def choose_epochs(scores: Sequence[FoldScore], config: TrainConfig) -> int:
    """As many as the folds' best were worth, in the mean; a half of the most where there are none.

    The learning rate falls to 0 over all epochs, so one that ends early has spent more of it an
    epoch than a whole training of as many would.
    """
    if not scores:
        return max(1, config.epochs // 2)
    found = [2 * score.epoch - score.epoch**2 / config.epochs for score in scores]
    return max(1, round(float(np.mean(found))))
