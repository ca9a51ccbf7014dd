"""What `--map` says, as it is parsed, advised and given to a shell."""

import json
import re
import shlex

import pytest
from typer.testing import CliRunner

from wsiseg.annotations import Palette
from wsiseg.cli import app
from wsiseg.errors import ConfigError
from wsiseg.labels.names import find_lookalikes, format_map, parse_map

from .slides import make_store
from .test_forms import collection, feature, polygon, square


def test_pairs_are_parsed():
    text = "Tumour=Tumor, Tumor: invasive = Tumor ,Artefact="
    assert parse_map(text) == {"Tumour": "Tumor", "Tumor: invasive ": "Tumor", "Artefact": ""}
    assert parse_map(' {" a, b": "a=b "}') == {" a, b": "a=b "}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b=c", "--map 'a' needs the form old=new; names with commas or equals signs are given"),
        ("=a", "--map '=a' needs the form old=new"),
        ("a=b,a=c", "--map gives 'a' two meanings: 'b' and 'c'"),
        ('{"a": "b", "a": "c"}', "--map gives 'a' two meanings: 'b' and 'c'"),
        ('{"a"=b}', "begins as JSON, but is none"),
        ('{"a": 1}', "'a': 1 is not one name for another"),
    ],
)
def test_what_is_no_map_is_explained(text, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_map(text)


@pytest.mark.parametrize(
    "mapping",
    [
        {"Tumour": "Tumor", "Tumor: invasive": "Tumor", "Artefact": ""},
        {" Tumor ": "Tumor", "tumor\t": "Tumor"},
        {"a,b": 'a"b', "it's": "$HOME", "a=b": "a\\b", "`a`": "a!", "{a}": "a\nb"},
        {"Müller": "日本", "😀": "yes", "1": "null"},
    ],
)
def test_the_option_says_the_same_after_a_shell(mapping):
    option, text = shlex.split(format_map(mapping))
    assert option == "--map"
    assert parse_map(text) == mapping


def test_a_name_with_blanks_around_it_is_not_the_one_to_keep():
    counts = {" Tumor ": 9, "Tumor": 1, "tumor": 3}
    assert find_lookalikes(counts) == [("tumor", "Tumor", " Tumor ")]


@pytest.mark.parametrize(
    "names", [(" Tumor ", "Tumor", "tumor"), ("a,b", 'a"b', "a=b"), ("Fett 😀", "fett 😀")]
)
def test_what_label_advises_works(tmp_path, names):
    store = make_store(tmp_path)
    drawn = collection(*(feature(n, polygon(square(i, 0))) for i, n in enumerate(names)))
    (tmp_path / "one.geojson").write_text(json.dumps(drawn))
    arguments = ["label", str(tmp_path / "one.geojson"), str(store.path), "-o", str(tmp_path / "o")]
    advised = CliRunner().invoke(app, arguments).output
    joined, apart = re.findall(r"""--map (?:"[^\n]*?"|'[^\n]*?')(?=, or|\n)""", advised)
    for option, kept in ((joined, 1), (apart, len(names))):
        done = CliRunner().invoke(app, [*arguments, *shlex.split(option)])
        assert done.exit_code == 0, done.output
        assert "look like one class" not in done.output
        rows = (tmp_path / "o" / "labels.csv").read_text().splitlines()
        assert len(rows) == 1 + kept


def test_a_name_is_compared_with_the_classes_of_the_map(tmp_path):
    store = make_store(tmp_path)
    store.create_cams(Palette(("Epithelium", "Stroma"), ((0, 0, 0), (1, 1, 1))), 4, 4)
    drawn = collection(feature("Epithelum", polygon(square(0, 0))))
    (tmp_path / "one.geojson").write_text(json.dumps(drawn))
    arguments = [str(tmp_path / "one.geojson"), str(tmp_path), "-o", str(tmp_path / "labelled")]
    done = CliRunner().invoke(app, ["label", *arguments])
    assert '--map "Epithelum=Epithelium"' in done.output
