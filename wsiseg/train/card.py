"""The part of a model card that training fills in: which patches were used."""

from __future__ import annotations

from collections.abc import Sequence

from wsiseg.model.card import Card, DataSource, check_classes
from wsiseg.train.patches import PatchSource

__all__ = ["complete_card"]


def complete_card(card: Card | None, patches: PatchSource, names: Sequence[str]) -> Card:
    """Return the given card, or an empty one; if it lists no data, the patches are filled in.

    Raises
    ------
    ConfigError
        If the card mentions classes other than `names`.
    """
    card = card or Card()
    check_classes(card, names, "the card")
    if card.data:
        return card
    used = DataSource(name="training patches", patches=len(patches), identity=patches.identity)
    return card.model_copy(update={"data": (used,)})
