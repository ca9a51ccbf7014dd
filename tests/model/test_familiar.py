import torch

from wsiseg.model.familiar import Familiar, fit_familiar


def cloud(count, length=20, seed=0):
    """Long along five axes, flat along the others."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.cat([torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0]), torch.full((length - 5,), 0.1)])
    return torch.randn(count, length, generator=generator) * spread + 1


def test_distance_is_mahalanobis_over_the_edge_of_the_set():
    values = cloud(4000)
    found = fit_familiar(values)(values)
    apart = values - values.mean(0)
    plain = torch.einsum("ne,ef,nf->n", apart, torch.linalg.inv(values.T.cov()), apart).sqrt()
    torch.testing.assert_close(found, plain / torch.quantile(plain, 0.99), rtol=0.05, atol=0.02)


def test_one_in_a_hundred_of_more_of_the_same_is_beyond_the_edge():
    far = fit_familiar(cloud(4000))(cloud(4000, seed=1)) > 1
    assert 0.003 < far.float().mean() < 0.02


def test_what_leaves_the_set_across_its_flat_side_is_far():
    step = torch.zeros(20)
    step[-1] = 1.0  # ten times the spread there, and nothing along the long axes
    assert (fit_familiar(cloud(4000))(cloud(100, seed=2) + step) > 1).all()


def test_few_and_equal_embeddings_give_finite_distances():
    assert fit_familiar(torch.ones(1, 8)) is None
    found = fit_familiar(torch.ones(3, 8))
    assert isinstance(found, Familiar)
    assert found(torch.ones(2, 8) * 2).isfinite().all()
