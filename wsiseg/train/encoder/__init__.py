"""Training of the encoders `lite` and `small`: mosaics of tiles, other dyes, light and focus."""

from wsiseg.train.encoder.fit import CellHead, FitSettings, fit_network
from wsiseg.train.encoder.pack import pack_network
from wsiseg.train.encoder.pictures import LabelledTiles, Part, Sampler
from wsiseg.train.encoder.published import begin_lite
from wsiseg.train.encoder.tiles import TileSet, read_tile_set, split_slides

__all__ = [
    "CellHead",
    "FitSettings",
    "LabelledTiles",
    "Part",
    "Sampler",
    "TileSet",
    "begin_lite",
    "fit_network",
    "pack_network",
    "read_tile_set",
    "split_slides",
]
