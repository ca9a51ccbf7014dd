"""How other tools find the tissue of a slide and write its tiles; each returns the work to do.

A request gives the `slide`, an output folder `out`, and the side `tile` of a tile at `mpp` µm/px.
Peers find the tissue in their own way, with their defaults; `least` is the minimum tissue fraction
of a tile. Tools that do not write tiles write them to an HDF5 file, as CLAM does: uncompressed, one
tile per chunk, which is cheaper than any image format. CLAM and TRIDENT find tissue as far as
possible without downloaded weights; both are given tiles or a mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from peer_readers import Request, Work


def write_h5(path: Path, tiles: Iterable[Any], count: int, tile: int) -> int:
    """Write every tile's pixels to one dataset."""
    import h5py

    with h5py.File(path, "w") as file:
        shape = (count, tile, tile, 3)
        images = file.create_dataset("imgs", shape, "u1", chunks=(1, *shape[1:]))
        written = 0
        for image in tiles:
            images[written] = image
            written += 1
    assert written == count
    return count


def saturation_mask(slide: Any) -> tuple[Any, float]:
    """Run CLAM's `segmentTissue` on the coarsest level: ``(h, w)`` uint8 and its downsample."""
    import cv2

    level = slide.level_count - 1
    thumbnail = np.asarray(slide.read_region((0, 0), level, slide.level_dimensions[level]))
    saturation = cv2.medianBlur(cv2.cvtColor(thumbnail[..., :3], cv2.COLOR_RGB2HSV)[..., 1], 7)
    return cv2.threshold(saturation, 8, 255, cv2.THRESH_BINARY)[1], slide.level_downsamples[level]


def clam() -> Work:
    """CLAM's loop: OpenSlide and Pillow tile by tile, HDF5; the tiles are those of wsiseg."""
    import cv2
    import openslide

    def work(request: Request) -> int:
        slide = openslide.OpenSlide(request["slide"])
        cv2.findContours(saturation_mask(slide)[0], cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        side, tile, corners = request["side"], request["tile"], request["corners"]
        regions = (slide.read_region(tuple(at), 0, (side, side)) for at in corners)
        tiles = (np.asarray(one.convert("RGB").resize((tile, tile))) for one in regions)
        return write_h5(Path(request["out"], "a.h5"), tiles, len(corners), tile)

    return work


def trident(reader: str) -> Callable[[], Work]:
    """TRIDENT's own mask polygons and `WSIPatcher`; HDF5."""

    def prepare() -> Work:
        import openslide
        from trident import load_wsi
        from trident.IO import mask_to_gdf

        def work(request: Request) -> int:
            slide = load_wsi(request["slide"], reader_type=reader, lazy_init=False)
            # Its own tissue network needs downloaded weights.
            mask, downsample = saturation_mask(openslide.OpenSlide(request["slide"]))
            tissue = mask_to_gdf(
                mask // 255, pixel_size=slide.mpp, max_nb_holes=20, contour_scale=downsample
            )
            patcher = slide.create_patcher(
                request["tile"], slide.mpp, request["mpp"], mask=tissue, threshold=request["least"]
            )
            tiles = (tile for tile, _, _ in patcher)
            return write_h5(Path(request["out"], "a.h5"), tiles, len(patcher), request["tile"])

        return work

    return prepare


def tiatoolbox() -> Work:
    """`tissue_mask` and `SlidingWindowPatchExtractor`; HDF5."""
    from tiatoolbox.tools.patchextraction import SlidingWindowPatchExtractor
    from tiatoolbox.wsicore.wsireader import WSIReader

    def work(request: Request) -> int:
        slide = WSIReader.open(request["slide"])
        mask = slide.tissue_mask(resolution=1.25, units="power")
        patches = SlidingWindowPatchExtractor(
            slide, request["tile"], mask, request["mpp"], "mpp", min_mask_ratio=request["least"]
        )
        tiles = (patches[i] for i in range(len(patches)))
        return write_h5(Path(request["out"], "a.h5"), tiles, len(patches), request["tile"])

    return work


def lazyslide(reader: str) -> Callable[[], Work]:
    """`find_tissues`, `tile_tissues` and the data set of tiles; HDF5."""

    def prepare() -> Work:
        import lazyslide as zs
        from wsidata import open_wsi

        def work(request: Request) -> int:
            slide = open_wsi(request["slide"], store=f"{request['out']}/a.zarr", reader=reader)
            zs.pp.find_tissues(slide)
            zs.pp.tile_tissues(
                slide, request["tile"], mpp=request["mpp"],
                background_fraction=1 - request["least"],
            )  # fmt: skip
            tiles = slide.ds.tile_images()
            images = (np.asarray(tiles[i]["image"]) for i in range(len(tiles)))
            return write_h5(Path(request["out"], "a.h5"), images, len(tiles), request["tile"])

        return work

    return prepare


def histolab() -> Work:
    """`GridTiler`, which writes PNG files."""
    from histolab.slide import Slide
    from histolab.tiler import GridTiler

    def work(request: Request) -> int:
        out = Path(request["out"])
        side = (request["tile"], request["tile"])
        tiler = GridTiler(side, mpp=request["mpp"], tissue_percent=100 * request["least"])
        slide = Slide(request["slide"], str(out), use_largeimage=True)
        tiler.extract(slide, log_level="ERROR")
        return sum(1 for _ in out.rglob("*.png"))

    return work


def hs2p(backend: str) -> Callable[[], Work]:
    """`tile_slide` and the tiles that `extract_tiles_to_tar` would encode; HDF5."""

    def prepare() -> Work:
        from hs2p import SegmentationConfig, SlideSpec, TilingConfig, tile_slide
        from hs2p.wsi.streaming.stream import iter_tile_arrays_from_result
        from PIL import Image

        def work(request: Request) -> int:
            tile, path = request["tile"], Path(request["slide"])
            tiling = TilingConfig(
                requested_spacing_um=request["mpp"], requested_tile_size_px=tile, tolerance=0.05,
                overlap=0.0, backend=backend,
            )  # fmt: skip
            found = tile_slide(
                SlideSpec(sample_id="a", image_path=path, spacing_at_level_0=request["slide_mpp"]),
                tiling=tiling,
                segmentation=SegmentationConfig(method="hsv"),
            )  # fmt: skip
            arrays = iter_tile_arrays_from_result(result=found, num_workers=1)
            pictures = (Image.fromarray(array[..., :3]) for array in arrays)
            tiles = (np.asarray(one.resize((tile, tile), Image.BILINEAR)) for one in pictures)
            return write_h5(Path(request["out"], "a.h5"), tiles, len(found.x), tile)

        return work

    return prepare


def slideflow() -> Work:
    """`WSI.qc` and `extract_tiles`, which writes TFRecords of JPEG pictures."""
    import slideflow as sf

    def work(request: Request) -> int:
        um = round(request["mpp"] * request["tile"])
        slide = sf.WSI(request["slide"], tile_px=request["tile"], tile_um=um, verbose=False)
        slide.qc("otsu", filter_threshold=1 - request["least"])
        slide.extract_tiles(
            tfrecord_dir=request["out"], img_format="jpg", num_threads=1, report=False,
            grayspace_fraction=1, whitespace_fraction=1,
        )  # fmt: skip
        return int(slide.grid.sum())

    return work


def dlup() -> Work:
    """`SlideDataset` within the mask of CLAM; HDF5."""
    import openslide
    from dlup.data.dataset import MaskConfig, SlideDataset, TilingConfig

    def work(request: Request) -> int:
        mask, _ = saturation_mask(openslide.OpenSlide(request["slide"]))
        tile = request["tile"]
        tiles = SlideDataset.from_standard_tiling(
            request["slide"], TilingConfig(mpp=request["mpp"], tile_size=(tile, tile)),
            MaskConfig(mask=mask // 255, mask_threshold=request["least"]),
        )  # fmt: skip
        images = (np.asarray(tiles[i].image)[..., :3] for i in range(len(tiles)))
        return write_h5(Path(request["out"], "a.h5"), images, len(tiles), tile)

    return work


JOBS: dict[str, Callable[[], Work]] = {
    "CLAM": clam,
    "TRIDENT": trident("openslide"),
    "TRIDENT with cucim": trident("cucim"),
    "tiatoolbox": tiatoolbox,
    "lazyslide": lazyslide("openslide"),
    "lazyslide with fastslide": lazyslide("fastslide"),
    "histolab": histolab,
    "slideflow": slideflow,
    "dlup": dlup,
    "hs2p with openslide": hs2p("openslide"),
    "hs2p with vips": hs2p("vips"),
    "hs2p with cucim": hs2p("cucim"),
}
"""Named by the package first."""
