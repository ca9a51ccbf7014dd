"""How other tools read tiles; each returns a function that reads a request's tiles.

A request gives the `slide`, the `corners` ``[x, y]`` and the `side` of its tiles in level-0 pixels,
the side `tile` of the result, and `boxes` ``[x, y, width, height]`` in level-0 pixels that cover
the same tiles, for readers of larger areas.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

Request = dict[str, Any]
Work = Callable[[Request], int]


def shrink(image: Any, factor: float) -> Any:
    """Shrink by area with Pillow, in its fastest way."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    if factor == 1:
        return np.asarray(image)
    if factor == round(factor):
        return np.asarray(image.reduce(round(factor)))
    size = (round(image.width / factor), round(image.height / factor))
    return np.asarray(image.resize(size, Image.Resampling.BOX))


def read_regions(request: Request, open_: Callable[[str], Any]) -> int:
    """`read_region` at level 0 and Pillow's resize: CLAM's and TRIDENT's data sets."""
    slide = open_(request["slide"])
    side, tile = request["side"], request["tile"]
    for corner in request["corners"]:
        image = slide.read_region(tuple(corner), 0, (side, side)).convert("RGB")
        if side != tile:
            image = image.resize((tile, tile))
        np.asarray(image)
    slide.close()
    return len(request["corners"])


def openslide() -> Work:
    """OpenSlide tile by tile."""
    import openslide

    return partial(read_regions, open_=openslide.OpenSlide)


def openslide_pool(pool: type[ThreadPoolExecutor] | type[ProcessPoolExecutor]) -> Work:
    """The same with two workers, each with its own handle on half of the tiles."""
    one = openslide()

    def work(request: Request) -> int:
        corners = request["corners"]
        halves = corners[: len(corners) // 2], corners[len(corners) // 2 :]
        with pool(2) as workers:
            return sum(workers.map(one, [{**request, "corners": half} for half in halves]))

    return work


def tiffslide() -> Work:
    """tiffslide tile by tile."""
    import tiffslide

    return partial(read_regions, open_=tiffslide.TiffSlide)


def tiffslide_blocks() -> Work:
    """tiffslide, many tiles at once."""
    import tiffslide

    def work(request: Request) -> int:
        slide = tiffslide.TiffSlide(request["slide"])
        for x, y, width, height in request["boxes"]:
            region = slide.read_region((x, y), 0, (width, height), as_array=True)
            shrink(region, request["side"] / request["tile"])
        return len(request["corners"])

    return work


def pyvips() -> Work:
    """libvips' own TIFF loader (no Aperio colours), fetched tile by tile."""
    import pyvips

    pyvips.cache_set_max(0)  # otherwise the next round would find its tiles decoded

    def work(request: Request) -> int:
        side = request["side"]
        region = pyvips.Region.new(pyvips.Image.tiffload(request["slide"]))
        for x, y in request["corners"]:
            raw = np.frombuffer(region.fetch(x, y, side, side), np.uint8).reshape(side, side, -1)
            shrink(raw[..., :3], side / request["tile"])
        return len(request["corners"])

    return work


def fastslide() -> Work:
    """fastslide tile by tile, with a cache that holds a row of tiles."""
    import fastslide

    def work(request: Request) -> int:
        slide = fastslide.FastSlide.from_file_path(request["slide"])
        slide.set_cache(2**29)
        side = request["side"]
        for x, y in request["corners"]:
            region = slide.read_region((x, y), 0, (side, side)).numpy()
            shrink(np.ascontiguousarray(region[..., :3]), side / request["tile"])
        return len(request["corners"])

    return work


def cucim(blocks: bool) -> Work:
    """cuCIM on the CPU, tile by tile or many tiles at once."""
    from cucim import CuImage

    def work(request: Request) -> int:
        slide = CuImage(request["slide"])
        side = request["side"]
        tiles = [(x, y, side, side) for x, y in request["corners"]]
        for x, y, width, height in request["boxes"] if blocks else tiles:
            region = slide.read_region((x, y), (width, height), 0)
            shrink(np.asarray(region), side / request["tile"])
        return len(request["corners"])

    return work


def large_image() -> Work:
    """large_image's TIFF source, tile by tile."""
    import large_image
    import large_image_source_tiff

    def work(request: Request) -> int:
        large_image.cache_util.cachesClear()  # otherwise the next round would decode nothing
        slide = large_image_source_tiff.open(request["slide"])
        side, tile = request["side"], request["tile"]
        for x, y in request["corners"]:
            place = {"left": x, "top": y, "width": side, "height": side, "units": "base_pixels"}
            slide.getRegion(
                region=place, output={"maxWidth": tile, "maxHeight": tile},
                format=large_image.constants.TILE_FORMAT_NUMPY,
            )  # fmt: skip
        return len(request["corners"])

    return work


READERS: dict[str, Callable[[], Work]] = {
    "openslide": openslide,
    "openslide 2 threads": partial(openslide_pool, ThreadPoolExecutor),
    "openslide 2 processes": partial(openslide_pool, ProcessPoolExecutor),
    "tiffslide": tiffslide,
    "tiffslide blocks": tiffslide_blocks,
    "large_image": large_image,
    "fastslide": fastslide,
    "cucim": partial(cucim, False),
    "cucim blocks": partial(cucim, True),
    "pyvips": pyvips,
}
"""Named by the package first."""
