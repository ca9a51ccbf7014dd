import pytest
from safetensors import safe_open
from safetensors.torch import load_file

from wsiseg.errors import CheckpointError, ConfigError
from wsiseg.model.card import Card
from wsiseg.model.card_file import with_card
from wsiseg.model.checkpoint import find_checkpoint, load_checkpoint, read_info

CARD = Card(title="Für Versuche", classes={"Tumor": "painted blobs"}, licence="Apache-2.0")


def tensor_bytes(path):
    data = path.read_bytes()
    return data[8 + int.from_bytes(data[:8], "little") :]


def test_only_the_card_changes(tmp_path):
    out = with_card("tiny", CARD, tmp_path / "new" / "m.safetensors")
    assert tensor_bytes(out) == tensor_bytes(find_checkpoint("tiny"))
    assert load_file(out).keys() == load_file(find_checkpoint("tiny")).keys()
    before, after = read_info("tiny"), read_info(out)
    assert (before.card, after.card) == (None, CARD)
    changed = {"card", "sha256"}
    assert {k: v for k, v in vars(after).items() if k not in changed} == {
        k: v for k, v in vars(before).items() if k not in changed
    }
    load_checkpoint(out)


def test_the_header_keeps_to_multiples_of_eight(tmp_path):
    for length in range(8):
        out = with_card("tiny", Card(title="x" * length), tmp_path / f"{length}.safetensors")
        assert int.from_bytes(out.read_bytes()[:8], "little") % 8 == 0
        with safe_open(out, "pt") as file:
            assert file.keys()


def test_nothing_is_written_over_unless_told(tmp_path):
    path = with_card("tiny", CARD, tmp_path / "m.safetensors")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"m\.safetensors: already exists"):
        with_card(path, Card(), path)
    assert path.read_bytes() == before
    with_card(path, Card(title="again"), path, overwrite=True)
    assert read_info(path).card == Card(title="again")
    assert tensor_bytes(path) == tensor_bytes(find_checkpoint("tiny"))


def test_a_card_of_other_classes_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"the card: classes names 'Fat'; .* are Tumor, Stroma"):
        with_card("tiny", Card(classes={"Fat": "x"}), tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


def test_what_is_no_checkpoint_is_named(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"not safetensors at all")
    with pytest.raises(CheckpointError, match=r"a\.safetensors: is not a safetensors file"):
        with_card(tmp_path / "a.safetensors", CARD, tmp_path / "b.safetensors")
