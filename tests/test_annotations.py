import math

import pytest

from wsiseg.annotations import (
    KNOWN_COLORS,
    PALETTES,
    UNSURE,
    UNSURE_COLOR,
    agree_on_classes,
    agree_on_model,
    choose_colors,
    color_new_class,
    tell_models_apart,
)
from wsiseg.errors import DataError


def test_known_classes_keep_their_colours_and_the_others_get_their_own():
    names = ("Tumor", *(f"class {number}" for number in range(200)), UNSURE)
    colors = choose_colors(names)
    assert colors[0] == KNOWN_COLORS["Tumor"]
    assert colors[-1] == UNSURE_COLOR
    assert len(set(colors)) == len(names)
    assert all(0 <= part <= 255 for color in colors for part in color)


def test_the_colours_of_a_few_classes_are_far_apart():
    colors = choose_colors([f"class {number}" for number in range(16)])
    apart = [
        sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5
        for at, one in enumerate(colors)
        for other in colors[:at]
    ]
    assert min(apart) > 20


def test_new_classes_look_unlike_those_that_are_there_and_alike_on_each_slide():
    names = ("Keratin", "Glass", "Nerve", "Hair", "Ink", "Fold")
    for palette in PALETTES.values():
        taken = list(palette.colors)
        for name in names:
            color = color_new_class(name, taken)
            assert min(math.dist(color, other) for other in taken) >= 60
            taken.append(color)
        alone = {name: color_new_class(name, palette.colors) for name in names}
        assert len(set(alone.values())) > 1
        both = (alone["Keratin"], alone["Glass"])
        assert both == tuple(taken[len(palette) :][:2]), "in whatever order they are named"
    assert color_new_class("Muscle", PALETTES["bcss"].colors) == KNOWN_COLORS["Muscle"]
    taken = []
    for number in range(200):  # as far from the others as it can be
        taken.append(color_new_class(f"class {number}", taken))
    assert len(set(taken)) >= 24


def test_maps_of_two_models_are_told_apart_by_name():
    assert agree_on_classes({"a": ("X", "Y"), "b": ("X", "Y")}, "score") == ("X", "Y")
    with pytest.raises(DataError, match=r"b: has the classes Y, X, a X, Y; score maps of one mod"):
        agree_on_classes({"a": ("X", "Y"), "b": ("Y", "X")}, "score")


def test_maps_of_models_with_the_same_classes_are_told_apart_by_the_model():
    known = {"a": "m", "b": "n", "c": "n", "d": ""}
    with pytest.raises(
        DataError, match=r"^a was predicted by another .* other 2; score maps of one"
    ):
        agree_on_model(known, "score")
    assert tell_models_apart({"a": "m", "b": "n"}) == (
        "b was predicted by another model than the other one"
    ), "the first is what the others are compared with"
    many = dict.fromkeys(map(str, range(12)), "m") | dict.fromkeys(map(str, range(20, 50)), "n")
    assert "7, 8 and 3 more were predicted by another model than the other 30" in (
        tell_models_apart(many)
    )
    assert not tell_models_apart({"a": "m", "b": "m", "d": "", "e": ""}), "unknown is no difference"
    assert not tell_models_apart({})
    agree_on_model({"a": "m"}, "score")
