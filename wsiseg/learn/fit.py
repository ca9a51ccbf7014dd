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
from wsiseg.learn.precision import mean_known, precision_by_class
from wsiseg.model.checkpoint import trained_state
from wsiseg.model.construct import ConStruct
from wsiseg.train.features import FrozenFeatures, draw_turns
from wsiseg.train.patches import PatchSource
from wsiseg.train.step import Trainer
from wsiseg.train.weigh import weigh_labels

__all__ = ["FoldScore", "Folds", "Places"]

_PLACES = 7
"""Along a tile's side."""
_PATIENCE = 5
"""Epochs without a better held-out score after which a fold ends."""


class FoldScore(NamedTuple):
    """What a model made of slides that it had not seen."""

    epoch: int
    """The best one, from 1."""
    epochs: int
    """How many were tried."""
    precision: list[list[float]]
    """``(2, K)`` of `precision_by_class` after the best."""


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
        As every fold begins; used up.
    patches
        All tiles.
    config
        Its epochs are the most that a fold takes.
    """

    def __init__(self, model: ConStruct, patches: PatchSource, config: TrainConfig) -> None:
        self._model, self._patches, self._config = model, patches, config
        self._start = {name: value.clone() for name, value in trained_state(model).items()}
        self._source = FrozenFeatures(
            model.encoder,
            model.teacher,
            patches,
            levels=sorted(model.levels_for(model.teacher is not None)),
            guided=model.guidance_levels,
            device=model.prototypes.device,
            turns=config.turns,
        )

    def run(
        self, held: NDArray[np.bool_], name: str, progress: Progress | None = None
    ) -> tuple[FoldScore, Places]:
        """Train on all but the tiles `held` ``(N,)``, and end when their score stops rising."""
        config, labels = self._config, self._patches.labels
        learned, unseen = (torch.from_numpy(np.flatnonzero(which)) for which in (~held, held))
        weights = weigh_labels(labels[~held], self._patches.weights[~held], config.balance)
        self._model.load_state_dict(self._start, strict=False)
        generator = torch.Generator().manual_seed(config.seed)
        steps = config.epochs * -(-len(learned) // config.batch_size)
        trainer = Trainer(self._model, config, steps, generator)
        best = FoldScore(config.epochs, 0, np.full((2, labels.shape[1]), np.nan).tolist())
        top, places = -float("inf"), self._ask(unseen[:0])[1]
        for epoch in range(1, config.epochs + 1):
            self._train(trainer, learned, weights, generator)
            logits, seen = self._ask(unseen)
            found = precision_by_class(logits, labels[unseen.numpy()])
            score = float(mean_known(found[0]))
            if score > top:
                top, best, places = score, FoldScore(epoch, epoch, found.tolist()), seen
            if progress is not None:
                progress(f"without {name}", epoch, config.epochs)
            if np.isfinite(score) and epoch - best.epoch >= _PATIENCE:
                break
        if progress is not None:
            progress(f"without {name}", config.epochs, config.epochs)
        return best._replace(epochs=epoch), places

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
        return self._ask(which)[0]

    @torch.no_grad()
    def _ask(self, which: torch.Tensor) -> tuple[NDArray[np.float32], Places]:
        """`predict`, and the places of which the class is known."""
        self._model.eval()
        labels = self._patches.labels
        shown = (labels == 1).any(0)
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
