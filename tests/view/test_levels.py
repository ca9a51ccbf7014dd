import numpy as np
import pytest

from tests.view.runs import make_run
from wsiseg.geometry import Box
from wsiseg.view import levels
from wsiseg.view.levels import Levels


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A run with probabilities, whose sides are no multiples of a block."""
    store = make_run(tmp_path_factory.mktemp("levels"))
    store.create_probabilities()
    rng = np.random.default_rng(0)
    for block in range(store.grid.n_blocks):
        box = store.grid.block_box(block)
        shares = rng.integers(0, 255, (4, box.height, box.width)).astype(np.uint8)
        for level in range(len(store.pyramid_factors)):
            if level:
                shares = np.stack([levels.halve_confidence(share) for share in shares])
            store.write_probabilities(block, level, shares)
    return store


@pytest.mark.parametrize("kind", ["image", "labels", "confidence", "probabilities"])
@pytest.mark.parametrize("kept", [0, 200_000, 8_000_000])
def test_what_is_kept_and_made_coarser_is_what_the_run_stored(store, monkeypatch, kind, kept):
    monkeypatch.setattr(levels, "_MOST_KEPT", kept)
    found = Levels(store)
    read = getattr(store, f"read_{kind}")
    for level in range(len(found.factors(kind))):
        whole = found.box(kind, level)
        part = Box(whole.width // 3, whole.height // 4, whole.width // 2, whole.height // 2)
        for box in (part, whole):
            assert (found.read(kind, box, level) == read(box, level)).all()
        beyond = Box(-3, 2, whole.width + 9, 5)
        assert (found.read(kind, beyond, level) == read(beyond, level)).all()


def test_coarse_levels_are_read_once(store, monkeypatch):
    found = Levels(store)
    box = found.box("labels", 0)
    first = found.read("labels", box, 0)
    coarser = store.read_labels(found.box("labels", 1), 1)
    monkeypatch.setattr(store, "read_labels", None)
    assert (found.read("labels", box, 0) == first).all()
    assert (found.read("labels", found.box("labels", 1), 1) == coarser).all()
