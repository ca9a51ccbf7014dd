from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image

import wsiseg.train.features as features
from wsiseg.model.encoders import load_encoder, load_teacher
from wsiseg.train.features import FrozenFeatures, draw_turns, turn
from wsiseg.train.patches import Patches


@pytest.fixture
def patches(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(3):
        pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    paths = tuple(tmp_path / f"{number}.png" for number in range(3))
    return Patches(paths, np.eye(3, dtype=np.float32), 64)


class Counting:
    """The tiny student, counting how many images it is asked about."""

    def __init__(self, equivariant: bool = True) -> None:
        self.inner, self.seen, self.equivariant = load_encoder("tiny"), 0, equivariant

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def pyramid(self, images, levels):
        self.seen += len(images)
        return self.inner.pyramid(images, levels)


def test_turn_covers_the_eight_views():
    corner = torch.arange(4.0).view(1, 2, 2)
    views = {tuple(turn(corner, f, q).flatten().tolist()) for f in (0, 1) for q in range(4)}
    assert len(views) == 8
    assert turn(corner, 1, 0).tolist() == [[[1, 0], [3, 2]]]


def shares(preset):
    """How often each of the eight views is drawn."""
    turns = draw_turns(20000, preset, torch.Generator().manual_seed(0)).tolist()
    corner = torch.arange(4).view(1, 2, 2)
    views = {pair: tuple(turn(corner, *pair).flatten().tolist()) for pair in map(tuple, turns)}
    counts = Counter(views[tuple(pair)] for pair in turns)
    return {view: count / len(turns) for view, count in counts.items()}


def test_ours_draws_the_eight_views_alike():
    assert shares("wsiseg") == pytest.approx(dict.fromkeys(shares("wsiseg"), 1 / 8), abs=0.01)
    assert len(shares("wsiseg")) == 8


@pytest.mark.parametrize("preset", ["reference", "paper"])
def test_the_released_code_flips_each_way_and_then_may_turn(preset):
    corner, wanted = torch.arange(4).view(2, 2), Counter()
    for across, down, turned, quarters in product((0, 1), (0, 1), (0, 1), range(4)):
        view = corner.flip(1) if across else corner
        view = view.flip(0) if down else view
        view = torch.rot90(view, quarters) if turned else view
        wanted[tuple(view.flatten().tolist())] += 1 / 32
    assert shares(preset) == pytest.approx(wanted, abs=0.01)


BATCH, TURNS = torch.tensor([2, 0]), torch.tensor([[1, 3], [0, 1]])


def test_kept_features_equal_those_of_the_turned_image(patches):
    teacher = load_teacher("tiny")
    kept = FrozenFeatures(Counting(), teacher, patches).read(BATCH, TURNS)
    fresh = FrozenFeatures(Counting(equivariant=False), teacher, patches).read(BATCH, TURNS)
    assert torch.equal(kept.images, fresh.images)
    level = load_encoder("tiny").cam_level
    assert kept.pyramid.keys() == fresh.pyramid.keys() == {level}
    for a, b in ((kept.pyramid, fresh.pyramid), (kept.stages, fresh.stages)):
        torch.testing.assert_close(a[level], b[level], rtol=2e-3, atol=2e-3)  # float16


@pytest.mark.parametrize("equivariant", [True, False])
def test_known_cells_turn_with_their_patch(patches, equivariant):
    class Partly(Patches):
        known = np.zeros((3, 4, 4), bool)

    Partly.known[2, 0, 1] = Partly.known[0, 3, 0] = True
    partly = Partly(patches.paths, patches.labels, patches.side)
    seen = FrozenFeatures(Counting(equivariant), None, partly).read(BATCH, TURNS)
    wanted = [
        turn(torch.from_numpy(Partly.known[n]), *how) for n, how in ((2, (1, 3)), (0, (0, 1)))
    ]
    assert torch.equal(seen.known, torch.stack(wanted))
    assert FrozenFeatures(Counting(), None, patches).read(BATCH, TURNS).known is None


def test_each_patch_is_looked_at_once(patches):
    encoder = Counting()
    source = FrozenFeatures(encoder, None, patches)
    first = source.read(torch.tensor([0, 1]), torch.zeros(2, 2, dtype=torch.int64))
    source.read(torch.tensor([1, 2]), torch.zeros(2, 2, dtype=torch.int64))
    again = source.read(torch.tensor([0, 1]), torch.zeros(2, 2, dtype=torch.int64))
    assert encoder.seen == 3
    assert first.stages == {}
    assert all(torch.equal(first.pyramid[i], again.pyramid[i]) for i in first.pyramid)


def test_what_does_not_fit_is_computed_again_and_is_the_same(patches, monkeypatch):
    want = FrozenFeatures(Counting(), None, patches).read(BATCH, TURNS)
    monkeypatch.setattr(features, "_CACHE_BYTES", 0)
    encoder = Counting()
    source = FrozenFeatures(encoder, None, patches)
    for _ in range(2):
        got = source.read(BATCH, TURNS)
        assert all(torch.equal(got.pyramid[i], want.pyramid[i]) for i in want.pyramid)
    assert encoder.seen == 4
