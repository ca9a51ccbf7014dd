import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.distill.conftest import COLORS, COUNT, SIDE, draw, write_set
from tests.export.stores import make_labels, make_store
from wsiseg.config import DistillConfig
from wsiseg.distill import choose_least, load_masks, load_stores
from wsiseg.distill.augment import draw_views
from wsiseg.distill.labels import UNKNOWN
from wsiseg.distill.step import plan_teaching, to_targets
from wsiseg.errors import DataError
from wsiseg.pyramid import write_pyramid
from wsiseg.store import SlideStore


def test_masks_and_images_meet(masked):
    found = load_masks(masked, masked / "img")
    assert (len(found), found.side, found.mpp, found.calibrated) == (COUNT, SIDE, 0.5, False)
    assert found.palette.names == ("Pink", "Blue")
    assert set(found.cases) == {"case0", "case1", "case2"}
    read = found.reader([3, 0])
    for at, number in enumerate((3, 0)):
        pixels, labels = draw(number)
        assert (read.images[at] == pixels).all()
        assert (read.labels[at] == labels).all()
        assert (found.labels[number] == [(labels == k).any() for k in range(2)]).all()
    part = found.pick([4, 5])
    assert (part.reader([1]).labels[0] == draw(5)[1]).all()
    assert part.identity != found.identity


def test_what_is_least_sure_teaches_nothing(masked):
    found = load_masks(masked, masked / "img")
    assert (choose_least(found, DistillConfig()) == 230).all(), "an eighth is below, at 40"
    assert (choose_least(found, DistillConfig(least_sure=0.05)) == 40).all()
    assert (choose_least(found, DistillConfig(least_sure=0, min_confidence=0.5)) == 128).all()


def test_without_confidence_all_pixels_count_alike(masked, tmp_path):
    shutil.copytree(masked, tmp_path / "m")
    shutil.rmtree(tmp_path / "m" / "confidence")
    found = load_masks(tmp_path / "m", tmp_path / "m" / "img")
    assert not found.has_confidence
    (tmp_path / "m" / "confidence").mkdir()
    assert not load_masks(tmp_path / "m", tmp_path / "m" / "img").has_confidence
    assert (choose_least(found, DistillConfig(min_confidence=0.9)) == 0).all()


def test_every_problem_of_masks_is_listed(tmp_path):
    folder = write_set(tmp_path / "m")
    first, second, third, *_ = sorted((folder / "mask").iterdir())
    first.unlink()
    Image.fromarray(np.full((SIDE, SIDE), 7, np.uint8)).save(second)
    Image.fromarray(np.zeros((32, SIDE), np.uint8)).save(third)
    with pytest.raises(DataError) as caught:
        load_masks(folder, folder / "img")
    for text in ("3 problem", "run `wsiseg masks` again", "contains 7; 2 classes are 0 to 1",
                 "its mask is 64 x 32 px, the image 64 x 64"):  # fmt: skip
        assert text in str(caught.value)


def test_masks_that_an_editor_renumbered_are_read_by_their_colours(masked, tmp_path):
    colors = (*COLORS[:2], (255, 255, 255))
    shutil.copytree(masked, tmp_path / "m")
    for path in (tmp_path / "m" / "mask").iterdir():
        numbers = np.asarray(Image.open(path))
        order = [2, 0, 1]
        picture = Image.fromarray(np.argsort(order)[numbers].astype(np.uint8)).convert("P")
        picture.putpalette([part for k in order for part in colors[k]])
        assert (np.asarray(picture) != numbers).any()
        picture.save(path)
    want = load_masks(masked, masked / "img")
    assert load_masks(tmp_path / "m", tmp_path / "m" / "img").identity == want.identity


@pytest.mark.parametrize(
    ("color", "why"),
    [
        ((235, 150, 191), r"shows 0 in the colour \(235, 150, 191\), which .* that of no class"),
        ((255, 255, 255), r"that of several classes"),
    ],
)
def test_a_colour_that_says_no_class_is_refused(masked, tmp_path, color, why):
    folder = shutil.copytree(masked, tmp_path / "m")
    about = json.loads((folder / "masks.json").read_text())
    about["colors"]["Blue"] = [255, 255, 255]  # as background
    (folder / "masks.json").write_text(json.dumps(about))
    picture = Image.new("P", (SIDE, SIDE), 0)
    picture.putpalette(color)
    picture.save(next((folder / "mask").iterdir()))
    with pytest.raises(DataError, match=why):
        load_masks(folder, folder / "img")


def test_a_folder_of_other_masks_is_refused(masked, tmp_path):
    with pytest.raises(DataError, match=r"contains no masks\.json; give a folder that `wsi"):
        load_masks(tmp_path, masked / "img")
    (tmp_path / "masks.json").write_text(json.dumps({"numbers": {"A": 3}, "colors": {}}))
    with pytest.raises(DataError, match=r"masks\.json: does not say what the masks mean"):
        load_masks(tmp_path, masked / "img")


CAMS = {"calibration": [(1.0, 0.0)] * 4, "source": "cd" * 32}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    from wsiseg.annotations import PALETTES

    made = make_store(tmp_path_factory.mktemp("s") / "one.zarr", make_labels(512, 640))
    for step in ("tile", "stitch"):
        made.plan(step, ["5e" * 32] * made.grid.n_blocks)
        for block in range(made.grid.n_blocks):
            made.mark_done(step, block, "5e" * 32)
        write_pyramid(made.path, step)
    made.create_cams(PALETTES["bcss"], 4, 4, **CAMS, mpp=0.51)
    return made


def test_maps_that_do_not_say_their_models_scale_have_their_own(store, tmp_path):
    copy = SlideStore(shutil.copytree(store.path, tmp_path / "one.zarr"))
    copy.create_cams(copy.palette.classes, 4, 4, **CAMS)
    assert load_stores([copy.path]).mpp == store.mpp


def test_windows_of_a_finished_map(store):
    found = load_stores([store.path])
    assert (found.side, found.tile, found.mpp) == (128, 64, 0.51), "the first stage's own µm/px"
    assert found.calibrated
    assert found.first_stage["sha256"] == "cd" * 32
    labels = make_labels(512, 640)
    for number, name in enumerate(found.names):
        x, y = json.loads(f"[{name.split('(')[1][:-1]}]")
        wanted = np.full((128, 128), 255, np.uint8)
        cut = labels[y : y + 128, x : x + 128]
        wanted[: cut.shape[0], : cut.shape[1]] = cut
        read = found.reader([number])
        assert (read.labels[0] == np.where(wanted == 255, 4, wanted)).all()
        assert (read.confidence[0][wanted == 255] == 255).all()
    assert load_stores([store.path], window=64).side == 64


def test_an_unfinished_map_is_no_first_stage(tmp_path):
    made = make_store(tmp_path / "one.zarr", make_labels(256, 256))
    made.plan("tile", ["5e" * 32] * made.grid.n_blocks)
    for block in range(made.grid.n_blocks):
        made.mark_done("tile", block, "5e" * 32)
    made.clear_marks("stitch")
    with pytest.raises(DataError, match="`wsiseg stitch` did not finish here; run it first"):
        load_stores([made.path])


def test_maps_of_two_models_are_no_first_stage(store, tmp_path):
    copy = SlideStore(shutil.copytree(store.path, tmp_path / "two.zarr"))
    copy.create_cams(copy.palette.classes, 4, 4, **CAMS | {"source": "ef" * 32})
    with pytest.raises(DataError, match=r"two\.zarr was predicted by another model than the other"):
        load_stores([store.path, copy.path])


@pytest.mark.parametrize("mosaics", [0.0, 1.0])
@pytest.mark.parametrize("scales", [(1.0, 1.0), (0.5, 0.6), (2.0, 3.0)])
def test_views_move_labels_with_the_image(masked, scales, mosaics):
    found = load_masks(masked, masked / "img")
    config = DistillConfig(stains=False, scales=scales, mosaics=mosaics)
    views = draw_views(found.reader(range(4)), SIDE, config, np.random.default_rng(3))
    assert views.images.shape == (4, 3, SIDE, SIDE)
    colors = np.array([[235, 150, 190], [110, 90, 170], [245, 245, 245]]) / 255
    pixels = views.images.permute(0, 2, 3, 1).numpy()[..., None, :]
    nearest = ((pixels - colors) ** 2).sum(-1).argmin(-1)
    assert (nearest == views.labels).mean() > 0.95
    again = draw_views(found.reader(range(4)), SIDE, config, np.random.default_rng(3))
    assert (again.labels == views.labels).all()


def test_a_mosaic_is_put_together_of_the_views(masked):
    found = load_masks(masked, masked / "img")
    alone, mixed = (
        draw_views(
            found.reader(range(6)), SIDE, DistillConfig(stains=False, mosaics=share),
            np.random.default_rng(3),
        )
        for share in (0.0, 1.0)
    )  # fmt: skip
    same = (mixed.images[:, None] == alone.images[None]).all(2).numpy()
    assert same.any(1).all(), "each pixel is that of a view, at its place"
    assert not same.all((2, 3)).any(1).all(), "and not all of one"
    for start in (0, SIDE - SIDE // 4):  # corners, which no border reaches
        corner = np.s_[:, :, start : start + SIDE // 4, start : start + SIDE // 4]
        assert same[corner].all((2, 3)).any(1).all()


def test_stains_change_colours_and_no_label(masked):
    found = load_masks(masked, masked / "img")
    plain, dyed = (
        draw_views(
            found.reader(range(4)), SIDE, DistillConfig(stains=s, scales=(1, 1)),
            np.random.default_rng(3),
        )
        for s in (False, True)
    )  # fmt: skip
    assert 0 <= float(dyed.images.min()) < float(dyed.images.max()) <= 1
    assert (dyed.images.mean((2, 3)) - plain.images.mean((2, 3))).abs().max() > 0.02


def plain_targets(labels, confidence, teaching, stride):
    """The obvious way: pixel by pixel."""
    channels = len(teaching.weights)
    batch, height, width = labels.shape
    out = np.zeros((batch, channels, height // stride, width // stride))
    for b, y, x in np.ndindex(*labels.shape):
        label, sure = int(labels[b, y, x]), confidence[b, y, x] / 255
        if label >= channels or confidence[b, y, x] < teaching.least[label]:
            continue
        for k in range(channels):
            share = float(k == label)
            if teaching.soft:
                share = sure if k == label else (1 - sure) / (channels - 1)
            out[b, k, y // stride, x // stride] += sure * share / stride**2
    return out


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("background", ["learn", "ignore"])
def test_targets_are_what_each_pixel_says(masked, soft, background):
    found = load_masks(masked, masked / "img")
    config = DistillConfig(background=background)
    teaching = plan_teaching(found, config)._replace(soft=soft)
    rng = np.random.default_rng(0)
    labels = rng.choice(np.array([0, 1, 2, UNKNOWN], np.uint8), (2, 16, 16))
    confidence = rng.choice(np.array([40, 230, 255], np.uint8), labels.shape)
    views = draw_views(found.reader([0, 1]), 32, config, rng)._replace(
        labels=labels, confidence=confidence
    )
    targets = to_targets(views, teaching, 4)
    assert targets.shares.shape == (2, 3 if background == "learn" else 2, 4, 4)
    wanted = plain_targets(labels, confidence, teaching, 4)
    np.testing.assert_allclose(targets.shares.numpy(), wanted, atol=1e-6)


def test_rare_classes_count_more(masked):
    found = load_masks(masked, masked / "img")
    weights = plan_teaching(found, DistillConfig()).weights
    counts = found.survey.counts[:, 230:].sum(1)
    assert (np.argsort(weights) == np.argsort(-counts)).all()
    assert (plan_teaching(found, DistillConfig(balance=False)).weights == 1).all()
