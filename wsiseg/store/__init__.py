"""The Zarr v3 layout of one slide. All of it is here, and written without zarr (`nodes.py`).

::

    <slide>.zarr                     group, NGFF image; attrs.wsiseg = format, slide facts, grid
    ├── image            0..n: (3, H, W) uint8, levels of 1, 4, 16 ...; 255 = no tissue
    ├── tissue/mask      (h, w) uint8 {0, 1}, coarse raster at the tissue mpp
    ├── cams
    │   ├── logits       (rows, cols, K, h, w) float16, NaN = no tile
    │   └── classes      (rows, cols, K) float32, class logits, NaN = no tile
    ├── labels           NGFF labels
    │   ├── classes      0..n: (H, W) uint8, levels of 1, 2, 4 ...; 255 = background
    │   └── confidence   0..n: (H, W) uint8, 255 = certain
    ├── probabilities    NGFF image, if asked for: 0..n: (K, H, W) uint8, in 255ths; 0 = no tissue
    └── done/<step>      (blocks, 32 + 12 n) uint8, one row per block, written last: sha256 of its
                         inputs; size and checksum of its shard in each of the step's n arrays

Every array but the marks is sharded: one block is one shard and one file, written whole by one
writer. The same holds for coarser levels as long as a block covers at least 448 px of them. Beyond
that, files would hold a few pixels, so the coarsest levels have shards of 4,096 px, which the steps
``tile-pyramid`` and ``stitch-pyramid`` write last, one shard per block. In the image's shards a
chunk is one tile (512 px in the coarsest levels) with interleaved colours (the codec `transpose`),
the order that readers and models use. A missing chunk is background, and so is a missing shard,
unless its block's mark says that it was written. Each chunk and each index ends in a CRC-32C
(Zarr's codec `crc32c`), which is checked on reading.
"""

from wsiseg.store.check import Damage, StoreCheck, check_store
from wsiseg.store.layout import FORMAT
from wsiseg.store.slide_store import SlideStore

__all__ = ["FORMAT", "Damage", "SlideStore", "StoreCheck", "check_store"]
