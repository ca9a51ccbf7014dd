"""The encoder `lite`: most of EfficientNet-Lite0, trained on real H&E as `small` is.

Its first blocks are those that ImageNet's photographs taught (Google, Apache-2.0); all later ones
went on to learn from tiles of the Pathology Atlas (Serdar Balci, Memorial Patoloji, doi
10.5281/zenodo.6382734, CC BY 4.0).
"""

from __future__ import annotations

from wsiseg.model.encoders.learned import TileEncoder
from wsiseg.model.encoders.lite_network import LiteNetwork

__all__ = ["LiteEncoder"]


class LiteEncoder(TileEncoder):
    """A `TileEncoder` of 1.9 million parameters that began from photographs."""

    name = "lite"
    network_type = LiteNetwork
    context = 64
