"""Everything of one run, by step."""

from __future__ import annotations

from wsiseg.config.export import ExportConfig, OutlineConfig
from wsiseg.config.model import Settings
from wsiseg.config.predict import PredictConfig
from wsiseg.config.slide import SlideConfig, TissueConfig
from wsiseg.config.stitch import StitchConfig
from wsiseg.config.tile import TileConfig

__all__ = ["Config"]


class Config(Settings):
    """Everything that `wsiseg annotate` needs."""

    slide: SlideConfig = SlideConfig()
    """How slides are opened."""
    tissue: TissueConfig = TissueConfig()
    """Where tissue is looked for."""
    tile: TileConfig = TileConfig()
    """The tile grid and store."""
    predict: PredictConfig = PredictConfig()
    """The model over the tiles."""
    stitch: StitchConfig = StitchConfig()
    """CAMs to label rasters."""
    outline: OutlineConfig = OutlineConfig()
    """Labels to regions."""
    export: ExportConfig = ExportConfig()
    """What is written, and how."""
