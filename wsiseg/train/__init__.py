"""Train ConStruct on patch labels: which classes show in a patch, no masks."""

from wsiseg.train.loop import train_model
from wsiseg.train.patches import Patches, load_patches

__all__ = ["Patches", "load_patches", "train_model"]
