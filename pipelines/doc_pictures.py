"""Draw the figures of docs/concepts/model.md from a part of a real slide.

    python pipelines/doc_pictures.py lung_scc_HE2.svs 9000 12900 docs/pictures

X and Y are the part's corner in level-0 pixels; it is 512 µm wide.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

import wsiseg
from wsiseg.evaluate import write_figures
from wsiseg.geometry import Box

MPP, SIDE, PATCH = 0.5, 1024, 224


def main(slide: str, x: str, y: str, out: str) -> None:
    """Cut the part, map it without and with the CRF, draw the CAMs of its first patch."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with wsiseg.open_slide(slide) as opened:
            scale = opened.mpp.x / MPP
            part = opened.read(Box(int(int(x) * scale), int(int(y) * scale), SIDE, SIDE), MPP)
        maps = [part, *(draw_map(folder, part, refine) for refine in (False, True))]
        joined = np.concatenate([np.pad(m, ((0, 0), (0, 8), (0, 0)), constant_values=255)
                                 for m in maps], 1)  # fmt: skip
        small = Image.fromarray(joined).resize((joined.shape[1] // 2, SIDE // 2), Image.LANCZOS)
        small.save(Path(out) / "crf.jpg", quality=85)
        patch = folder / "patch.png"
        Image.fromarray(part[:PATCH, :PATCH]).save(patch)
        for path in write_figures("tissue", [patch], folder / "figures", ["cams", "prototypes"]):
            drawn = Image.open(path).convert("RGB")
            drawn.save(Path(out) / f"{path.stem.split('_')[-1]}.jpg", quality=85)


def draw_map(folder: Path, part: np.ndarray, refine: bool) -> np.ndarray:
    """Return the overlay of the part, as `wsiseg annotate` writes it."""
    path, run = folder / "part.tif", folder / f"refine-{refine}"
    tifffile.imwrite(path, part, tile=(256, 256), photometric="rgb", compression="deflate",
                     resolution=(1e4 / MPP, 1e4 / MPP), resolutionunit="CENTIMETER")  # fmt: skip
    config = wsiseg.Config().model_dump()
    config["stitch"]["refine"] = refine
    wsiseg.annotate(path, run, wsiseg.Config(**config))
    overlay = Image.open(run / "overlays" / "part.jpg").convert("RGB")
    overlay = overlay.crop((0, 0, overlay.width, overlay.width))  # the legend is below
    return np.asarray(overlay.resize((SIDE, SIDE), Image.LANCZOS))


if __name__ == "__main__":
    main(*sys.argv[1:])
