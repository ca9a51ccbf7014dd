import numpy as np
import pytest

from wsiseg.errors import ConfigError
from wsiseg.model.card import Card, DataSource
from wsiseg.train import Patches
from wsiseg.train.card import complete_card

PATCHES = Patches((), np.zeros((0, 2), np.float32), 64)


def test_without_a_card_only_what_training_knows_is_said():
    used = DataSource(name="training patches", patches=0, identity=PATCHES.identity)
    assert complete_card(None, PATCHES, ("A", "B")) == Card(data=(used,))


def test_what_a_person_said_of_the_data_stays():
    card = Card(data=(DataSource(name="mine", slides=2),))
    assert complete_card(card, PATCHES, ("A", "B")) == card


def test_a_card_of_other_classes_is_refused():
    with pytest.raises(ConfigError, match=r"the card: classes names 'C'; .* are A, B"):
        complete_card(Card(classes={"C": "x"}), PATCHES, ("A", "B"))
