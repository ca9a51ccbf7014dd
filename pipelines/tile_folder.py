"""Tile every slide of a folder into Zarr stores, and nothing more: to train on, or to look at.

Run: python pipelines/tile_folder.py FOLDER OUT [EXECUTOR]
"""

import sys
from pathlib import Path

from wsiseg.compute import open_executor
from wsiseg.config import Config
from wsiseg.errors import WsisegError
from wsiseg.run import OutputTree, plan_jobs
from wsiseg.tile import tile_slide


def main(folder: str, out: str, executor: str = "threads") -> int:
    """Tile `folder`; exit status 1 if a slide failed. Finished blocks are kept."""
    tree, failed = OutputTree(Path(out)), 0
    with open_executor(executor) as pool:
        for job in plan_jobs([Path(folder)], nested=True, out=tree.root):
            tissue = tree.tissue(job.name)
            try:
                store = tile_slide(job.path, tree.store(job.name), Config(), pool, tissue=tissue)
            except WsisegError as error:
                failed += 1
                print(f"{job.name}: failed {error}")
            else:
                print(f"{job.name}: {store.path}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
