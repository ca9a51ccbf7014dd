import numpy as np
import torch
from PIL import Image

from wsiseg.train.encoder.augment import Light, compress, draw_dyes, draw_light, recolour


def plain(count):
    """Light that changes nothing."""
    ones, zeros = np.ones((count, 1), np.float32), np.zeros((count, 1), np.float32)
    return Light(ones, np.ones((count, 3), np.float32), zeros, zeros)


def images(count=2, side=8):
    return np.random.default_rng(0).integers(1, 256, (count, side, side, 3), dtype=np.uint8)


def test_the_same_dyes_in_the_same_light_change_nothing():
    pixels, same = images(), np.tile(np.eye(3, dtype=np.float32), (2, 1, 1))
    found = recolour(pixels, same, plain(2), 0)
    wanted = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_densities_are_multiplied_pixel_by_pixel():
    pixels, rng = images(), np.random.default_rng(1)
    dyes = rng.uniform(0.1, 1, (2, 3, 3)).astype(np.float32)
    light = plain(2)._replace(gamma=np.array([[1.0], [1.3]], np.float32))
    found = recolour(pixels, dyes, light, 0)
    for number in range(2):
        density = -np.log(pixels[number] / 255.0) @ dyes[number] * light.gamma[number]
        np.testing.assert_allclose(found[number].permute(1, 2, 0), np.exp(-density), atol=1e-5)


def test_noise_is_that_of_the_seed_and_of_the_pictures_that_have_it():
    pixels, same = images(side=64), np.tile(np.eye(3, dtype=np.float32), (2, 1, 1))
    light = plain(2)._replace(grain=np.array([[0.0], [0.05]], np.float32))
    one, again, other = (recolour(pixels, same, light, seed) for seed in (1, 1, 2))
    torch.testing.assert_close(one, again, rtol=0, atol=0)
    assert (one[1] != other[1]).any()
    torch.testing.assert_close(one[0], other[0], rtol=0, atol=0)


def test_draws_repeat_and_colours_stay_colours():
    one, again = (np.random.default_rng(3) for _ in range(2))
    dyes = np.stack([draw_dyes(one) for _ in range(40)])
    np.testing.assert_array_equal(dyes, np.stack([draw_dyes(again) for _ in range(40)]))
    found = recolour(images(40), dyes, draw_light(40, one), 0)
    assert found.isfinite().all()
    assert found.min() >= 0
    assert found.max() <= 1
    spread = found.std((2, 3)).mean()
    assert spread > 0.05, "tissue is still to be seen"


def test_jpeg_keeps_size_and_about_the_picture():
    smooth = Image.fromarray(np.full((32, 32, 3), (200, 120, 180), np.uint8))
    again = compress(smooth, 40)
    assert again.size == (32, 32)
    assert np.abs(np.asarray(again).astype(int) - np.asarray(smooth)).max() < 6
