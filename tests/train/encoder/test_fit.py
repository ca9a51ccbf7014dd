import csv
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from wsiseg.errors import DataError
from wsiseg.model.encoders.small import SmallEncoder
from wsiseg.model.encoders.small_network import SmallNetwork
from wsiseg.train.encoder import (
    CellHead,
    FitSettings,
    LabelledTiles,
    Part,
    Sampler,
    fit_network,
    pack_network,
    read_tile_set,
    split_slides,
)
from wsiseg.train.encoder.pictures import CELL, SIDE

SHORT = FitSettings(steps=6, batch=2)
begin = partial(SmallNetwork, folded=False)


def tiles(count=24, classes=3):
    """Tiles of one colour a class, on four slides."""
    rng = np.random.default_rng(0)
    main = np.arange(count) % classes
    colours = rng.integers(40, 250, (classes, 3))
    noise = rng.normal(0, 12, (count, 112, 112, 3))
    pixels = np.clip(colours[main][:, None, None] + noise, 0, 255).astype(np.uint8)
    return LabelledTiles(pixels, np.eye(classes, dtype=np.float32)[main], np.arange(count) % 4)


def test_parts_cover_a_picture_once_and_carry_their_tiles_labels():
    found = Sampler(tiles(), 0).draw(6)
    assert found.images.shape == (6, 3, SIDE, SIDE)
    seen = np.zeros((6, SIDE // CELL, SIDE // CELL), int)
    for part, label in zip(found.parts, found.labels, strict=True):
        seen[part.picture, part.rows, part.columns] += 1
        np.testing.assert_array_equal(label, tiles().labels[part.tile])
    assert (seen == 1).all()


def test_the_same_seed_draws_the_same_pictures():
    one, again, other = (Sampler(tiles(), seed).draw(3) for seed in (5, 5, 6))
    torch.testing.assert_close(one.images, again.images, rtol=0, atol=0)
    assert one.parts == again.parts
    assert one.parts != other.parts


def test_rare_classes_are_drawn_more_often_than_they_occur():
    many = tiles(60)
    labels = many.labels.copy()
    labels[:] = (1, 0, 0)
    labels[:3] = (0, 1, 0)
    sampler = Sampler(many._replace(labels=labels), 0)
    assert sampler.chance[:3].sum() > 3 / 60 * 2


def test_a_tiles_logit_is_the_log_of_its_cells_mean_exponential():
    torch.manual_seed(0)
    head, maps = CellHead(5, 2), torch.randn(1, 5, 4, 4)
    part = Part(0, slice(1, 3), slice(0, 4), 0)
    found = head(maps, [part])
    cells = head.cells(maps)[0, :, 1:3, :].flatten(1)
    torch.testing.assert_close(found[0], cells.exp().mean(1).log())


def test_products_in_half_precision_come_near():
    networks = [
        fit_network(begin, tiles(), FitSettings(steps=3, batch=2, precision=precision))[0]
        for precision in ("float32", "bfloat16")
    ]
    exact, near = (nn.utils.parameters_to_vector(n.parameters()) for n in networks)
    assert not torch.equal(exact, near)
    assert nn.functional.cosine_similarity(exact, near, dim=0) > 0.98


def test_two_fits_of_one_seed_are_the_same_file():
    before, note = torch.get_num_threads(), {name: name for name in "vwxyz"}
    torch.set_num_threads(1)
    try:
        one, again, third = (
            pack_network(
                fit_network(begin, tiles(), SHORT)[0], tiles(), [["a"], ["b"], ["c"]], note
            )
            for _ in range(3)
        )
    finally:
        torch.set_num_threads(before)
    assert one == again == third


def test_a_fit_tells_colours_apart_and_its_file_is_an_encoder(tmp_path):
    known, losses = tiles(), []
    settings = FitSettings(steps=60, batch=2)
    network, _ = fit_network(begin, known, settings, lambda step, loss: losses.append((step, loss)))
    assert [step for step, _ in losses] == list(range(1, 61))
    assert np.mean([loss for _, loss in losses[-10:]]) < np.mean([loss for _, loss in losses[:10]])
    path = tmp_path / "own.safetensors"
    path.write_bytes(pack_network(network, known, [["one"], ["two"], ["three"]], {"licence": "x"}))
    encoder = SmallEncoder(path)
    images = torch.from_numpy(known.pixels).permute(0, 3, 1, 2) / 255
    near = encoder.embed_image(images) @ encoder.embed_text(["one", "two", "three"]).T
    assert (near.argmax(1).numpy() == known.labels.argmax(1)).mean() > 0.8


def write_tiles(folder, rows, columns=("image", "slide", "A", "B")):
    folder.mkdir(exist_ok=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    for number in range(2):
        Image.new("RGB", (32, 32), (number * 90, 50, 50)).save(folder / f"{number}.png")


def test_a_folder_is_read_by_its_table(tmp_path):
    columns = ("image", "slide", "A", "B", "unsure")  # a flag that is no class
    write_tiles(tmp_path, [("1.png", "t", 0, 1, 1), ("0.png", "s", 1, 1, 0)], columns)
    found = read_tile_set(tmp_path, ("A", "B"))
    assert found.slides == ("s", "t")
    assert found.tiles.pixels[0, 0, 0, 0] == 90
    np.testing.assert_array_equal(found.tiles.labels, [[0, 1], [1, 1]])
    np.testing.assert_array_equal(found.tiles.slides, [1, 0])


@pytest.mark.parametrize("row", [("2.png", "s", 1, 1), ("1.png", "s", "maybe", 1)])
def test_a_wrong_row_is_told(tmp_path, row):
    write_tiles(tmp_path, [row])
    with pytest.raises(DataError, match=r"labels\.csv: .*labelled tiles"):
        read_tile_set(tmp_path, ("A", "B"))


def test_folds_share_no_group_and_spread_the_classes():
    rng = np.random.default_rng(0)
    slides = np.repeat(np.arange(20), 10)
    labels = (rng.random((200, 3)) < (0.5, 0.3, 0.1)).astype(np.float32)
    groups = [f"g{number // 2}" for number in range(20)]
    fold = split_slides(labels, slides, groups, 5)
    for group in set(groups):
        assert len({f for f, g in zip(fold, groups, strict=True) if g == group}) == 1
    shares = np.array([labels[fold[slides] == f].sum(0) for f in range(5)]) / labels.sum(0)
    assert shares.min() > 0.08
    assert shares.max() < 0.35
