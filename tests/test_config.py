from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from wsiseg.config import (
    Config,
    DistillConfig,
    EvaluateConfig,
    TrainConfig,
    digest_of,
    load_config,
    parse_config,
)
from wsiseg.errors import ConfigError
from wsiseg.model.card import Card
from wsiseg.settings import describe_fields

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def fields(model):
    for name, field in model.model_fields.items():
        yield model, name, field
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation)


@pytest.mark.parametrize("model", [Config, TrainConfig, DistillConfig])
def test_every_field_is_described(model):
    for owner, name, _ in fields(model):
        assert describe_fields(owner).get(name), f"{owner.__name__}.{name} has no docstring"


def test_default_yaml_holds_every_field_with_its_default():
    raw = yaml.safe_load((CONFIGS / "default.yaml").read_text())
    assert raw == Config().model_dump(mode="json")
    assert load_config(CONFIGS / "default.yaml", Config) == Config()


def test_the_other_configs_load():
    assert load_config(CONFIGS / "overlap.yaml", Config).tile.stride == 112
    assert load_config(CONFIGS / "train_tiny.yaml", TrainConfig) == TrainConfig()
    raw = yaml.safe_load((CONFIGS / "train_tiny.yaml").read_text())
    assert raw.keys() == TrainConfig.model_fields.keys()
    assert load_config(CONFIGS / "evaluate.yaml", EvaluateConfig) == EvaluateConfig()
    raw = yaml.safe_load((CONFIGS / "evaluate.yaml").read_text())
    assert raw == EvaluateConfig().model_dump(mode="json")
    assert load_config(CONFIGS / "distill.yaml", DistillConfig) == DistillConfig()
    raw = yaml.safe_load((CONFIGS / "distill.yaml").read_text())
    assert raw == DistillConfig().model_dump(mode="json")


def test_the_card_to_fill_in_holds_every_field_and_claims_nothing():
    raw = yaml.safe_load((CONFIGS / "card.yaml").read_text())
    assert raw.keys() == Card.model_fields.keys()
    assert load_config(CONFIGS / "card.yaml", Card) == Card()


@pytest.mark.parametrize("name", ["bcss", "luad"])
def test_the_papers_configs_hold_every_field(name):
    raw = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    assert raw.keys() == TrainConfig.model_fields.keys()
    config = load_config(CONFIGS / f"{name}.yaml", TrainConfig)
    assert (config.preset, config.encoder, len(config.prompts)) == ("reference", "conch", 4)


@pytest.mark.parametrize("model", [DistillConfig, EvaluateConfig, TrainConfig])
def test_a_seed_is_one_of_every_generator(model):
    assert parse_config({"seed": 2**63 - 1}, model, "test").seed == 2**63 - 1
    for seed in (-1, 2**63):
        with pytest.raises(ConfigError, match="seed = "):
            parse_config({"seed": seed}, model, "test")


ABLATIONS = {
    "without_distillation": {"struct_weight": 0.0},
    "without_contrast": {"contrast_weight": 0.0},
    "guidance_0": {"guidance_levels": (0,)},
    "guidance_1": {"guidance_levels": (1,)},
    "guidance_3": {"guidance_levels": (3,)},
    "guidance_all": {"guidance_levels": (0, 1, 2, 3)},
    "random_prototypes": {"prototypes": "random"},
    "prototypes_2": {"prototypes_per_class": 2},
    "prototypes_3": {"prototypes_per_class": 3},
    "image_prototypes": {"prototypes": "images"},
    "image_prototypes_3": {"prototypes": "images", "prototypes_per_class": 3},
    "both_prototypes": {"prototypes": "both"},
    "diverse_prototypes_3": {"prototypes_per_class": 3, "diversity_weight": 0.5},
    "cam_level_2": {"cam_levels": (2,)},
    "cam_fused": {"cam_levels": (2, 3)},
    "cam_overlap": {"cam_overlap": 2},
}


def test_each_ablation_changes_one_thing():
    base = load_config(CONFIGS / "bcss.yaml", TrainConfig)
    assert {path.stem for path in (CONFIGS / "ablations").iterdir()} == ABLATIONS.keys()
    for name, change in ABLATIONS.items():
        wanted = base.model_copy(update={"preset": "paper", **change})
        assert load_config(CONFIGS / "ablations" / f"{name}.yaml", TrainConfig) == wanted, name


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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": []}, r"classes = \[\]: .*at least 1 item"),
        ({"classes": ["A", "B", "A"]}, "classes = .*'A' occurs 2 times"),
        ({"classes": ["A", " "]}, "classes = .*' ' is not a class name"),
        ({"colors": [[0, 0, 256]]}, r"colors\.0\.2 = 256: .*less than or equal to 255"),
        ({"colors": [[0, -1, 0]]}, r"colors\.0\.1 = -1: .*greater than or equal to 0"),
    ],
)
def test_classes_and_colours_are_checked_as_they_are_read(settings, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(settings, TrainConfig, "t.yaml")


@pytest.mark.parametrize(
    "name",
    [
        "tile.mpp", "tissue.mpp", "tissue.closing_um", "stitch.smooth_um", "stitch.crf.smooth_sxy",
        "stitch.crf.appearance_srgb", "outline.simplify_um", "export.max_mb",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan"])
def test_no_setting_is_endless(tmp_path, name, value):
    path = tmp_path / "c.yaml"
    path.write_text(f"{{{name.replace('.', ': {')}: {value}{'}' * (name.count('.') + 1)}\n")
    with pytest.raises(ConfigError, match=rf"c\.yaml: {name} = -?(inf|nan): .* finite number"):
        load_config(path, Config)


def test_a_part_of_the_crf_does_not_change_its_back_end():
    found = parse_config({"crf": {"iterations": 3}}, EvaluateConfig, "e.yaml").crf
    assert found == EvaluateConfig().crf.model_copy(update={"iterations": 3})
    other = parse_config({"crf": {"backend": "torch"}}, EvaluateConfig, "e.yaml").crf
    assert other.backend == "torch"


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "none.yaml", Config)


def test_digest_depends_on_every_part():
    base = digest_of("tile", Config(), 1)
    assert base == digest_of("tile", Config(), 1)
    assert len({base, digest_of("tile", Config(), 2), digest_of("stitch", Config(), 1)}) == 3
