"""Training of the encoder `small`: mosaics of tiles, with other dyes, light and focus."""

from wsiseg.train.encoder.fit import CellHead, FitSettings, fit_network
from wsiseg.train.encoder.pack import pack_network
from wsiseg.train.encoder.pictures import LabelledTiles, Part, Sampler
from wsiseg.train.encoder.tiles import TileSet, read_tile_set, split_slides

__all__ = [
    "CellHead",
    "FitSettings",
    "LabelledTiles",
    "Part",
    "Sampler",
    "TileSet",
    "fit_network",
    "pack_network",
    "read_tile_set",
    "split_slides",
]
