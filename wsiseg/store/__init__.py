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
    └── done/<step>      (blocks, 32 + 12 n) uint8, a block's row written last: sha256 of what made
                         it; size and checksum of its shard in each of the step's n arrays

Every array but the marks is sharded: one block is one shard, one file, and has one writer, which
writes it whole. So it is with coarser levels as long as a block's part has 448 px; of the coarsest
a block's part would be a file of a few pixels, so their shards are 4,096 px, and the steps
``tile-pyramid`` and ``stitch-pyramid``, whose blocks those shards are, write them last. Inside the
image's shards a chunk is one tile (512 px of the coarsest levels), its colours interleaved as every
reader and model has them (the codec `transpose`), so that nothing is shuffled on the way.
A missing chunk is background, and so is a missing shard, unless its block's mark says that it was
written. Each chunk and each index ends in a CRC-32C (Zarr's codec `crc32c`), which reading checks.
"""

from wsiseg.store.check import Damage, StoreCheck, check_store
from wsiseg.store.layout import FORMAT
from wsiseg.store.slide_store import SlideStore

__all__ = ["FORMAT", "Damage", "SlideStore", "StoreCheck", "check_store"]
