import pytest
import torch
import torch.nn.functional as F

from wsiseg.model.cam import augmented_cams, cosine_cams


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
