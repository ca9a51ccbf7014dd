"""Train with slides held out; the features of all tiles are computed once for all folds."""

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

_CELLS = 7
"""Cells along a tile's side, at most."""
_MIN_STEPS = 60
"""No epoch before this step can be the best: prototypes have hardly moved until then."""
_PATIENCE, _PATIENT_STEPS = 5, 40
"""A fold ends after this many epochs and steps without a lower held-out loss: with few tiles an
epoch has few steps, and the loss does not fall evenly."""


class FoldScore(NamedTuple):
    """The score of a model on slides that it was not trained on."""

    epoch: int
    """The epoch with the lowest held-out loss, from 1."""
    epochs: int
    """Number of epochs trained."""
    precision: list[list[float]]
    """``(2, K)``: `precision_by_class` after the best epoch."""


class Places(NamedTuple):
    """Cells of tiles that show one class, as predicted by a model that was not trained on them."""

    logits: NDArray[np.float32]
    """``(M, C)`` CAM logits."""
    classes: NDArray[np.int64]
    """``(M,)``: the class of the tile."""
    tiles: NDArray[np.int64]
    """``(M,)``: the number of the tile."""


class Folds:
    """Trains one model per fold from the same start, on parts of the tiles.

    Parameters
    ----------
    model
        Untrained; trained in place.
    tiles
        Those of all folds.
    config
        Its `epochs` are the maximum for a fold.
    start
        The checkpoint from which every fold starts, as in `start_from`.
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
        """Train on all tiles except `held` ``(N,)``, until the loss on those stops falling.

        Precision is no criterion: it depends only on the order of tiles, which is right after a few
        steps, long before classes can be compared with each other in a map.

        A class that only the tiles `held` show cannot be learned from the others; it gets no score.
        """
        config, labels = self._config, self._patches.labels.copy()
        unseen = np.isin(np.arange(labels.shape[1]), self._initialise(held))
        labels[(labels == 1) & held[:, None] & unseen] = np.nan
        train, test = (torch.from_numpy(np.flatnonzero(mask)) for mask in (~held, held))
        weights, test_weights = (
            weigh_labels(labels[mask], self._patches.weights[mask], config.balance)
            for mask in (~held, held)
        )
        generator = torch.Generator().manual_seed(config.seed)
        steps = config.epochs * -(-len(train) // config.batch_size)
        trainer = Trainer(self._model, config, steps, generator)
        first = min(config.epochs, -(-_MIN_STEPS * config.epochs // steps))
        patience = max(_PATIENCE, -(-_PATIENT_STEPS * config.epochs // steps))
        best, lowest = first, float("inf")
        for epoch in range(1, config.epochs + 1):
            self._train(trainer, train, weights, generator)
            if epoch >= first:
                predicted = self._predict(test, labels)
                loss = _measure_loss(predicted[0], labels[test.numpy()], test_weights)
                if epoch == first or loss < lowest:
                    lowest, best, (logits, places) = loss, epoch, predicted
            if progress is not None:
                progress(f"without {name}", epoch, config.epochs)
            if epoch - best >= patience:
                break
        if progress is not None:
            progress(f"without {name}", config.epochs, config.epochs)
        precision = precision_by_class(logits, labels[test.numpy()])
        return FoldScore(best, epoch, precision.tolist()), places

    def _initialise(self, held: NDArray[np.bool_]) -> list[int]:
        """Initialise the model from the tiles not `held`; return new classes that none shows."""
        known, rest = known_classes(self._start), self._patches.pick(~held)
        shown = (rest.labels == 1).any(0)
        names = enumerate(self._config.classes)
        unseen = [index for index, name in names if not shown[index] and name not in known]
        self._model.load_state_dict(self._fresh, strict=False)
        state = start_from(self._start, self._model, rest, self._config, unseen)
        self._model.begin_from(state or {})
        return unseen

    def _train(
        self,
        trainer: Trainer,
        tiles: torch.Tensor,
        weights: NDArray[np.float32] | None,
        generator: torch.Generator,
    ) -> None:
        """Train one epoch on `tiles` ``(n,)``, whose `weights` are ``(n, K)``."""
        self._model.train()
        labels = torch.from_numpy(self._patches.labels).nan_to_num(0)
        order = torch.randperm(len(tiles), generator=generator)
        batches = torch.split(order, self._config.batch_size)
        turns = [draw_turns(len(b), self._config.preset, generator) for b in batches]
        if not self._config.turns:
            turns = [torch.zeros_like(drawn) for drawn in turns]
        plan = [(tiles[batch], turn) for batch, turn in zip(batches, turns, strict=True)]
        for batch, seen in zip(batches, self._source.stream(plan), strict=True):
            part = None if weights is None else torch.from_numpy(weights)[batch]
            trainer.step(seen, labels[tiles[batch]], part)

    def predict(self, tiles: torch.Tensor) -> NDArray[np.float32]:
        """Predict class logits ``(n, K)`` for the labelled part of each tile."""
        return self._predict(tiles, self._patches.labels)[0]

    @torch.no_grad()
    def _predict(
        self, tiles: torch.Tensor, labels: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], Places]:
        """Do as `predict`; also return the cells whose class follows from `labels` ``(N, K)``."""
        self._model.eval()
        shown = (self._patches.labels == 1).any(0)
        pure = ((labels == 1).sum(1) == 1) & np.isfinite(labels[:, shown]).all(1)
        batches = torch.split(tiles, self._config.batch_size) if len(tiles) else ()
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
    """Compute the class loss of training over all known labels."""
    known = np.isfinite(labels)
    losses = np.logaddexp(0, np.where(labels == 1, -logits, logits))
    return float((losses * (known if weights is None else weights)).sum() / max(1, known.sum()))


def _find_places(
    cams: torch.Tensor, known: torch.Tensor | None, tiles: NDArray[np.int64],
    labels: NDArray[np.float32], pure: NDArray[np.bool_],
) -> Places:  # fmt: skip
    """Return the labelled cells, of up to 49, of each `pure` ``(N,)`` tile."""
    side = min(_CELLS, cams.shape[2])
    cells = F.adaptive_avg_pool2d(cams, side).permute(0, 2, 3, 1).cpu().numpy()
    useful = np.broadcast_to(pure[tiles, None, None], cells.shape[:3]).copy()
    if known is not None:
        useful &= F.adaptive_avg_pool2d(known[:, None].float(), side)[:, 0].cpu().numpy() > 1 - 1e-6
    numbers = np.broadcast_to(tiles[:, None, None], useful.shape)[useful]
    return Places(cells[useful], (labels[numbers] == 1).argmax(1), numbers)


def choose_epochs(scores: Sequence[FoldScore], config: TrainConfig) -> int:
    """Choose the epochs of the final training: the folds' mean best, or half without folds.

    The learning rate falls to 0 over all epochs, so a fold that ends early has had a higher rate
    per epoch than a full training of as many epochs; its best epoch is converted accordingly.
    """
    if not scores:
        return max(1, config.epochs // 2)
    equivalent = [2 * score.epoch - score.epoch**2 / config.epochs for score in scores]
    return max(1, round(float(np.mean(equivalent))))
