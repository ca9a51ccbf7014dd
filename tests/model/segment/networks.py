"""Untrained networks of the second stage as sources."""

import torch

from wsiseg.model.checkpoint import CheckpointInfo
from wsiseg.model.segment import begin_network
from wsiseg.model.segment.source import Segmenter

INFO = CheckpointInfo(
    encoder="small", identity="", names=("A", "B", "background"),
    colors=((1, 2, 3), (4, 5, 6), (7, 8, 9)), prompts=(), prototypes_per_class=1, mpp=0.5,
    tile=224, background=1, kind="segmenter", first_stage={"sha256": "ab"},
)  # fmt: skip


def make_segmenter(name: str, info: CheckpointInfo = INFO) -> Segmenter:
    """The network `name` with random weights, but its norms as if it had seen images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = begin_network(name, len(info.names), {})
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    return Segmenter(network.folded(), info)
