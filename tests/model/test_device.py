import numpy as np
import pytest
import torch

from wsiseg.errors import ConfigError
from wsiseg.model import device as device_module
from wsiseg.model.device import (
    blocks_at_once,
    check_devices,
    lend_device,
    open_device,
    planning_device,
)
from wsiseg.model.feed import feed


def test_blocks_share_several_devices(monkeypatch):
    names = "cuda:0, cuda:1"
    assert blocks_at_once("cpu") == 0
    monkeypatch.setattr(device_module, "_is_available", lambda device: device.index != 2)
    assert check_devices(names) == [torch.device("cuda:0"), torch.device("cuda:1")]
    assert blocks_at_once(names) == blocks_at_once("cuda:0,cuda:1,cuda:2") == 4
    with lend_device(names, 0) as first, lend_device(names, 0) as second:
        assert {first.index, second.index} == {0, 1}
        with lend_device(names, 0) as third:
            assert third.index == 0
        with lend_device(names, 1) as fourth:
            assert fourth.index == 1
    with pytest.raises(ConfigError, match="'cuda:0,cuda:0': names the same device twice"):
        check_devices("cuda:0,cuda:0")
    with pytest.raises(ConfigError, match="device 'gpu' is unknown"):
        check_devices("cuda:0,gpu")


@pytest.mark.parametrize("name", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_batches_arrive_in_order_and_whole(name):
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 256, (n, 64, 48, 3), np.uint8) for n in (7, 7, 1)]
    for batch, images in zip(batches, feed(iter(batches), torch.device(name)), strict=True):
        wanted = batch.transpose(0, 3, 1, 2).astype(np.float32) / 255
        np.testing.assert_allclose(images.cpu().numpy(), wanted, rtol=1e-6)
    assert list(feed([], torch.device(name))) == []


def test_devices():
    assert planning_device("cpu") == planning_device("cuda:99") == torch.device("cpu")
    with pytest.raises(ConfigError, match="device 'gpu' is unknown"):
        planning_device("gpu")
    assert open_device("cpu") == torch.device("cpu")
    assert open_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ConfigError, match="device 'gpu' is unknown; use auto, cpu, cuda"):
        open_device("gpu")
    with pytest.raises(ConfigError, match="device 'meta' is not supported"):
        open_device("meta")
    with pytest.raises(ConfigError, match="device 'cuda:99' is not available: torch sees"):
        open_device("cuda:99")
