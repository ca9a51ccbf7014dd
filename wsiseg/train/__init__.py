"""Train ConStruct on patch labels: which classes show in a patch, no masks."""

from wsiseg.train.loop import train_model
from wsiseg.train.patches import Patches, load_patches
from wsiseg.train.setup import describe_training

__all__ = ["Patches", "describe_training", "load_patches", "train_model"]
