from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.test_config import CONFIGS, fields
from wsiseg.errors import ConfigError
from wsiseg.model.prompt_file import PromptSet, read_prompts
from wsiseg.settings import describe_fields

FILES = sorted((CONFIGS / "prompts").glob("*.yaml"))
TWO = {
    "classes": [
        {"name": "Tumor", "color": [200, 0, 0], "prompts": ["carcinoma", "cancer"]},
        {"name": "Stroma", "color": [0, 200, 0], "prompts": ["fibers"], "sentences": ["It is {}."]},
    ],
    "templates": ["{}.", "an image of {}."],
    "background": ["glass", "pen"],
}


def write(path: Path, **changes: object) -> Path:
    path.write_text(yaml.safe_dump({**TWO, **changes}))
    return path


def test_every_phrasing_is_put_into_every_template(tmp_path: Path) -> None:
    prompts = read_prompts(write(tmp_path / "p.yaml"))
    assert prompts.texts() == [
        ["carcinoma.", "cancer.", "an image of carcinoma.", "an image of cancer."],
        ["fibers.", "an image of fibers.", "It is {}."],
        ["glass.", "an image of glass."],
        ["pen.", "an image of pen."],
    ]
    assert (prompts.channels, len(prompts.palette)) == (4, 2)
    assert prompts.palette.names == ("Tumor", "Stroma")
    assert prompts.palette.colors[0] == (200, 0, 0)


def test_the_files_that_come_with_wsiseg_can_be_read() -> None:
    assert [path.stem for path in FILES] == ["breast", "colon", "generic", "lung", "skin"]
    for path in FILES:
        prompts = read_prompts(path)
        assert len(set(prompts.palette.colors)) == len(prompts.classes), path
        assert prompts.background, path
        assert all(len(one.prompts) > 1 for one in prompts.classes), path
        said = [text for channel in prompts.texts() for text in channel]
        assert len(set(said)) == len(said), path


def test_breast_holds_the_papers_prompts() -> None:
    """Table 1: those of the released code, but for its abbreviations and curly quotes."""
    from tests.model.encoders.test_conch_text import TEXTS

    prompts = read_prompts(CONFIGS / "prompts" / "breast.yaml")
    assert [text for one in prompts.classes for text in one.sentences] == TEXTS["text/paper"]


def test_every_field_is_described() -> None:
    for owner, name, _ in (
        *fields(PromptSet),
        *fields(type(read_prompts(FILES[0]).classes[0])),
    ):
        assert describe_fields(owner).get(name), f"{owner.__name__}.{name} has no docstring"


STROMA = {"name": "Stroma", "color": [0, 0, 0]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backgrund": []}, r"p\.yaml: backgrund is not a setting; did you mean 'background'"),
        ({"classes": [{**STROMA, "prompt": ["a"]}]}, "classes.0.prompt .* did you mean 'prompts'"),
        ({"classes": []}, "has 0 classes; there must be 1 to 254"),
        ({"classes": [STROMA]}, "class 'Stroma' has no prompts"),
        ({"classes": TWO["classes"] * 2}, "class 'Tumor' appears 2 times"),
        ({"classes": [{**STROMA, "prompts": ["a", " "]}]}, "holds an empty prompt"),
        ({"background": [""]}, "holds an empty prompt"),
        ({"templates": []}, "has no templates; leave them out"),
        ({"templates": ["an image"]}, r"template 'an image' must hold \{\} once"),
        ({"templates": ["{} and {}"]}, r"must hold \{\} once, where the phrasing goes"),
        ({"temperature": 0}, "temperature = 0"),
        ({"classes": [{**STROMA, "color": [0, 0, 256], "prompts": ["a"]}]}, "color.2 = 256"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read_prompts(write(tmp_path / "p.yaml", **changes))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        read_prompts(tmp_path / "none.yaml")
