"""What training itself can say in a model card: which patches there were."""

from __future__ import annotations

from collections.abc import Sequence

from wsiseg.model.card import Card, DataSource, check_classes
from wsiseg.train.patches import PatchSource

__all__ = ["complete_card"]


def complete_card(card: Card | None, patches: PatchSource, names: Sequence[str]) -> Card:
    """The card that people wrote, or an empty one; with the patches where it tells of no data.

    Raises
    ------
    ConfigError
        If the card speaks of classes other than `names`.
    """
    card = card or Card()
    check_classes(card, names, "the card")
    if card.data:
        return card
    used = DataSource(name="training patches", patches=len(patches), identity=patches.identity)
    return card.model_copy(update={"data": (used,)})
