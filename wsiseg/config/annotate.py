"""The settings of a run, by step."""

from __future__ import annotations

from wsiseg.config.export import ExportConfig, OutlineConfig
from wsiseg.config.model import Settings
from wsiseg.config.predict import PredictConfig
from wsiseg.config.slide import SlideConfig, TissueConfig
from wsiseg.config.stitch import StitchConfig
from wsiseg.config.tile import TileConfig

__all__ = ["Config"]


class Config(Settings):
    """The settings of `wsiseg annotate`."""

    slide: SlideConfig = SlideConfig()
    """How slides are opened."""
    tissue: TissueConfig = TissueConfig()
    """How tissue is found."""
    tile: TileConfig = TileConfig()
    """The tile grid and store."""
    predict: PredictConfig = PredictConfig()
    """How the model is applied to the tiles."""
    stitch: StitchConfig = StitchConfig()
    """From CAMs to label rasters."""
    outline: OutlineConfig = OutlineConfig()
    """From labels to regions."""
    export: ExportConfig = ExportConfig()
    """Which files are written, and how."""
