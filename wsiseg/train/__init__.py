"""Train ConStruct on patch labels: which classes show in a patch, no masks."""

from wsiseg.train.calibrate import calibrate_checkpoint
from wsiseg.train.loop import train_model
from wsiseg.train.parallel import leads
from wsiseg.train.patches import Patches, PatchSource, load_patches
from wsiseg.train.plan import describe_training
from wsiseg.train.released import RELEASED, import_released
from wsiseg.train.setup import check_settings
from wsiseg.train.stores import StoreTiles, gather_tiles, load_tiles
from wsiseg.train.validate import HeldOut, Validate, hold_out

__all__ = [
    "RELEASED",
    "HeldOut",
    "PatchSource",
    "Patches",
    "StoreTiles",
    "Validate",
    "calibrate_checkpoint",
    "check_settings",
    "describe_training",
    "gather_tiles",
    "hold_out",
    "import_released",
    "leads",
    "load_patches",
    "load_tiles",
    "train_model",
]
