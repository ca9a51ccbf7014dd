import json
import subprocess
import sys

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from wsiseg.config import Config, PredictConfig, TileConfig
from wsiseg.errors import CheckpointError
from wsiseg.model.catalog import SHIPPED
from wsiseg.model.scale import Scale, describe_mismatch, read_scale, settle_scale


def taught_at(path, mpp, tile):
    """The checkpoint `tiny`, which says that its patches had another scale."""
    with safe_open(SHIPPED["tiny"], "pt") as file:
        plain = json.loads(file.metadata()["wsiseg"])
    text = json.dumps(plain | {"mpp": mpp, "tile": tile})
    save_file(load_file(SHIPPED["tiny"]), path, {"wsiseg": text})
    return path


@pytest.fixture
def checkpoint(tmp_path):
    return taught_at(tmp_path / "m.safetensors", 0.25, 512)


def test_what_is_null_is_the_checkpoints(checkpoint):
    found = settle_scale(Config(predict=PredictConfig(checkpoint=str(checkpoint)))).tile
    assert found.tiling == (0.25, 512, 512, 1024)
    assert found == TileConfig(mpp=0.25, tile=512, stride=512, block=1024)


def test_what_is_given_stays(checkpoint):
    given = TileConfig(mpp=1.0, tile=224)
    config = Config(tile=given, predict=PredictConfig(checkpoint=str(checkpoint)))
    assert settle_scale(config).tile.tiling == (1.0, 224, 224, 1792)
    half = config.model_copy(update={"tile": TileConfig(tile=256)})
    assert settle_scale(half).tile.tiling == (0.25, 256, 256, 1792)


@pytest.mark.parametrize("name", ["tissue", "tiny"])
def test_the_shipped_ones_are_tiled_as_before(name):
    config = Config(predict=PredictConfig(checkpoint=name))
    assert settle_scale(config).tile == TileConfig(mpp=0.5, tile=224, stride=224, block=1792)


@pytest.mark.parametrize(("window", "tile"), [(None, 224), (448, 448)])
def test_prompts_are_tiled_by_their_window(window, tile):
    predict = PredictConfig(prompts="any.yaml", prompt_window=window)
    assert settle_scale(Config(predict=predict)).tile.tiling[:2] == (0.5, tile)


@pytest.mark.parametrize(
    ("tile", "stride", "block"),
    [(64, 64, 1792), (224, 56, 1792), (300, 300, 1200), (2048, 2048, 2048), (224, 100, 1792)],
)
def test_blocks_are_whole_tiles_near_the_usual_size(tile, stride, block):
    assert TileConfig(tile=tile, stride=stride).tiling.block == block


def test_a_missing_checkpoint_is_told(tmp_path):
    settings = PredictConfig(checkpoint=str(tmp_path / "none.safetensors"))
    with pytest.raises(CheckpointError, match=r"none\.safetensors: no such checkpoint"):
        settle_scale(Config(predict=settings))
    given = Config(tile=TileConfig(mpp=0.5, tile=224), predict=settings)
    assert settle_scale(given).tile.tiling.block == 1792, "nothing hangs on it"


def test_a_mismatch_names_both(checkpoint):
    taught = read_scale(PredictConfig(checkpoint=str(checkpoint)))
    assert taught == Scale(0.25, 512)
    first, second = describe_mismatch(0.5, 224, taught)
    assert first.startswith("its tiles have 0.5 µm/px, the checkpoint was trained at 0.25")
    assert second.startswith("its tiles have 224 px a side, the checkpoint was trained at 512")
    assert describe_mismatch(0.253, 512, taught) == ()
    assert describe_mismatch(0.5, 224, Scale(None, None)) == ()


def test_no_torch_is_loaded():
    code = (
        "import sys; from wsiseg.config import Config; from wsiseg.model.scale import settle_scale;"
        "settle_scale(Config()); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
