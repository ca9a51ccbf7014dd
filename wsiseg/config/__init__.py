"""Settings: one frozen model per step, unknown keys refused, and their digest."""

from __future__ import annotations

from wsiseg.config.annotate import Config
from wsiseg.config.cluster import ClusterConfig
from wsiseg.config.distill import DistillConfig
from wsiseg.config.export import ExportConfig, OutlineConfig
from wsiseg.config.model import Precision, digest_of
from wsiseg.config.patches import EvaluateConfig, InferenceConfig, MasksConfig
from wsiseg.config.predict import PredictConfig
from wsiseg.config.slide import SlideConfig, TissueConfig
from wsiseg.config.stitch import ContextConfig, CrfConfig, StitchConfig
from wsiseg.config.tile import TileConfig, Tiling
from wsiseg.config.train import (
    LabelConfig,
    Pooling,
    Preset,
    Prototypes,
    TrainConfig,
    check_class_names,
)
from wsiseg.formats import ExportFormat
from wsiseg.settings import load_config, parse_config

__all__ = [
    "ClusterConfig",
    "Config",
    "ContextConfig",
    "CrfConfig",
    "DistillConfig",
    "EvaluateConfig",
    "ExportConfig",
    "ExportFormat",
    "InferenceConfig",
    "LabelConfig",
    "MasksConfig",
    "OutlineConfig",
    "Pooling",
    "Precision",
    "PredictConfig",
    "Preset",
    "Prototypes",
    "SlideConfig",
    "StitchConfig",
    "TileConfig",
    "Tiling",
    "TissueConfig",
    "TrainConfig",
    "check_class_names",
    "digest_of",
    "load_config",
    "parse_config",
]
