import numpy as np
from PIL import Image

from wsiseg.annotations import BACKGROUND, PALETTES
from wsiseg.atomic import write_picture
from wsiseg.evaluate import Scored
from wsiseg.evaluate.pictures import draw_maps, draw_predictions, write_labels

PALETTE = PALETTES["bcss"]
SIDE, GAP, LINE = 64, 8, 24


def scored(number: int = 0) -> Scored:
    truth = np.full((SIDE, SIDE), BACKGROUND, np.uint8)
    truth[:, :32] = 0
    labels = np.full((SIDE, SIDE), 2, np.uint8)
    maps = np.zeros((4, SIDE, SIDE), np.float32)
    maps[1, :, 32:] = 1
    return Scored(
        "deploy", number, f"p{number}.jpg", np.full((SIDE, SIDE, 3), 200, np.uint8), truth,
        labels, maps, np.array([False, True, False, False]),
    )  # fmt: skip


def at(picture: Image.Image, column: int, row: int, x: int, y: int) -> tuple[int, ...]:
    place = GAP + column * (SIDE + GAP) + x, LINE + row * (SIDE + GAP) + y
    return tuple(picture.getpixel(place))


def test_predictions_lie_beside_image_and_truth():
    picture = draw_predictions([scored(), scored(1)], PALETTE)
    assert picture.size == (GAP + 3 * (SIDE + GAP), LINE + 2 * (SIDE + GAP) + LINE)
    for row in (0, 1):
        assert at(picture, 0, row, 5, 5) == (200, 200, 200)
        assert at(picture, 1, row, 5, 5) == PALETTE.colors[0]
        assert at(picture, 1, row, 60, 5) == (240, 240, 240)
        assert at(picture, 2, row, 5, 5) == PALETTE.colors[2]


def test_maps_are_laid_over_and_gates_framed():
    picture = draw_maps([scored()], PALETTE)
    assert picture.size[0] == GAP + 5 * (SIDE + GAP)
    low = tuple(round(0.55 * c + 0.45 * 200) for c in (68, 1, 84))
    high = tuple(round(0.55 * c + 0.45 * 200) for c in (253, 231, 37))
    assert at(picture, 1, 0, 20, 20) == low
    assert at(picture, 2, 0, 20, 20) == low
    assert at(picture, 2, 0, 50, 20) == high
    assert at(picture, 2, 0, 0, 20) == (220, 40, 40)
    assert at(picture, 1, 0, 0, 20) == low
    assert at(picture, 0, 0, 0, 20) == (200, 200, 200)


def test_labels_are_numbered_as_the_masks(tmp_path):
    one = scored()._replace(labels=scored().truth)
    path = write_labels(one, PALETTE, tmp_path / "labels")
    assert path.name == "p0.png"
    picture = Image.open(path)
    assert picture.mode == "P"
    assert set(np.unique(np.asarray(picture))) == {0, 4}
    assert picture.convert("RGB").getpixel((0, 0)) == PALETTE.colors[0]
    assert picture.convert("RGB").getpixel((60, 0)) == (255, 255, 255)


def test_pictures_repeat_byte_for_byte(tmp_path):
    paths = [write_picture(draw_maps([scored()], PALETTE), tmp_path / n) for n in ("a", "b")]
    assert paths[0].read_bytes() == paths[1].read_bytes()
