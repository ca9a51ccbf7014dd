from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

import wsiseg.tissue.detect as detect
import wsiseg.tissue.glass as glass
from tests.tissue.scenes import MPP, Scene
from wsiseg.config import SlideConfig, TissueConfig
from wsiseg.geometry import Box
from wsiseg.slide import ArraySlide, open_slide
from wsiseg.tissue import detect_tissue

CONFIG = TissueConfig()
FACTOR = round(CONFIG.mpp / MPP)
SLIDES = Path(__file__).resolve().parents[3] / "shared" / "data" / "slides"

Mask = NDArray[np.bool_]


def found(scene: Scene, **scan: float) -> Mask:
    return detect_tissue(scene.slide(**scan), CONFIG)  # type: ignore[arg-type]  # plain numbers


def coarse(where: Mask) -> Mask:
    """Where a region of the scene covers mask pixels whole."""
    height, width = (length // FACTOR * FACTOR for length in where.shape)
    blocks = where[:height, :width].reshape(height // FACTOR, FACTOR, width // FACTOR, FACTOR)
    return np.asarray(blocks.all((1, 3)))


def iou(one: Mask, other: Mask) -> float:
    return float((one & other).sum() / (one | other).sum())


def two_pieces(glass: tuple[int, int, int] = (243, 240, 242)) -> Scene:
    scene = Scene(glass=glass)
    scene.stain(scene.ellipse(250, 270, 170, 135), 0.5, 0.4)
    scene.stain(scene.ellipse(610, 410, 100, 120), 0.7, 0.1)
    return scene


@pytest.mark.parametrize(
    "glass", [(255, 255, 255), (250, 250, 250), (243, 240, 242), (222, 218, 221), (244, 240, 230)]
)
def test_tissue_on_glass_of_any_shade(glass: tuple[int, int, int]) -> None:
    scene = two_pieces(glass)
    assert iou(found(scene), scene.coarse_truth(FACTOR)) > 0.95


@pytest.mark.parametrize("quality", [None, 50, 90])
@pytest.mark.parametrize("noise", [0.0, 8.0])
def test_noise_and_compression_change_little(noise: float, quality: int | None) -> None:
    scene = two_pieces()
    mask = detect_tissue(scene.slide(noise, quality), CONFIG)
    assert iou(mask, scene.coarse_truth(FACTOR)) > 0.95


@pytest.mark.parametrize("glass", [(255, 255, 255), (243, 240, 242), (222, 218, 221)])
@pytest.mark.parametrize("noise", [0.0, 3.0, 30.0])
def test_blank_slides_stay_blank(glass: tuple[int, int, int], noise: float) -> None:
    assert not found(Scene(glass=glass), noise=noise).any()


def test_unscanned_white_and_unscanned_black_are_background() -> None:
    scene = two_pieces()
    scene.image[:150, :300] = 255
    scene.image[450:, 600:] = 0
    scene.truth[:150, :300] = scene.truth[450:, 600:] = False
    assert iou(found(scene, noise=0), scene.coarse_truth(FACTOR)) > 0.94
    empty = Scene()
    empty.image[:150, :300] = 255
    empty.image[450:, 600:] = 0
    assert not found(empty, noise=0).any()


@pytest.mark.parametrize("glass", [(243, 240, 242), (255, 255, 255)])
@pytest.mark.parametrize("corners", [False, True])
def test_pale_necrosis_survives(glass: tuple[int, int, int], corners: bool) -> None:
    scene = two_pieces(glass)
    if corners:
        scene.image[:100, :200] = 255
    necrosis = scene.ellipse(610, 140, 140, 110)
    scene.stain(necrosis, 0.09, 0.03)
    mean = scene.image[necrosis].mean(0)
    assert (np.array(glass) - mean < 28).all(), "pale it must be, for this test to say anything"
    mask = found(scene)
    assert mask[coarse(necrosis)].mean() > 0.97
    assert iou(mask, scene.coarse_truth(FACTOR)) > 0.93


@pytest.mark.parametrize("texture", [0.0, 0.6])
@pytest.mark.parametrize(("eosin", "haematoxylin"), [(0.06, 0.03), (0.2, 0.1)])
def test_a_slide_of_nothing_but_pale_tissue(
    texture: float, eosin: float, haematoxylin: float
) -> None:
    scene = Scene()
    scene.stain(np.ones_like(scene.truth), eosin, haematoxylin, texture)
    assert found(scene).all()


def test_pale_and_nearly_grey_tissue_is_told_from_glass_by_its_texture() -> None:
    scene = Scene()
    scene.stain(np.ones_like(scene.truth), 0.0, 0.12, 0.5)
    mean = scene.image.mean((0, 1))
    assert min(mean[0], mean[2]) - mean[1] < glass._MAX_PINK
    assert found(scene).mean() > 0.95


def test_fat_is_tissue() -> None:
    """Cells of 80 µm, clear but for membranes 4 µm wide; some membranes are torn."""
    scene = two_pieces()
    fat = scene.ellipse(580, 140, 190, 120)
    seeds = np.argwhere(fat)[scene.rng.integers(0, fat.sum(), 65)]
    taken = np.ones(fat.shape, bool)
    taken[tuple(seeds.T)] = False
    near = ndimage.distance_transform_edt(taken, return_distances=False, return_indices=True)
    cell = near[0] * fat.shape[1] + near[1]
    wall = ndimage.maximum_filter(cell, 2) != ndimage.minimum_filter(cell, 2)
    wall |= ~ndimage.binary_erosion(fat, iterations=2)
    torn = scene.rng.random(fat.shape) < 0.02
    wall &= fat & ~ndimage.binary_dilation(torn)
    scene.stain(wall, 0.5, 0.2)
    mask = found(scene)
    assert mask[coarse(fat)].mean() > 0.85
    assert mask[~coarse(ndimage.binary_dilation(fat | scene.truth, iterations=8))].mean() < 0.05


PENS = {
    "blue": (40, 60, 170),
    "light blue": (90, 150, 220),
    "green": (20, 120, 70),
    "black": (35, 33, 38),
    "red": (200, 25, 45),
}


@pytest.mark.parametrize("pen", PENS)
@pytest.mark.parametrize("opacity", [0.75, 0.95])
@pytest.mark.parametrize("glass", [(243, 240, 242), (255, 255, 255)])
def test_pen_is_not_tissue(pen: str, opacity: float, glass: tuple[int, int, int]) -> None:
    scene = two_pieces(glass)
    marks = scene.stroke(70, 510, 450, 545, 90) | scene.stroke(690, 40, 740, 220, 70)
    scene.ink(marks, PENS[pen], opacity)
    mask = found(scene)
    ringed = coarse(ndimage.binary_dilation(marks, iterations=15))
    assert not mask[ringed].any()
    assert iou(mask, scene.coarse_truth(FACTOR)) > 0.95


@pytest.mark.parametrize("pen", PENS)
def test_pen_alone_is_no_tissue(pen: str) -> None:
    scene = Scene()
    scene.ink(scene.stroke(70, 510, 460, 280, 90), PENS[pen])
    assert not found(scene).any()


def test_pen_across_tissue_takes_only_its_own_stroke() -> None:
    scene = two_pieces()
    stroke = scene.stroke(90, 270, 460, 285, 50)
    scene.ink(stroke, PENS["blue"])
    mask = found(scene)
    assert not mask[coarse(stroke)].any()
    away = coarse(scene.truth & ~ndimage.binary_dilation(stroke, iterations=30))
    assert mask[away].mean() > 0.99


def test_shadow_dust_and_coverslip_edge_are_not_tissue() -> None:
    scene = Scene()
    scene.image[200:212] *= 0.5
    scene.image[scene.ellipse(330, 400, 90, 70)] *= 0.88
    scene.image[scene.ellipse(600, 460, 60, 60)] *= 0.6
    assert not found(scene).any()


def test_dark_nuclei_pigment_and_red_cells_stay_tissue() -> None:
    scene = two_pieces()
    spots = ((190, 250, (25, 22, 26)), (280, 290, (205, 25, 45)), (260, 220, (60, 70, 150)))
    for x, y, color in spots:
        scene.image[scene.ellipse(x, y, 22, 22)] = color
    assert iou(found(scene), scene.coarse_truth(FACTOR)) > 0.95


def test_areas_are_in_square_microns() -> None:
    # 600 x 600 µm, with a hole of 240 x 240 µm; and a piece of 120 x 120 µm.
    scene = Scene(600, 600)
    square = np.zeros((600, 600), bool)
    square[100:400, 100:400] = True
    square[190:310, 190:310] = False
    square[450:510, 450:510] = True
    scene.stain(square, 0.6, 0.3)
    slide = scene.slide()

    def area(mpp: float, **limits: float) -> float:
        config = TissueConfig(mpp=mpp, closing_um=0, **limits)  # type: ignore[arg-type]
        return float(detect_tissue(slide, config).sum()) * mpp**2

    hole, piece = 240**2, 120**2
    for mpp in (4.0, 8.0):
        whole = area(mpp, min_area_um2=0, min_hole_um2=0)
        assert whole == pytest.approx(600**2 - hole + piece, rel=0.1)
        filled = area(mpp, min_area_um2=0, min_hole_um2=hole * 1.3) - whole
        assert filled == pytest.approx(hole, rel=0.15)
        assert area(mpp, min_area_um2=0, min_hole_um2=hole * 0.7) == whole
        dropped = whole - area(mpp, min_area_um2=piece * 1.4, min_hole_um2=0)
        assert dropped == pytest.approx(piece, rel=0.25)
        assert area(mpp, min_area_um2=piece * 0.7, min_hole_um2=0) == whole


def test_closing_does_not_reach_for_the_frame() -> None:
    scene = Scene(400, 400)
    square = np.zeros((400, 400), bool)
    square[100:300, 12:300] = True
    scene.stain(square, 0.6, 0.3)
    mask = detect_tissue(scene.slide(), TissueConfig(closing_um=100))
    assert not mask[:, :1].any()


def test_strips_give_what_one_piece_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    slide = two_pieces().slide()
    whole = detect_tissue(slide, CONFIG)
    monkeypatch.setattr(detect, "_STRIP_PIXELS", 1000)
    np.testing.assert_array_equal(detect_tissue(slide, CONFIG), whole)


@pytest.mark.parametrize("shape", [(40, 60), (1, 30), (30, 1), (1, 1)])
def test_neighbours_are_those_of_scipy(shape: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).random(shape) < 0.2
    grown = mask
    for radius in range(5):
        np.testing.assert_array_equal(detect._grow(mask, radius), grown)
        neighbours = ndimage.generate_binary_structure(2, 1 + radius % 2)
        grown = ndimage.binary_dilation(grown, neighbours)
    count = ndimage.correlate(mask.astype(int), np.ones((3, 3), int), mode="constant")
    np.testing.assert_array_equal(detect._drop_noise(mask), mask & (count >= 3))


def test_tiny_slides() -> None:
    white = np.full((1, 1, 3), 255, np.uint8)
    assert detect_tissue(ArraySlide(white, 0.5), CONFIG).tolist() == [[False]]
    pink = np.full((3, 5, 3), (220, 120, 170), np.uint8)
    free = TissueConfig(min_area_um2=0)
    assert detect_tissue(ArraySlide(pink, 8.0), free).all()
    assert not detect_tissue(ArraySlide(pink, 8.0), CONFIG).any()


def real(name: str, mpp: float | None = None) -> tuple[Mask, NDArray[np.uint8]]:
    path = SLIDES / name
    if not path.is_file():
        pytest.skip(f"shared/data/slides/{name} is not beside the checkout")
    with open_slide(path, SlideConfig(mpp_override=mpp)) as slide:
        image = slide.read(Box(0, 0, *slide.raster_size(CONFIG.mpp)), CONFIG.mpp)
        return detect_tissue(slide, CONFIG), image


def test_needle_biopsy_of_lung() -> None:
    mask, image = real("lung_scc_HE2.svs")
    assert 0.095 < mask.mean() < 0.12
    assert ndimage.label(mask)[1] == 2
    assert mask[image[..., 1] < 200].mean() > 0.98
    lone_glass = ndimage.minimum_filter(image.min(2), 9) > 240
    assert mask[lone_glass].mean() < 0.002


def test_grey_glass_and_unscanned_corners_of_a_frozen_section() -> None:
    mask, image = real("tcga-cr-7395-01a-01-ts1.svs", 0.5)
    assert 0.6 < mask.mean() < 0.68
    assert mask[image[..., 1] < 200].mean() > 0.99
    # The corners of the scanned field and what was never scanned beyond them.
    assert not mask[:25, :180].any()
    assert not mask[60:75, 2:15].any()
    assert not mask[-20:, :80].any()
    assert not mask[-15:, -12:].any()


def test_skin_section() -> None:
    mask, image = real("CMU-1-Small-Region.svs")
    assert 0.36 < mask.mean() < 0.45
    assert mask[image[..., 1] < 180].mean() > 0.97
