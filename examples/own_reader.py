"""Read your own slide format: provide the pixels of a level; `PyramidSlide` does the geometry.

Here a slide is a folder of `.npy` levels, finest first, and a text file with its µm/px.

Run: python examples/own_reader.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np

from wsiseg.geometry import Box, Size
from wsiseg.slide import PyramidSlide


class NpySlide(PyramidSlide):
    """`0.npy`, `1.npy`, ... ``(H, W, 3)`` uint8, memory-mapped, and `mpp.txt`."""

    def __init__(self, folder: Path) -> None:
        files = sorted(folder.glob("*.npy"), key=lambda path: int(path.stem))
        self._levels = [np.load(path, mmap_mode="r") for path in files]
        super().__init__(
            folder,
            reader="npy",
            vendor="npy",
            level_sizes=tuple(Size(level.shape[1], level.shape[0]) for level in self._levels),
            properties={},
            mpp_override=float((folder / "mpp.txt").read_text()),
            identity=folder.name,
            associated={},
        )

    def close(self) -> None:
        """Release the memory maps."""
        self._levels.clear()

    def _pixels(self, level: int, box: Box) -> np.ndarray:
        return np.asarray(self._levels[level][box.slices()])


def write_sample(folder: Path) -> None:
    """Write a violet square on glass, in two levels."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.full((512, 512, 3), 240, np.uint8)
    pixels[100:400, 100:400] = (180, 90, 160)
    np.save(folder / "0.npy", pixels)
    np.save(folder / "1.npy", pixels[::4, ::4])
    (folder / "mpp.txt").write_text("0.25")


if __name__ == "__main__":
    here = Path(sys.argv[1])
    if not (here / "0.npy").exists():
        write_sample(here)
    with NpySlide(here) as slide:
        size = slide.raster_size(0.5)
        half = slide.read(Box(0, 0, *size), mpp=0.5)
        print(f"{slide.size} at {slide.mpp.x} µm/px; at 0.5: {half.shape}, mean {half.mean():.1f}")
