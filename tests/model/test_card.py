import pytest
import yaml
from pydantic import BaseModel

from wsiseg.errors import ConfigError
from wsiseg.model.card import Calibration, Card, DataSource, Score, load_card
from wsiseg.settings import describe_fields

NAMES = ("Tumor", "Stroma")
WHOLE = {
    "title": "Two tissues",
    "summary": "Tells tumour from stroma.",
    "intended_use": "Trying cards.",
    "limits": ["Frozen sections."],
    "classes": {"Tumor": "invasive carcinoma"},
    "mpp_range": [0.4, 0.6],
    "data": [{"name": "A", "licence": "CC-BY-4.0", "attribution": "A's authors", "slides": 3}],
    "labels": "drawn by hand",
    "scores": [
        {
            "protocol": "deploy", "metric": "IoU", "over": "pixels", "value": 0.7, "low": 0.6,
            "high": 0.8, "by_class": {"Tumor": 0.8, "Stroma": 0.6, "background": None},
            "by_slide": {"a": 0.7},
        }
    ],
    "calibration": {
        "method": "temperature", "fitted_on": "two slides", "ece": 0.04,
        "bins": [[0.55, 0.6, 100], [0.95, 0.9, 300]],
    },
    "references": ["https://example.org"],
    "licence": "Apache-2.0",
}  # fmt: skip


def write(folder, card):
    path = folder / "card.yaml"
    path.write_text(yaml.safe_dump(card))
    return path


def test_a_card_comes_back_as_it_was_written(tmp_path):
    card = load_card(write(tmp_path, WHOLE), NAMES)
    assert card.data == (
        DataSource(name="A", licence="CC-BY-4.0", attribution="A's authors", slides=3),
    )
    assert card.scores[0].by_class == {"Tumor": 0.8, "Stroma": 0.6, "background": None}
    assert card.calibration.bins == ((0.55, 0.6, 100), (0.95, 0.9, 300))
    assert Card.model_validate_json(card.model_dump_json()) == card


def test_an_empty_card_claims_nothing(tmp_path):
    assert load_card(write(tmp_path, {}), NAMES) == Card()
    assert not any(Card().model_dump().values())


@pytest.mark.parametrize("model", [Card, DataSource, Score, Calibration])
def test_every_field_is_described(model: type[BaseModel]):
    for name in model.model_fields:
        assert describe_fields(model).get(name), f"{model.__name__}.{name} has no docstring"


def changed(**fields):
    return WHOLE | fields


def score(**fields):
    return changed(scores=[WHOLE["scores"][0] | fields])


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (changed(licens="MIT"), r"card\.yaml: licens is not a setting; did you mean 'licence'"),
        (changed(data=[{"nam": "A"}]), r"data\.0\.nam is not a setting; did you mean 'name'"),
        (changed(data=[{"licence": "MIT"}]), r"data\.0\.name = .*Field required"),
        (changed(data=[{"name": "A", "slides": -1}]), r"data\.0\.slides = -1"),
        (changed(calibration={"methods": "x"}), r"did you mean 'method'"),
        (changed(calibration={"method": "x", "ece": 1.5}), r"calibration\.ece = 1\.5"),
        (
            changed(calibration={"method": "x", "bins": [[0.5, 1.5, 3]]}),
            r"calibration\.bins\.0\.1 = 1\.5",
        ),
        (changed(mpp_range=[0.6, 0.4]), r"mpp_range = \[0\.6, 0\.4\]: .* lowest first, above 0"),
        (changed(mpp_range=[0, 0.4]), r"mpp_range = .*0 to 0\.4: lowest first, above 0"),
        (score(value=float("nan")), r"scores\.0\.value = nan"),
        (score(high=None), r"scores\.0\.high = None: .*give both or neither"),
        (score(low=0.9), "low 0.9 is above high 0.8"),
        (changed(classes={"Fat": "x"}), r"card\.yaml: classes names 'Fat'; .* Tumor, Stroma"),
        (score(by_class={"Fat": 0.1}), r"scores\.0\.by_class names 'Fat'"),
    ],
)
def test_what_a_card_refuses(tmp_path, card, message):
    with pytest.raises(ConfigError, match=message):
        load_card(write(tmp_path, card), NAMES)


def test_a_missing_card_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        load_card(tmp_path / "none.yaml", NAMES)
