"""The encoder `small`: a convolutional network for CPUs, trained on real H&E from tile labels.

Its weights come from nothing but tiles of the Pathology Atlas (Serdar Balci, Memorial Patoloji, doi
10.5281/zenodo.6382734, CC BY 4.0).
"""

from __future__ import annotations

from wsiseg.model.encoders.learned import TileEncoder
from wsiseg.model.encoders.small_network import SmallNetwork

__all__ = ["SmallEncoder"]


class SmallEncoder(TileEncoder):
    """A `TileEncoder` of 1.2 million parameters that began from nothing."""

    name = "small"
    network_type = SmallNetwork
    context = 64  # one cell of the coarsest map, which is joined into the finer ones
