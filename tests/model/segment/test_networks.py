import pytest
import torch
from safetensors.torch import save_file

from tests.model.segment.networks import INFO, make_segmenter
from wsiseg.errors import CheckpointError, ConfigError
from wsiseg.model.checkpoint import write_checkpoint
from wsiseg.model.encoders.segformer import WIDTHS, MixTransformer
from wsiseg.model.segment import NETWORKS, begin_network
from wsiseg.model.segment.presence import pool_evidence, pool_shares
from wsiseg.model.segment.source import load_segmenter, save_segmenter


@pytest.mark.parametrize("name", ["ensemble", "lite", "small", "segformer-b0"])
def test_folded_it_is_the_same_function(name):
    torch.manual_seed(0)
    network = begin_network(name, 3, {})
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        network.train()(images)  # so that its norms have seen something
        wanted, found = network.eval()(images), network.folded()(images)
    assert found.logits.shape == (2, 3, 16, 24)
    assert found.evidence.shape == (2, 3, 4, 6)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["ensemble", "lite", "small"])
def test_a_u_net_sees_a_crop_as_the_image(name):
    """But for its border, which its context takes."""
    source = make_segmenter(name)
    image = torch.rand(1, 3, 384, 384)
    with torch.inference_mode():
        whole, part = source.cams(image), source.cams(image[:, :, 64:320, 64:320])
    inner = whole[:, :, 32:64, 32:64]
    assert (part[:, :, 16:48, 16:48] - inner).abs().max() < 0.1 * inner.std()


def test_a_checkpoint_comes_back(tmp_path):
    source = make_segmenter("small")
    path = save_segmenter(source.network, INFO, tmp_path / "m.safetensors")
    loaded, images = load_segmenter(path), torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(loaded.look(images), source.look(images))
    assert loaded.info.first_stage == INFO.first_stage
    again = save_segmenter(loaded.network, INFO, tmp_path / "again.safetensors")
    assert again.read_bytes() == path.read_bytes()


def test_tensors_of_another_network_are_refused(tmp_path):
    from dataclasses import replace

    network = make_segmenter("small").network
    other = save_segmenter(network, replace(INFO, encoder="segformer-b0"), tmp_path / "a.st")
    with pytest.raises(CheckpointError, match=r"a\.st: its tensors do not fit network 'segformer-"):
        load_segmenter(other)
    unknown = save_segmenter(network, replace(INFO, encoder="unet"), tmp_path / "b.st")
    with pytest.raises(CheckpointError, match=r"b\.st: network 'unet' is unknown; known are ens"):
        load_segmenter(unknown)
    with torch.no_grad():
        next(network.parameters()).fill_(float("nan"))
    broken = save_segmenter(network, INFO, tmp_path / "c.st")
    with pytest.raises(CheckpointError, match=r"c\.st: .* holds values that are not finite"):
        load_segmenter(broken)


def test_segformer_begins_as_a_file_of_its_size(tmp_path):
    body = MixTransformer((4, 2, 2, 2), WIDTHS["b0"])
    names = {"stages.0.proj.weight": "patch_embed1.proj.weight"}
    from wsiseg.model.encoders.segformer import _name_sources

    for ours, theirs in _name_sources(body.state_dict(), hub=False).items():
        names[ours] = theirs[0]
    save_file({names[n]: t for n, t in body.state_dict().items()}, tmp_path / "model.safetensors")
    network = begin_network("segformer-b0", 3, {"weights": str(tmp_path)})
    assert network.begun.startswith("mit-b0-")
    for name, tensor in body.state_dict().items():
        assert torch.equal(network.body.state_dict()[name], tensor), name
    assert all(parameter.requires_grad for parameter in network.parameters())
    with pytest.raises(CheckpointError, match="a SegFormer MiT-B1 encoder"):
        begin_network("segformer-b1", 3, {"weights": str(tmp_path)})


def test_names_and_options_are_checked():
    with pytest.raises(
        ConfigError, match=r"network 'x' is unknown; known are ensemble, lite, small"
    ):
        begin_network("x", 3, {})
    for name in NETWORKS:
        with pytest.raises(ConfigError, match="has no option 'depth'; it takes weights"):
            begin_network(name, 3, {"depth": 1})


def test_a_checkpoint_of_before_there_was_evidence_goes_by_its_cams(tmp_path):
    source, images = make_segmenter("small"), torch.rand(1, 3, 64, 64)
    kept = {
        name: tensor
        for name, tensor in source.network.state_dict().items()
        if not name.startswith("presence.")
    }
    old = load_segmenter(write_checkpoint(kept, INFO, tmp_path / "old.safetensors"))
    with torch.inference_mode():
        seen = old.look(images)
        assert torch.equal(seen, source.cams(images))
        assert torch.equal(old.pool(seen), pool_shares(seen))
    partly = kept | {"presence.weight": source.network.presence.weight.detach()}
    with pytest.raises(CheckpointError, match=r"its tensors do not fit network 'small'"):
        load_segmenter(write_checkpoint(partly, INFO, tmp_path / "part.safetensors"))


def test_a_class_is_as_sure_as_the_fifth_of_the_cells_that_show_it_most():
    evidence = torch.full((1, 2, 10, 10), -5.0)
    evidence[0, 0, :2], evidence[0, 1, 0] = 3, 3
    assert pool_evidence(evidence).tolist() == [[3, -1]]
    known = torch.zeros(1, 10, 10, dtype=torch.bool)
    known[:, 1:6] = True
    assert pool_evidence(evidence, known).tolist() == [[3, -5]]


def test_without_evidence_a_class_shows_where_a_twentieth_is_likely():
    cams = torch.full((1, 3, 10, 10), -5.0)
    cams[:, 2] = 5  # background everywhere ...
    cams[0, 0, 0, :5], cams[0, 2, 0, :5] = 5, -5  # ... but in five of a hundred places
    logits = pool_shares(cams)[0]
    assert (logits > 0).tolist() == [True, False, True]
    known = torch.zeros(1, 10, 10, dtype=torch.bool)
    known[:, 5:] = True
    assert (pool_shares(cams, known)[0] > 0).tolist() == [False, False, True]
