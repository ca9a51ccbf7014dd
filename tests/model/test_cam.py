import pytest
import torch
import torch.nn.functional as F

from wsiseg.model.cam import (
    augmented_cams,
    augmented_maps,
    class_probabilities,
    cosine_cams,
    pool_cams,
    scale_maps,
)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("k", [1, 3])
def test_cams_are_the_nearest_prototypes_cosine(k):
    features, prototypes = random(2, 5, 3, 4), F.normalize(random(4 * k, 5, seed=1), dim=1)
    cams = cosine_cams(features, prototypes, torch.tensor(14.0), 4)
    assert cams.shape == (2, 4, 3, 4)
    for b, c, y, x in ((0, 0, 0, 0), (1, 3, 2, 1), (1, 2, 1, 3)):
        cell = features[b, :, y, x]
        best = max(float(cell @ p / cell.norm()) for p in prototypes[c * k : c * k + k])
        assert float(cams[b, c, y, x]) == pytest.approx(14 * best, rel=1e-5)


def test_cams_do_not_depend_on_the_features_length():
    features, prototypes = random(1, 5, 3, 3), F.normalize(random(2, 5, seed=1), dim=1)
    cams = [cosine_cams(f, prototypes, torch.tensor(1.0), 2) for f in (features, 7 * features)]
    torch.testing.assert_close(*cams)


def test_six_augmentations_by_hand():
    images, mean = torch.rand(2, 3, 8, 8), (0.5, 0.25, 0.75)

    def cams_of(x):  # not linear in brightness, and no friend of flips
        return (x**2).cumsum(3)[:, :, ::4, ::4]

    centre = torch.tensor(mean)[:, None, None]
    std = torch.tensor([0.1, 0.2, 0.3])[:, None, None]
    want = []
    for factor in (0.9, 1.0, 1.1):
        # The paper multiplies the normalised image; whatever the std, it is the same image.
        changed = (images - centre) / std * factor * std + centre
        want += [cams_of(changed), cams_of(changed.flip(3)).flip(3)]
    torch.testing.assert_close(augmented_cams(cams_of, images, mean, 6), torch.stack(want).mean(0))
    torch.testing.assert_close(augmented_cams(cams_of, images, mean, 1), cams_of(images))


def test_maps_are_scaled_to_their_own_range():
    cams = torch.tensor([[[[-1.0, 3.0], [1.0, 2.0]], [[-2.0, -1.0], [-4.0, -1.0]]]])
    maps = scale_maps(cams, (3, 3))
    top = 3 / (3 + 1e-6)
    torch.testing.assert_close(maps[0, 0, 0], torch.tensor([0, top / 2, top]))
    assert not maps[0, 1].any(), "a class without activation has no best place"
    high = scale_maps(cams.abs() + 5, (2, 2))
    assert float(high.amin()) == 0
    assert float(high.amax()) == pytest.approx(1, abs=1e-5)


def test_six_maps_by_hand():
    images, mean = torch.rand(2, 3, 8, 8), (0.5, 0.25, 0.75)

    def cams_of(x):
        return (x**2 - 0.2).cumsum(3)[:, :, ::4, ::4]

    centre, want, logits = torch.tensor(mean)[:, None, None], [], []
    for factor in (0.9, 1.0, 1.1):
        changed = centre + factor * (images - centre)
        for flip in (False, True):
            cams = cams_of(changed.flip(3) if flip else changed)
            maps = scale_maps(cams, (8, 8))
            want.append(maps.flip(3) if flip else maps)
            logits.append(cams.mean((2, 3)))
    found = augmented_maps(cams_of, images, mean)
    torch.testing.assert_close(found.maps, torch.stack(want).mean(0))
    torch.testing.assert_close(found.logits, torch.stack(logits).mean(0))
    once = augmented_maps(cams_of, images, mean, 1)
    torch.testing.assert_close(once.maps, scale_maps(cams_of(images), (8, 8)))


def test_background_is_what_the_classes_leave():
    maps = torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3).expand(1, 2, 1, 3).clone()
    maps[:, 1] /= 2
    found = class_probabilities(maps)
    assert found.shape == (1, 3, 1, 3)
    torch.testing.assert_close(found.sum(1), torch.ones(1, 1, 3))
    for x, (first, second, rest) in enumerate(((0, 0, 1), (0.5, 0.25, 0.5**10), (1, 0.5, 0))):
        want = torch.tensor([first, second, rest], dtype=torch.float32).softmax(0)
        torch.testing.assert_close(found[0, :, 0, x], want)


@pytest.mark.parametrize("pooling", ["mean", "smooth"])
def test_only_known_cells_are_pooled(pooling):
    cams = 5 * random(2, 3, 4, 4)
    known = torch.zeros(2, 8, 8, dtype=torch.bool)
    known[0, :4, 2:] = known[1, 0, 0] = True  # two by three cells; a quarter of one
    want = [
        pool_cams(cams[:1, :, :2, 1:], pooling),
        cams[1:, :, 0, 0],
    ]
    torch.testing.assert_close(pool_cams(cams, pooling, known), torch.cat(want))
    whole = torch.ones_like(known)
    torch.testing.assert_close(pool_cams(cams, pooling, whole), pool_cams(cams, pooling))
