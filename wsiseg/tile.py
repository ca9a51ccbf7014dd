"""Write a slide's tissue at its working resolution into a store."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsiseg.atomic import put_aside
from wsiseg.compiling import compiling_told
from wsiseg.compute import Progress, Step, run_steps
from wsiseg.config import Config, SlideConfig, digest_of
from wsiseg.errors import SlideOpenError, SlideReadError, StoreError
from wsiseg.geometry import Box
from wsiseg.grid import TileGrid
from wsiseg.lock import hold
from wsiseg.model.scale import settle_scale
from wsiseg.pyramid import plan_pyramid
from wsiseg.resolution import describe_enlargement, plan_grid
from wsiseg.slide import Slide, identify_slide, open_slide, was_identified_as
from wsiseg.slide.scratch import scratch
from wsiseg.store import FORMAT, SlideStore

__all__ = [
    "describe_damage",
    "plan_tile",
    "tile_digest",
    "tile_slide",
]

_LOG = logging.getLogger(__name__)
_MAX_LISTED = 5
"""Number of damaged tiles that are listed one by one."""

_VERSION = 1
"""Version of the arithmetic here and in `wsiseg.slide`; a change makes digests differ, so that work
is redone."""


def tile_slide(
    slide_path: str | Path,
    store_path: str | Path,
    config: Config,
    executor: Executor,
    progress: Progress | None = None,
    *,
    tissue: Path | None = None,
    overwrite: bool = False,
) -> SlideStore:
    """Find the tissue of a slide and stream its tiles into a store, block by block.

    Only the squares that a kept tile touches are read and written; the rest is white. Blocks that
    were finished with the same settings are kept. A slide without tissue gives a store without
    pixels.

    Parameters
    ----------
    slide_path, store_path
        The slide file, and the ``.zarr`` folder, or its URL, to create or to continue.
    config
        Its `slide`, `tissue`, `tile` and `export` settings are used and, if `tile` does not set
        µm/px or side, the checkpoint that `predict` names.
    executor
        Runs the blocks; each worker holds one block of pixels and opens the slide itself.
    progress
        Called for every finished block.
    tissue
        GeoJSON file for the outline of the tissue: written if it is missing, read instead of
        detecting tissue if the user changed it.
    overwrite
        Redo every step, and replace the results of another slide.

    Raises
    ------
    SlideOpenError, SlideReadError, MppError
        If the slide cannot be used; finished blocks are kept.
    StoreError
        If `store_path` holds something else, or the results of another slide.
    GeoJsonError
        If the user's outline cannot be read.
    CheckpointError
        If the checkpoint that determines the scale is missing, or is not a checkpoint.
    """
    with hold(store_path) as run, compiling_told():
        store, step = plan_tile(
            slide_path, store_path, config, tissue=tissue, overwrite=overwrite, run=run
        )
        pyramid = plan_pyramid(store_path, "tile", step.digest, step.digests, run)
        run_steps(executor, [step, *pyramid], progress)
        describe_damage(store, config)
    return store


def plan_tile(
    slide_path: str | Path,
    store_path: str | Path,
    config: Config,
    *,
    tissue: Path | None = None,
    overwrite: bool = False,
    run: str = "",
    draw: bool = True,
) -> tuple[SlideStore, Step]:
    """Create the store, settle its tissue mask, and plan the blocks that `tile_slide` has to read.

    `run` is the token of the run that holds the store; without `draw`, the outline of the tissue is
    not written (`draw_tissue` does that). Otherwise takes and raises what `tile_slide` does, except
    `SlideReadError` in a block.
    """
    # Imported here: worker processes do not need it, and start in half the time.
    from wsiseg.tissue import kept_tiles, settle_tissue

    config = settle_scale(config)
    with open_slide(slide_path, config.slide) as slide:
        grid, mpp = plan_grid(slide, config.tile)
        for note in (*slide.notes, *describe_enlargement(slide.mpp, mpp)):
            _LOG.warning("%s: %s", slide.path, note)
        if other := _find_other_slide(store_path, slide):
            _replace_slide(store_path, slide.path, other, tissue, overwrite)
        store = SlideStore.create(store_path, grid, mpp, _describe(slide), config.tile.codec)
        if overwrite:
            store.clear_marks()
        settle_tissue(slide, store, config, tissue, draw=draw)
        store.keep_tiles(config.tissue.min_fraction)
        # A worker that chose again might choose another reader, or find another slide.
        planned = _Planned.of(slide, Path(slide_path), config.slide)
    squares = _needed_squares(grid, kept_tiles(store, config.tissue))
    digests = _block_digests(store, config, squares)
    digest, pending = store.plan("tile", digests)
    nonempty = [block for block in pending if _block_squares(grid, squares, block).any()]
    store.leave_white(sorted(set(pending) - set(nonempty)), digests)
    work = partial(
        _tile_block, planned=planned, store_path=store.location, squares=squares, run=run
    )  # fmt: skip
    return store, Step("tile", digest, grid.n_blocks, nonempty, work, digests=digests)


def _find_other_slide(store_path: str | Path, slide: Slide) -> str:
    """Return the path of the slide whose results are in a store; empty if there is no other's."""
    try:
        stored = SlideStore(store_path).slide
    except StoreError:
        return ""  # nothing, interrupted creation, or not ours: `SlideStore.create` handles these
    is_same = slide.identity == stored["identity"]
    if is_same or was_identified_as(slide.path, stored["identity"]):
        return ""
    return str(stored["path"])


def _replace_slide(
    store_path: str | Path, own: Path, other: str, outline: Path | None, overwrite: bool
) -> None:
    """Refuse to write one slide's results over another's, or put the other's outline aside."""
    from wsiseg.tissue import is_drawn

    if not overwrite and other == str(own.absolute()):
        raise StoreError(
            f"{store_path}: holds the results of another slide, which {other} was before; to "
            f"replace them, run it again with --overwrite and only this slide"
        )
    if not overwrite:
        raise StoreError(
            f"{store_path}: holds the results of another slide ({other}); choose another "
            f"output, or --overwrite to replace them"
        )
    if outline is not None and is_drawn(outline):
        _LOG.warning(
            "%s: outlines the tissue of another slide (%s); it is kept as %s, and the tissue "
            "found anew", outline, other, put_aside(outline).name,
        )  # fmt: skip


def tile_digest(store: SlideStore, config: Config) -> str:
    """Return the hex sha256 of what determines a store's pixels: slide, reader, grid, tissue.

    Raises
    ------
    StoreError
        If the store holds no tissue mask yet.
    """
    from wsiseg.tissue import kept_tiles

    squares = _needed_squares(store.grid, kept_tiles(store, config.tissue))
    return digest_of(_block_digests(store, config, squares))


def _block_digests(store: SlideStore, config: Config, squares: NDArray[np.bool_]) -> list[str]:
    """Return the digest of each block's inputs; of the tissue, which of its squares are read."""
    reader = [store.slide["reader"], config.slide.scaled_decode]
    reader += ["blank"] if config.slide.damaged == "blank" else []
    reader += [config.slide.white_level] if config.slide.white_level else []
    slide = [store.slide["identity"], store.slide["mpp"], reader]
    common = digest_of("tile", FORMAT, _VERSION, slide, [store.mpp, store.meta["grid"]])
    return [
        digest_of(common, block, _block_squares(store.grid, squares, block).tolist())
        for block in range(store.grid.n_blocks)
    ]


def describe_damage(store: SlideStore, config: Config) -> str:
    """Describe and log the damaged tiles of the slide file that were read as glass.

    Returns an empty string if there are none.
    """
    damaged = store.read_damage() if config.slide.damaged == "blank" else ()
    if not damaged:
        return ""
    places = [f"level {tile[0]}, column {tile[1]}, row {tile[2]}" for tile in damaged[:_MAX_LISTED]]
    more = f" and {len(damaged) - _MAX_LISTED} more" if len(damaged) > _MAX_LISTED else ""
    count, were = ("1 tile", "was") if len(damaged) == 1 else (f"{len(damaged)} tiles", "were")
    line = (
        f"{count} of the slide's file cannot be decoded, and {were} taken for glass: "
        f"{'; '.join(places)}{more}"
    )
    _LOG.warning("%s: %s", store.slide["path"], line)
    return line


def _describe(slide: Slide) -> dict[str, Any]:
    facts = {
        "name": slide.path.name,
        "path": str(slide.path.absolute()),
        "identity": slide.identity,
        "size": list(slide.size),
        "mpp": list(slide.mpp),
        "mpp_source": slide.mpp_source,
        "bounds": list(slide.bounds),
        "vendor": slide.vendor,
        "reader": slide.reader,
    }
    return facts | ({"notes": list(slide.notes)} if slide.notes else {})


def _needed_squares(grid: TileGrid, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which squares of ``grid.tile`` px (chunks) that kept tiles touch: ``(n, m)``."""
    squares = np.zeros((-(-grid.height // grid.tile), -(-grid.width // grid.tile)), bool)
    rows, cols = np.nonzero(kept)
    for down in (0, grid.tile - 1):
        for right in (0, grid.tile - 1):
            row = (rows * grid.stride + down) // grid.tile
            col = (cols * grid.stride + right) // grid.tile
            inside = (row < squares.shape[0]) & (col < squares.shape[1])
            squares[row[inside], col[inside]] = True
    return squares


def _block_squares(grid: TileGrid, squares: NDArray[np.bool_], block: int) -> NDArray[np.bool_]:
    row, col = divmod(block, grid.block_cols)
    n = grid.block // grid.tile
    return squares[row * n : (row + 1) * n, col * n : (col + 1) * n]


def _tile_block(
    block: int,
    *,
    planned: _Planned,
    store_path: str | Path,
    squares: NDArray[np.bool_],
    digest: str,
    run: str,
) -> None:
    """Read and write one block, and mark it done."""
    store = SlideStore(store_path, run)
    if store.is_done("tile", block, digest):
        return
    box = store.grid.block_box(block)
    needed = _block_squares(store.grid, squares, block)
    pixels = scratch.array("block", (box.height, box.width, 3))
    pixels[:] = 255
    with planned.open() as slide:
        for part in _parts(needed, store.grid.tile, box):
            slide.read(part, store.mpp, pixels[part.slices(box)])
        planned.check(slide)
        damaged = slide.damaged
    store.begin("tile", block)
    store.write_image(block, pixels, needed)
    store.write_damage(str(block), digest, damaged)
    store.mark_done("tile", block, digest)


@dataclass(frozen=True)
class _Planned:
    """A slide as it was when the run was planned; workers read exactly this slide, or fail."""

    path: Path
    identity: str
    content: str
    """Identity of the file itself, as a custom reader may define `identity` otherwise."""
    config: SlideConfig
    """Names the reader that opened it."""

    @classmethod
    def of(cls, slide: Slide, path: Path, config: SlideConfig) -> _Planned:
        """Record the present state of `slide`, opened from `path`."""
        pinned = config.model_copy(update={"reader": slide.reader})
        return cls(path, slide.identity, identify_slide(path), pinned)

    def open(self) -> Slide:
        """Open the slide again.

        Raises
        ------
        SlideReadError
            If the file has changed, or its reader does not open it here.
        """
        try:
            slide = open_slide(self.path, self.config)
        except SlideOpenError as error:
            raise SlideReadError(
                f"{self.path}: was opened by {self.config.reader} when the run was planned, and "
                f"is not now: {error}; run the same command again to continue"
            ) from error
        try:
            self.check(slide)
            if slide.reader != self.config.reader:
                raise SlideReadError(
                    f"{self.path}: was opened by {self.config.reader} when the run was planned, "
                    f"and is not now, but by {slide.reader}; run the same command again to continue"
                )
        except BaseException:
            slide.close()
            raise
        return slide

    def check(self, slide: Slide) -> None:
        """Check that the file and `slide`, opened from it, are still those that were planned.

        Raises
        ------
        SlideReadError
            If the file has changed.
        """
        if slide.identity != self.identity or identify_slide(self.path) != self.content:
            raise SlideReadError(
                f"{self.path}: has changed since the run was planned; run again when nothing "
                f"writes to it"
            )


def _parts(squares: NDArray[np.bool_], side: int, block: Box) -> Iterator[Box]:
    """Cover the set `squares` of a block with few boxes: runs in rows, stacked if they repeat."""
    remaining = squares.copy()
    for row, col in np.argwhere(squares).tolist():
        if not remaining[row, col]:
            continue
        width = _run_length(remaining[row : row + 1, col:].all(axis=0))
        height = _run_length(remaining[row:, col : col + width].all(axis=1))
        remaining[row : row + height, col : col + width] = False
        part = Box(block.x + col * side, block.y + row * side, width * side, height * side)
        yield part.intersect(block)


def _run_length(flags: Any) -> int:
    """Return the number of leading true values."""
    return len(flags) if flags.all() else int(flags.argmin())
