"""The coarse levels: few files, the levels of before, whoever writes them and in whatever order."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.files import contents
from wsiseg.annotations import BACKGROUND, PALETTES
from wsiseg.compute import SerialExecutor, Step, open_executor, run_steps
from wsiseg.errors import StoreError
from wsiseg.geometry import Box
from wsiseg.grid import TileGrid
from wsiseg.pyramid import halve_confidence, halve_labels, plan_pyramid, write_pyramid
from wsiseg.shrink import shrink_mean
from wsiseg.store import SlideStore, check_store, levels
from wsiseg.store.files import Folder
from wsiseg.store.levels import Levels, step_shards

GRID = TileGrid(1250, 1850, 32, 32, 128)
PALETTE = PALETTES["bcss"]
MARK = "ab" * 32


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """As 4,096 px are to a slide; blocks of 128 px write two of the six levels."""
    make_small(monkeypatch)


def make_small(patch: pytest.MonkeyPatch) -> None:
    for name, size in (("_SHARD", 256), ("_CHUNK", 64), ("_PART", 64), ("_COARSEST", 60)):
        patch.setattr(levels, name, size)


def draw(channels: int) -> np.ndarray:
    """Tissue in two corners, glass between."""
    rng = np.random.default_rng(channels)
    values = rng.integers(0, 4, (GRID.height, GRID.width, channels), dtype=np.uint8)
    values[350:950, :1500] = 255
    return values


def fill(path: Path, *, probabilities: bool = True) -> SlideStore:
    store = SlideStore.create(path, GRID, 0.5, {"name": "a.svs", "identity": "0"})
    store.create_labels(PALETTE)
    if probabilities:
        store.create_probabilities()
    image, shares = draw(3), np.moveaxis(draw(4), 2, 0)
    labels, trust = draw(1)[..., 0], draw(1)[..., 0] // 2
    for block in range(GRID.n_blocks):
        here = GRID.block_box(block).slices()
        store.write_image(block, image[here])
        parts = labels[here], trust[here], shares[:, *here]
        for level in store.block_levels:
            store.write_labels(block, level, *parts[:2])
            if probabilities:
                store.write_probabilities(block, level, parts[2])
            parts = halve_labels(parts[0]), halve_confidence(parts[1]), halve_all(parts[2])
        for step in ("tile", "stitch"):
            store.mark_done(step, block, MARK)
    return store


def halve_all(shares: np.ndarray) -> np.ndarray:
    return np.stack([halve_confidence(share) for share in shares])


def plan(path: Path, of: str) -> Step:
    (step,) = plan_pyramid(path, of, *SlideStore(path).digests(of))
    return step


def _is_of(name: str, what: str) -> bool:
    step = {"image": "tile", "labels": "stitch"}[what]
    return name.startswith((what, "probabilities" if what == "labels" else what)) or step in name


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        patch.setattr(Folder, "begin_sync", lambda *_: None)  # thousands of files
        patch.setattr(Folder, "sync", lambda *_: None)
        return fill(tmp_path_factory.mktemp("filled") / "a.zarr").path


@pytest.fixture(scope="module")
def finished(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("finished") / "a.zarr"
    shutil.copytree(filled, path)
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        for of in ("tile", "stitch"):
            write_pyramid(path, of)
    return path


@pytest.fixture
def store(filled: Path, tmp_path: Path) -> SlideStore:
    return SlideStore(shutil.copytree(filled, tmp_path / "a.zarr"))


def test_every_level_is_what_halving_the_whole_gives(finished: Path) -> None:
    store = SlideStore(finished)
    assert store.pyramid_factors == (1, 2, 4, 8, 16, 32)
    assert list(store.block_levels) == [0, 1]
    image = draw(3)
    for level in range(1, len(store.image_factors)):
        image = shrink_mean(image, 4)
        whole = Box(0, 0, image.shape[1], image.shape[0])
        np.testing.assert_array_equal(store.read_image(whole, level), image)
    labels, trust, shares = draw(1)[..., 0], draw(1)[..., 0] // 2, np.moveaxis(draw(4), 2, 0)
    for level in range(1, len(store.pyramid_factors)):
        labels, trust, shares = halve_labels(labels), halve_confidence(trust), halve_all(shares)
        whole = store.level_box(level)
        assert (whole.height, whole.width) == labels.shape
        np.testing.assert_array_equal(store.read_labels(whole, level), labels)
        np.testing.assert_array_equal(store.read_confidence(whole, level), trust)
        np.testing.assert_array_equal(store.read_probabilities(whole, level), shares)
    assert check_store(store.path).whole


def test_coarse_levels_are_few_files(finished: Path) -> None:
    """At 50,000 px the coarsest level of the labels was 784 files of 14 px."""
    store = SlideStore(finished)
    counts = [
        len([1 for file in store.path.glob(f"labels/classes/{level}/c/*/*")])
        for level in range(len(store.pyramid_factors))
    ]
    with_tissue = counts[0]
    assert counts == [with_tissue, with_tissue, 4, 1, 1, 1]
    assert with_tissue > 90


def test_at_fifty_thousand_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    found = Levels(TileGrid(50_000, 50_000, 224, 224, 1792), 4)
    assert found.maps == (1, 2, 4, 8, 16, 32, 64, 128)
    counts = [len(found.places(factor)) for factor in found.maps]
    assert counts == [784, 784, 784, 4, 1, 1, 1, 1]
    old = Levels(found.grid, 3)
    assert [len(old.places(factor)) for factor in old.maps] == [784] * 8
    assert [found.shard(factor) for factor in found.image] == [1792, 448, 4096, 4096]


@pytest.mark.parametrize("of", ["tile", "stitch"])
def test_any_order_writes_the_same(store: SlideStore, finished: Path, of: str) -> None:
    step, done = plan(store.path, of), set[tuple[str, int]]()
    while len(done) < step.total:
        block = max(
            block
            for block in range(step.total)
            if (step.name, block) not in done
            and all(need in done for need in step.needs(block) if need[0] == step.name)
        )
        step.task(block)()
        done.add((step.name, block))
    left = "labels" if of == "tile" else "image"
    wanted = {k: v for k, v in contents(finished).items() if not _is_of(k, left)}
    assert {k: v for k, v in contents(store.path).items() if not _is_of(k, left)} == wanted


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_any_executor_writes_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.undo()  # workers know only the sizes of slides
    labels = np.random.default_rng(0).integers(0, 4, (1100, 1300), dtype=np.uint8)
    grid, made = TileGrid(*labels.shape, 64, 64, 320), []
    for name in ("a.zarr", "b.zarr"):
        store = SlideStore.create(tmp_path / name, grid, 0.5, {"name": "a", "identity": "0"})
        store.create_labels(PALETTE)
        for block in range(grid.n_blocks):
            part = np.ascontiguousarray(labels[grid.block_box(block).slices()])
            store.write_labels(block, 0, part, part + 100)
            store.mark_done("stitch", block, MARK)
        made.append(store.path)
    write_pyramid(made[0], "stitch")
    with open_executor(kind, 2) as executor:
        run_steps(executor, [plan(made[1], "stitch")])
    assert contents(made[0]) == contents(made[1])


def test_a_shard_waits_for_all_that_lies_under_it(store: SlideStore) -> None:
    step = plan(store.path, "stitch")
    parts = store.coarse_parts("stitch-pyramid")
    factors = store.pyramid_factors
    for block, (level, row, col) in enumerate(parts):
        side = 256 * factors[level]
        box = Box(col * side, row * side, side, side)
        finer = factors[level - 1]
        if level - 1 in store.block_levels:
            assert list(step.needs(block)) == [("stitch", b) for b in GRID.blocks_touching(box)]
        else:
            assert list(step.needs(block)) == [
                ("stitch-pyramid", other)
                for other, (known, y, x) in enumerate(parts)
                if known == level - 1
                and not box.intersect(
                    Box(x * 256 * finer, y * 256 * finer, 256 * finer, 256 * finer)
                ).empty
            ]


def test_what_did_not_change_is_not_made_again(store: SlideStore) -> None:
    write_pyramid(store.path, "stitch")
    whole, digests = store.digests("stitch")
    assert not plan(store.path, "stitch").pending
    digests[-1] = "cd" * 32  # of the last corner
    (step,) = plan_pyramid(store.path, "stitch", whole, digests)
    found = [store.coarse_parts("stitch-pyramid")[block] for block in step.pending]
    assert [tuple(part) for part in found] == [(2, 1, 1), (3, 0, 0), (4, 0, 0), (5, 0, 0)]


def test_killed_in_the_middle_it_goes_on(store: SlideStore, finished: Path) -> None:
    step = plan(store.path, "stitch")

    def stop(_: str, done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_steps(SerialExecutor(), [step], stop)
    assert "stitch-pyramid" in check_store(store.path).unfinished
    assert 0 < len(plan(store.path, "stitch").pending) < step.total
    for of in ("tile", "stitch"):
        write_pyramid(store.path, of)
    assert contents(store.path) == contents(finished)


def test_a_finer_block_that_is_written_again_is_not_taken_for_empty(store: SlideStore) -> None:
    step = plan(store.path, "stitch")
    SlideStore(store.path).begin("stitch", 0)
    with pytest.raises(StoreError, match=r"block 0 of stitch is not done; run it again"):
        run_steps(SerialExecutor(), [step])


def test_a_step_is_not_finished_before_its_levels_are(store: SlideStore) -> None:
    _, digests = store.digests("stitch")
    store.plan("stitch", digests)
    with pytest.raises(StoreError, match="`wsiseg stitch` did not finish here"):
        store.finished("stitch")
    write_pyramid(store.path, "stitch")
    assert store.finished("stitch")
    store.plan("stitch", ["cd" * 32] * GRID.n_blocks)
    for block, mark in enumerate(store._marks.read_all("stitch")):
        assert mark is not None
        store._marks.write("stitch", block, mark._replace(digest="cd" * 32))
    with pytest.raises(StoreError, match="coarser levels are of an earlier run; run `wsiseg stit"):
        store.finished("stitch")


def test_probabilities_are_dropped_without_a_trace(finished: Path, tmp_path: Path) -> None:
    store = SlideStore(shutil.copytree(finished, tmp_path / "a.zarr"))
    store.drop_probabilities()
    assert not plan(store.path, "stitch").pending
    assert check_store(store.path).whole
    assert not [name for name in contents(store.path) if name.startswith("probabilities")]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 9000), st.integers(1, 9000), st.sampled_from([75, 128, 224, 448, 896, 1792]),
    st.sampled_from([2, 3, 4]),
)  # fmt: skip
def test_each_shard_is_of_one_step_and_block(
    height: int, width: int, block: int, known: int
) -> None:
    found = Levels(TileGrid(height, width, block, block, block), known)
    seen = set()
    for step, shards in step_shards(found).items():
        for name in shards.names:
            for number in range(shards.count):
                place = shards.place(name, number)
                assert place not in seen
                seen.add(place)
                assert shards.find(place) == (name, number), step
    wanted = {
        (f"labels/classes/{level}", *place)
        for level, factor in enumerate(found.maps)
        for place in found.places(factor)
    }
    assert wanted == {place for place in seen if place.array.startswith("labels/classes")}
    if known == 4:
        assert max(height, width) // found.maps[-1] <= 60


def test_background_is_no_file(tmp_path: Path) -> None:
    store = SlideStore.create(tmp_path / "a.zarr", GRID, 0.5, {"name": "a", "identity": "0"})
    store.create_labels(PALETTE)
    for block in range(GRID.n_blocks):
        for step in ("tile", "stitch"):
            store.mark_done(step, block, MARK)
    for of in ("tile", "stitch"):
        write_pyramid(store.path, of)
    assert not [name for name in contents(store.path) if "/c/" in name and "done" not in name]
    assert (store.read_labels(store.level_box(5), 5) == BACKGROUND).all()
