import math

import pytest

from wsiseg.annotations import (
    KNOWN_COLORS,
    PALETTES,
    UNSURE,
    UNSURE_COLOR,
    agree_on_classes,
    choose_colors,
    color_new_class,
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
