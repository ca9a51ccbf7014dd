from dataclasses import replace
from pathlib import Path

import pytest

from wsiseg.learn import Learned, Missed, Round, describe_learned

LEARNED = Learned(
    out=Path("m.safetensors"), digest="new", classes=("Pink", "Blue"), tiles=100, shown=(90, 10),
    absent=(10, 90), slides=4, folds=("P", "Q"), epochs=12, precision=(0.75, 0.85),
    guess=(0.9, 0.1), kept=(), remembers=True, missed=(), notes=(), rounds=(),
)  # fmt: skip


@pytest.mark.parametrize(
    ("rounds", "tiles", "advice"),
    [
        ((), 100, "a second round will show whether more labels help: aim for about 200 labelled"),
        ((Round("a", 40, 0.7),), 100, "changed by +0.100 since 40 windows, so another round is li"),
        (
            (Round("a", 40, 0.7), Round("b", 90, 0.8)),
            100,
            "+0.000 since 90 windows, with too few",
        ),
        ((Round("b", 40, 0.8),), 100, "+0.000 since 40 windows, though labels about doubled"),
        ((Round("b", 40, float("nan")),), 100, "a second round will show"),
    ],
)
def test_the_last_line_advises_on_the_next_round(rounds, tiles, advice):
    *_, last = describe_learned(replace(LEARNED, rounds=rounds, tiles=tiles))
    assert advice in last


def test_what_becomes_of_classes_without_labels_is_said():
    kept = replace(LEARNED, kept=("Fat", "Glass"))
    assert "not labelled, kept near the checkpoint's: Fat, Glass" in describe_learned(kept)
    faded = replace(kept, remembers=False)
    assert "not labelled, may fade in maps: Fat, Glass" in describe_learned(faded)


def test_balancing_is_only_reported_where_it_was_on():
    assert "rare classes count more, by up to five times (balance)" in describe_learned(LEARNED)
    even = replace(LEARNED, shown=(50, 50), absent=(50, 50))
    assert "no class is rare enough to need balancing" in describe_learned(even)
    assert "balanc" not in "\n".join(describe_learned(replace(LEARNED, balance=False)))


def test_corrections_that_were_not_learned_are_listed_up_to_ten():
    missed = tuple(Missed(f"one around ({at}, 0)", "Pink", at % 2 == 0) for at in range(12))
    lines = list(describe_learned(replace(LEARNED, missed=missed)))
    assert "correction not learned: one around (0, 0) shows Pink" in lines
    assert "correction not learned: one around (1, 0) does not show Pink" in lines
    assert "and 2 more corrections were not learned; m.safetensors.json lists them" in lines
