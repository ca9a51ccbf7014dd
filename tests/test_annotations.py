from wsiseg.annotations import KNOWN_COLORS, UNSURE, UNSURE_COLOR, choose_colors


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
