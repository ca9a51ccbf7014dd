"""The steps after tiling, apart from the others as they load torch and numba."""

from __future__ import annotations

from concurrent.futures import Executor
from functools import partial

from wsiseg.compute import Progress, Step
from wsiseg.config import Config
from wsiseg.outline import outline_regions
from wsiseg.predict import plan_predict
from wsiseg.pyramid import plan_pyramid
from wsiseg.run.jobs import OutputTree
from wsiseg.run.outputs import Written, write_outputs
from wsiseg.stitch import plan_stitch
from wsiseg.store import SlideStore
from wsiseg.tissue import draw_tissue

__all__ = ["outline_and_write", "plan_after_tiling"]


def plan_after_tiling(
    tree: OutputTree, name: str, config: Config, tile: Step, run: str
) -> list[Step]:
    """Plan prediction and stitching of a store that `tile` fills; its tissue is drawn first."""
    path = tree.store(name)
    draw_tissue(SlideStore(path), config, tree.tissue(name))
    predict = plan_predict(path, config, tile.digest, tile.digests, run)
    stitch = plan_stitch(path, config, predict.digest, predict.digests, run)
    maps = plan_pyramid(path, "stitch", stitch[-1].digest, stitch[-1].digests, run)
    return [predict, *stitch, *maps]


def outline_and_write(
    tree: OutputTree, name: str, config: Config, tissue_mm2: float, executor: Executor,
    progress: Progress | None, *, overwrite: bool,
) -> Written:  # fmt: skip
    """Outline the regions of a stitched slide and write its outputs; see `write_outputs`."""
    path = tree.store(name)
    outline = partial(outline_regions, path, config, executor, progress)
    return write_outputs(
        SlideStore(path), tree, name, config, tissue_mm2, outline, overwrite=overwrite
    )
