from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.store.slides import DIGEST, GRID, OTHER, SLIDE, files, noise
from wsiseg.errors import StoreError
from wsiseg.grid import TileGrid
from wsiseg.lock import hold
from wsiseg.store import SlideStore
from wsiseg.store import files as files_module
from wsiseg.store.marks import Mark, Marks


def test_marks_say_what_is_left_to_do(store: SlideStore) -> None:
    everything = list(range(GRID.n_blocks))
    assert store.pending("tile", DIGEST) == everything
    for block in (0, 5, 11):
        store.mark_done("tile", block, DIGEST)
    left = [block for block in everything if block not in (0, 5, 11)]
    for opened in (store, SlideStore(store.path)):
        assert opened.pending("tile", DIGEST) == left
        assert opened.pending("tile", OTHER) == everything
        assert opened.pending("predict", DIGEST) == everything
        assert [opened.is_done("tile", block, DIGEST) for block in (0, 1)] == [True, False]
        assert not opened.is_done("tile", 0, OTHER)


def test_finished_needs_every_block_with_one_digest(store: SlideStore) -> None:
    with pytest.raises(StoreError, match="`wsiseg tile` did not finish here; run it first"):
        store.finished("tile")
    for block in range(GRID.n_blocks):
        store.mark_done("tile", block, DIGEST)
        if block < GRID.n_blocks - 1:
            with pytest.raises(StoreError, match="did not finish here"):
                store.finished("tile")
    assert store.finished("tile") == DIGEST
    store.mark_done("tile", 4, OTHER)
    with pytest.raises(StoreError, match="did not finish here"):
        store.finished("tile")


def test_workers_may_make_their_first_marks_at_once(tmp_path: Path) -> None:
    grid = TileGrid(256, 256, 16, 16, 16)
    SlideStore.create(tmp_path / "a.zarr", grid, 0.5, SLIDE)

    def work(block: int) -> None:
        SlideStore(tmp_path / "a.zarr").mark_done("tile", block, DIGEST)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(grid.n_blocks)))
    assert SlideStore(tmp_path / "a.zarr").finished("tile") == DIGEST
    marks = zarr.open_array(str(tmp_path / "a.zarr/done/tile"), mode="r")
    digests = np.asarray(marks[:])[:, :32]
    assert (digests == np.frombuffer(bytes.fromhex(DIGEST), np.uint8)).all()


def test_a_block_that_is_begun_again_is_not_done(store: SlideStore) -> None:
    store.begin("tile", 0)
    for block in (0, 1):
        store.mark_done("tile", block, DIGEST)
    store.begin("tile", 0)
    assert [store.is_done("tile", block, DIGEST) for block in (0, 1)] == [False, True]


def test_cleared_marks_leave_the_pixels(store: SlideStore) -> None:
    pixels = noise((128, 128, 3))
    store.write_image(0, pixels)
    store.mark_done("tile", 0, DIGEST)
    store.mark_done("predict", 0, DIGEST)
    store.clear_marks("tile")
    store.clear_marks("tile")
    assert store.is_done("predict", 0, DIGEST)
    assert not store.is_done("tile", 0, DIGEST)
    store.mark_done("tile", 0, DIGEST)
    store.clear_marks()
    store.clear_marks()
    assert len(store.pending("tile", DIGEST)) == GRID.n_blocks
    np.testing.assert_array_equal(store.read_image(GRID.block_box(0)), pixels)
    store.mark_done("tile", 0, DIGEST)
    assert SlideStore(store.path).is_done("tile", 0, DIGEST)


def test_a_block_that_lost_a_file_is_not_done_any_more(store: SlideStore) -> None:
    """Who does it would take it for done."""
    store.write_image(0, noise((128, 128, 3)))
    store.mark_done("tile", 0, DIGEST)
    for name in files(store, "image/0"):
        (store.path / "image/0" / name).unlink()
    assert store.is_done("tile", 0, DIGEST)
    _, pending = store.plan("tile", [DIGEST] * GRID.n_blocks)
    assert 0 in pending
    assert not store.is_done("tile", 0, DIGEST)


def test_who_lost_the_lock_begins_and_marks_no_block(store: SlideStore) -> None:
    """A late block of other settings landed under the mark of the run that took over."""
    store.mark_done("tile", 0, DIGEST)
    with hold(store.path) as run:
        late = pickle.loads(pickle.dumps(SlideStore(store.path, run)))
        late.begin("tile", 1)
        late.mark_done("tile", 1, DIGEST)
        late.begin("tile", 2)
    with hold(store.path) as run:
        ours = SlideStore(store.path, run)
        ours.begin("tile", 2)
        ours.write_image(2, noise((128, 128, 3), seed=1))
        ours.mark_done("tile", 2, OTHER)
        late.write_image(2, noise((128, 128, 3), seed=2))
        with pytest.raises(StoreError, match=r"this run no longer holds it: .* took over"):
            late.mark_done("tile", 2, DIGEST)
        with pytest.raises(StoreError, match="this run no longer holds it"):
            late.begin("tile", 0)
    assert 2 in store.pending("tile", OTHER), "its pixels are not what its mark says"
    assert store.is_done("tile", 0, DIGEST)
    assert store.is_done("tile", 1, DIGEST)


def test_a_step_is_finished_when_every_block_is_as_it_was_planned(store: SlideStore) -> None:
    def digests(seed: int) -> list[str]:
        return [f"{seed:02x}" * 31 + f"{block:02x}" for block in range(GRID.n_blocks)]

    whole, left = store.plan("tile", digests(1))
    assert left == list(range(GRID.n_blocks))
    for block, digest in enumerate(digests(1)):
        with pytest.raises(StoreError, match="`wsiseg tile` did not finish here"):
            store.finished("tile")
        store.mark_done("tile", block, digest)
    assert store.digests("tile") == (whole, digests(1))
    store.plan("predict", digests(2), after=whole)
    for block, digest in enumerate(digests(2)):
        store.mark_done("predict", block, digest)
    assert store.digests("predict", before="tile")[1] == digests(2)

    other = [*digests(1)[:-1], digests(3)[-1]]
    newer, left = store.plan("tile", other)
    assert left == [GRID.n_blocks - 1]
    with pytest.raises(StoreError, match="`wsiseg tile` did not finish here"):
        store.finished("tile")  # killed here, all blocks are marked, but not all of one plan
    store.mark_done("tile", left[0], other[-1])
    assert store.finished("tile") == newer != whole
    with pytest.raises(StoreError, match="tile` was run with other settings after `wsiseg predict"):
        store.digests("predict", before="tile")
    assert store.digests("predict"), "what was made of the older tiles is whole by itself"


def test_a_step_is_not_finished_once_a_step_before_it_was_run_anew(store: SlideStore) -> None:
    """`export` gave the map of the earlier model, or paired it with other pixels."""

    def run(step: str, digest: str, after: str = "") -> str:
        whole, _ = store.plan(step, [digest] * GRID.n_blocks, after)
        for block in range(GRID.n_blocks):
            store.mark_done(step, block, digest)
        return whole

    tile = run("tile", DIGEST)
    stitch = run("stitch", DIGEST, predict := run("predict", DIGEST, tile))
    assert store.finished("stitch") == stitch
    store.plan("predict", [OTHER] * GRID.n_blocks, tile)
    with pytest.raises(
        StoreError,
        match=r"a\.zarr: `wsiseg predict` was run with other settings after `wsiseg stitch`; "
        r"run `wsiseg stitch` again",
    ):
        store.finished("stitch")
    assert run("predict", DIGEST, tile) == predict
    assert store.finished("stitch") == stitch, "as it was again"
    run("tile", OTHER)
    with pytest.raises(StoreError, match="`wsiseg predict`; run `wsiseg predict` again"):
        store.finished("predict")
    with pytest.raises(StoreError, match="run `wsiseg predict` and `wsiseg stitch` again"):
        store.finished("stitch")
    store.clear_marks("predict")
    assert store.finished("stitch") == stitch, "of which nothing is known is not refused"


def test_white_blocks_are_left_and_marked_together(store: SlideStore) -> None:
    for block in (1, 2, 5):
        store.write_image(block, noise((128, 128, 3)))
        store.mark_done("tile", block, OTHER)
    digests = [DIGEST] * GRID.n_blocks
    store.leave_white([0, 1, 5], digests)
    assert store.pending("tile", DIGEST) == sorted({*range(GRID.n_blocks)} - {0, 1, 5})
    assert (store.read_image(GRID.block_box(1)) == 255).all()
    assert (store.read_image(GRID.block_box(2)) < 255).any()
    assert not [path for path in (store.path / "image/0/c").rglob("*/0/1") if path.is_file()]


def test_no_mark_before_its_shards_are_on_the_disk(
    store: SlideStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    sync, write = files_module._sync, Marks.write
    before: list[set[str]] = []

    def watch(path: str) -> None:
        sync(path)
        synced.append(path)

    def note(marks: Marks, step: str, block: int, mark: Mark) -> None:
        before.append(set(synced))
        write(marks, step, block, mark)

    monkeypatch.setattr(files_module, "_sync", watch)
    monkeypatch.setattr(Marks, "write", note)
    pixels = np.zeros((128, 128, 3), np.uint8)
    for _ in range(2):  # the second time over files that were synced once
        synced.clear()
        store.begin("tile", 0)
        store.write_image(0, pixels)
        store.mark_done("tile", 0, DIGEST)
        shards = {str(path) for path in store.path.glob("image/*/c/0/0/0")}
        assert shards
        assert before[-1] >= shards | {str(Path(path).parent) for path in shards}

    def fail(path: str) -> None:
        raise OSError(f"{path}: the disk is gone")

    monkeypatch.setattr(files_module, "_sync", fail)
    store.begin("tile", 0)
    store.write_image(0, pixels)
    with pytest.raises(OSError, match="the disk is gone"):
        store.mark_done("tile", 0, DIGEST)
    assert not store.is_done("tile", 0, DIGEST)
