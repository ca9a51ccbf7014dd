from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from wsiseg.errors import DataError
from wsiseg.learn.split import group_slides, plan_folds


def slide(name, patient="", split="", identity=None, tiles=4):
    store = SimpleNamespace(path=Path(f"{name}.zarr"), slide={"identity": identity or name})
    found = SimpleNamespace(labels=np.zeros((tiles, 2)))
    return SimpleNamespace(store=store, found=found, patient=patient, split=split)


def test_each_patient_is_held_out_once_and_never_on_both_sides():
    slides = [slide("a", "P"), slide("b", "Q"), slide("c", "P"), slide("d")]
    folds = plan_folds(slides)
    assert {fold.name for fold in folds} == {"P", "Q", "d"}
    groups = np.array(group_slides(slides))
    for fold in folds:
        assert not set(groups[fold.held]) & set(groups[~fold.held])
    assert np.sum([fold.held for fold in folds], 0).tolist() == [1, 1, 1, 1]


def test_many_patients_are_held_out_in_fifths_of_like_size():
    slides = [slide(f"s{at}", tiles=1 + at) for at in range(17)]
    folds = plan_folds(slides)
    assert len(folds) == 5
    sizes = [sum(1 + at for at in np.flatnonzero(fold.held)) for fold in folds]
    assert sum(sizes) == 17 * 18 / 2
    assert max(sizes) - min(sizes) <= 6


def test_one_slide_under_two_names_is_one_patient():
    slides = [slide("a", "P"), slide("copy", "Q", identity="a"), slide("b", "Q"), slide("c", "R")]
    groups = group_slides(slides)
    assert groups[0] == groups[1] == groups[2] != groups[3]
    assert plan_folds([slide("a"), slide("copy", identity="a")]) == []


def test_a_split_that_leaks_is_refused():
    slides = [slide("a", "P", "train"), slide("b", "P", "test"), slide("c", "Q")]
    with pytest.raises(DataError, match=r"split .* leaks: P is on both sides \(a, b\)"):
        plan_folds(slides)
    with pytest.raises(DataError, match=r"has 2 of 2 labelled slides for test; both sides"):
        plan_folds([slide("a", split="test"), slide("b", split="test")])
    (fold,) = plan_folds([slide("a", "P", "test"), slide("b", "Q"), slide("c", "R", "train")])
    assert fold.held.tolist() == [True, False, False]
