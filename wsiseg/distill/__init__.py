"""The second stage: a compact network trained on the labels of a first stage."""

from wsiseg.distill.agreement import Agreement
from wsiseg.distill.labels import LabelledWindows, choose_least
from wsiseg.distill.loop import distill_model
from wsiseg.distill.masks import load_masks
from wsiseg.distill.setup import check_windows, describe_distill
from wsiseg.distill.stores import load_stores

__all__ = [
    "Agreement",
    "LabelledWindows",
    "check_windows",
    "choose_least",
    "describe_distill",
    "distill_model",
    "load_masks",
    "load_stores",
]
