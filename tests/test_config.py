from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from wsiseg.config import Config, TrainConfig, digest_of, load_config
from wsiseg.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def fields(model):
    for name, field in model.model_fields.items():
        yield model, name, field
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation)


@pytest.mark.parametrize("model", [Config, TrainConfig])
def test_every_field_is_described(model):
    for owner, name, field in fields(model):
        assert field.description, f"{owner.__name__}.{name} has no docstring"


def test_default_yaml_holds_every_field_with_its_default():
    raw = yaml.safe_load((CONFIGS / "default.yaml").read_text())
    assert raw == Config().model_dump(mode="json")
    assert load_config(CONFIGS / "default.yaml", Config) == Config()


def test_the_other_configs_load():
    assert load_config(CONFIGS / "overlap.yaml", Config).tile.stride == 112
    assert load_config(CONFIGS / "train_tiny.yaml", TrainConfig) == TrainConfig()


def test_unknown_key_names_the_closest(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("tile:\n  strid: 3\n")
    with pytest.raises(ConfigError, match=r"c\.yaml: tile\.strid .* did you mean 'stride'"):
        load_config(path, Config)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n", "holds a list"),
        ("a: [", "not valid YAML"),
        ("tile:\n  mpp: -1\n", "tile.mpp = -1"),
        ("stitch:\n  crf:\n    iteration: 1\n", "did you mean 'iterations'"),
    ],
)
def test_bad_files_are_explained(tmp_path, text, message):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(path, Config)


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "none.yaml", Config)


def test_digest_depends_on_every_part():
    base = digest_of("tile", Config(), 1)
    assert base == digest_of("tile", Config(), 1)
    assert len({base, digest_of("tile", Config(), 2), digest_of("stitch", Config(), 1)}) == 3
