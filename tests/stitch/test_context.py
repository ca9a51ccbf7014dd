import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.stitch.test_stitch import make_store, sha, whole
from wsiseg.cli import app
from wsiseg.compute import SerialExecutor, open_executor, run_steps
from wsiseg.config import Config, digest_of
from wsiseg.context import weigh_context
from wsiseg.errors import StoreError
from wsiseg.stitch import class_probabilities, plan_stitch, stitch_labels
from wsiseg.store import SlideStore, check_store

CONTEXT = Config.model_validate({"stitch": {"refine": False, "gate": "context"}})
PLAIN = Config.model_validate({"stitch": {"refine": False}})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store that was stitched with its context, serially."""
    store = make_store(tmp_path_factory.mktemp("context") / "s.zarr", stride=224)
    stitch_labels(store.path, CONTEXT, SerialExecutor())
    return store


@pytest.fixture
def store(made, tmp_path):
    return SlideStore(shutil.copytree(made.path, tmp_path / "s.zarr"))


def every(store):
    return slice(0, store.grid.rows), slice(0, store.grid.cols)


def test_weights_are_those_of_the_whole_slide(made):
    logits = made.read_class_logits(*every(made))
    known = np.argwhere(np.isfinite(logits[..., 0]))
    found = weigh_context(logits[tuple(known.T)], known.astype(float), CONTEXT.stitch.context)
    weights = made.read_context(*every(made))
    np.testing.assert_allclose(weights[tuple(known.T)] / 255, found.weights, atol=0.6 / 255)
    assert (weights[tuple(known.T)] > 0).tolist() == (found.weights > 0).tolist()
    assert not weights[0].any()  # the first row holds no tissue
    np.testing.assert_allclose(list(made.class_shares.values()), found.shares, atol=1e-5)


def test_a_class_weighs_as_the_context_has_it(made):
    tile = made.grid.tile_box(2, 2)
    centre = tile._replace(x=tile.x + 112, y=tile.y + 112, width=1, height=1)
    found = class_probabilities(made, CONTEXT.stitch, centre)[:-1, 0, 0]
    free = Config.model_validate({"stitch": {"gate": "all"}}).stitch
    free = class_probabilities(made, free, centre)[:-1, 0, 0]
    weight = np.array(made.read_context(slice(2, 3), slice(2, 3))[0, 0] / 255)
    np.testing.assert_allclose(found, free * weight / (free * weight).sum(), atol=0.02)
    assert weight.max() == 1
    assert 0 < weight.min() < 0.5


@pytest.mark.parametrize("executor", ["threads", "processes", "dask"])
def test_executors_and_block_order_give_the_same_bytes(made, tmp_path, executor):
    other = make_store(tmp_path / "other.zarr", stride=224)
    with open_executor(executor, 2) as pool:
        stitch_labels(other.path, CONTEXT, pool)
    assert sha(other) == sha(made)


def test_blocks_equal_the_whole_in_one_go(made, tmp_path):
    single = make_store(tmp_path / "single.zarr", 1344, 224)
    stitch_labels(single.path, CONTEXT, SerialExecutor())
    for one, other in zip(whole(made), whole(single), strict=True):
        np.testing.assert_array_equal(one, other)


def counts_of(store, config):
    counts = []
    stitch_labels(store.path, config, SerialExecutor(), lambda *at: counts.append(at))
    return counts


def test_nothing_is_done_twice_and_what_is_lost_is_done_again(store, made):
    assert counts_of(store, CONTEXT)[:2] == [("context", 1, 1), ("stitch", 9, 9)]
    (store.path / "context" / "gates" / "c" / "0" / "0" / "0").unlink()
    assert counts_of(store, CONTEXT)[:2] == [("context", 1, 1), ("stitch", 9, 9)]  # nobody needs it
    SlideStore(store.path).begin("stitch", 4)
    counts = [count for count in counts_of(store, CONTEXT) if count[0] in ("context", "stitch")]
    assert counts[0] == ("context", 0, 1)
    assert counts[-1] == ("stitch", 9, 9)
    assert len(counts) == 4  # the context, then one block
    assert sha(store) == sha(made)


def test_a_run_that_is_cut_off_goes_on_to_the_same_bytes(made, tmp_path):
    store = make_store(tmp_path / "cut.zarr", stride=224)

    class Cut(Exception):
        pass

    def stop(step, done, total):
        if step == "stitch" and done == 3:
            raise Cut

    with pytest.raises(Cut):
        stitch_labels(store.path, CONTEXT, SerialExecutor(), stop)
    counts = counts_of(store, CONTEXT)
    assert counts[:2] == [("context", 1, 1), ("stitch", 3, 9)]
    assert sha(store) == sha(made)


def test_a_cam_anywhere_changes_every_block_but_settings_of_the_context_no_other_map(store):
    grid = store.grid
    cams = [digest_of(block) for block in range(grid.n_blocks)]
    before = plan_stitch(store.path, CONTEXT, digest_of(cams), cams)[-1].digests
    cams[0] = digest_of("another")
    after = plan_stitch(store.path, CONTEXT, digest_of(cams), cams)[-1].digests
    assert all(one != other for one, other in zip(before, after, strict=True))
    unused = Config.model_validate({"stitch": {"refine": False, "context": {"low": 0.1}}})
    plans = [plan_stitch(store.path, config, "", cams) for config in (PLAIN, unused)]
    assert plans[0][-1].digests == plans[1][-1].digests
    assert [len(plan) for plan in plans] == [1, 1]


def test_the_context_waits_for_all_cams_and_all_blocks_for_it(store):
    cams = [digest_of(block) for block in range(9)]
    context, stitch = plan_stitch(store.path, CONTEXT, digest_of(cams), cams)
    assert (context.name, context.total, list(context.pending)) == ("context", 1, [0])
    assert set(context.needs(0)) == {("predict", block) for block in range(9)}
    assert all(("context", 0) in set(stitch.needs(block)) for block in range(9))
    run_steps(SerialExecutor(), [context, stitch])
    assert store.has_context(context.digest)


def test_damage_is_found_and_mended(store, made):
    file = store.path / "context" / "gates" / "c" / "0" / "0" / "0"
    data = bytearray(file.read_bytes())
    data[3] ^= 255
    file.write_bytes(data)
    (fault,) = check_store(store.path).damage
    assert (fault.step, fault.block, fault.key) == ("stitch", None, "context/gates/c/0/0/0")
    stitch_labels(store.path, CONTEXT, SerialExecutor())
    assert check_store(store.path).whole
    assert sha(store) == sha(made)


def test_without_a_context_a_map_says_what_makes_it(tmp_path):
    store = make_store(tmp_path / "s.zarr", stride=224)
    with pytest.raises(StoreError, match=r"holds no slide context; run `wsiseg stitch`"):
        class_probabilities(store, CONTEXT.stitch, store.grid.box)
    assert not store.class_shares


def test_no_tissue_and_kinds_of_background(tmp_path):
    empty = make_store(tmp_path / "e.zarr", stride=224, tissue=np.zeros((62, 75), bool))
    stitch_labels(empty.path, CONTEXT, SerialExecutor())
    assert (whole(empty)[0] == 255).all()


def test_command_line(store, made):
    given = ["stitch", str(store.path), "--set", "stitch.refine=false", "--executor", "serial"]
    done = CliRunner().invoke(app, [*given, "--set", "stitch.gate=predicted"])
    assert done.exit_code == 0, done.output
    assert sha(store) != sha(made)
    done = CliRunner().invoke(app, [*given, "--set", "stitch.gate=context"])
    assert done.exit_code == 0, done.output
    assert sha(store) == sha(made)
    bad = CliRunner().invoke(app, [*given, "--set", "stitch.context.low=0.9"])
    assert bad.exit_code != 0
    assert "above high" in bad.output
