"""Beginning `lite` with published weights."""

import pytest
import torch

from tests.train.encoder.test_fit import tiles
from wsiseg.errors import CheckpointError
from wsiseg.model.encoders.lite_network import LiteNetwork
from wsiseg.train.encoder import FitSettings, begin_lite, fit_network


def publish(network):
    """Name the network's tensors as the published file does."""
    named = {}
    for name, value in network.state_dict().items():
        if not name.startswith(("stem.", "blocks.")):
            continue
        *place, unit, part, kind = name.split(".")
        norm = {"stem": 0, "expand": 0, "depthwise": 1, "project": 2}[unit]
        own = f"_{unit}_conv" if unit != "stem" else "_conv_stem"
        part = own if part == "conv" else f"_bn{norm}"
        named[".".join(["_" + ".".join(place)] * bool(place) + [part, kind])] = value
    return named | {"_fc.weight": torch.zeros(1000, 1280)}  # of what is left out


@pytest.fixture
def published(tmp_path):
    torch.manual_seed(0)
    network = LiteNetwork(folded=False)
    with torch.no_grad():
        network(torch.rand(2, 3, 256, 256))  # its norms see something
    path = tmp_path / "published.pth"
    torch.save(publish(network), path)
    return network, path


def test_it_begins_with_every_weight_of_its_blocks_where_it_belongs(published):
    network, path = published
    begun = begin_lite(path)
    for name, value in network.state_dict().items():
        if name.startswith(("stem.", "blocks.")):
            torch.testing.assert_close(begun.state_dict()[name], value, rtol=0, atol=0)


def test_training_keeps_its_first_blocks_and_moves_the_others(published):
    _, path = published
    settings = FitSettings(steps=2, batch=1, optimizer="adamw")
    begun, (network, _) = begin_lite(path), fit_network(lambda: begin_lite(path), tiles(), settings)
    for name, value in network.named_parameters():
        held = name.startswith(("stem.", *(f"blocks.{n}." for n in range(5))))
        assert torch.equal(value, begun.get_parameter(name)) == held, name
    for name, value in network.named_buffers():
        if "blocks.4" in name or "stem" in name:
            assert torch.equal(value, begun.get_buffer(name)), "a norm's statistics are held, too"


@pytest.mark.parametrize("kind", ["other", "shape", "text"])
def test_other_weights_are_refused_by_name(published, tmp_path, kind):
    tensors = publish(published[0])
    if kind == "shape":
        tensors["_conv_stem.weight"] = torch.zeros(8, 3, 3, 3)
    wrong = tmp_path / "wrong.pth"
    torch.save({"a": torch.zeros(1)} if kind == "other" else tensors, wrong)
    if kind == "text":
        wrong.write_text("not tensors")
    with pytest.raises(CheckpointError, match=r"wrong\.pth: (holds no weights of Eff|cannot be)"):
        begin_lite(wrong)
