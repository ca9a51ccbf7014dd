from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from tests.model import golden
from wsiseg.errors import CheckpointError

tokenizers = pytest.importorskip("tokenizers", reason="pip install 'wsiseg[encoders]'")
pytest.importorskip("timm", reason="pip install 'wsiseg[encoders]'")
pytest.importorskip("open_clip", reason="pip install 'wsiseg[encoders]'")

from wsiseg.model.encoders.conch import ConchEncoder  # noqa: E402 - after the skips
from wsiseg.model.encoders.conch_text import (  # noqa: E402
    find_tokenizer,
    look_up,
    read_texts,
    tokenize,
    write_texts,
)

ROOT = Path(__file__).resolve().parents[3]
SPECIAL = ["<pad>", "<start_of_text>", "<end_of_text>"]


def write_tokenizer(path: Path, size: int = 32007) -> dict[str, int]:
    """A tokenizer of CONCH's kind and size that knows single letters and `Ġtu`."""
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    names = [*SPECIAL, *letters, "tu", "Ġtu"]
    names += [f"<unused{number}>" for number in range(size - len(names))]
    vocabulary = {name: number for number, name in enumerate(names)}
    model = tokenizers.models.BPE(vocabulary, [("t", "u"), ("Ġ", "tu")])
    made = tokenizers.Tokenizer(model)
    made.normalizer = tokenizers.normalizers.Sequence(
        [
            tokenizers.normalizers.NFD(),
            tokenizers.normalizers.StripAccents(),
            tokenizers.normalizers.Lowercase(),
        ]
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.enable_truncation(4)  # a file's own settings must not matter
    made.enable_padding(length=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save(str(path))
    return vocabulary


def test_tokens_begin_with_the_spaced_word_and_lose_accents(tmp_path: Path) -> None:
    ids = write_tokenizer(tmp_path / "t.json")
    found = tokenize(["Túm é", ""], tmp_path / "t.json")
    wanted = [1, ids["Ġtu"], ids["m"], ids["Ġ"], ids["e"], 2]
    assert found[0].tolist() == wanted + [0] * (127 - len(wanted))
    assert found[1].tolist() == [1, 2] + [0] * 125


def test_long_texts_are_cut_but_keep_their_end(tmp_path: Path) -> None:
    ids = write_tokenizer(tmp_path / "t.json")
    found = tokenize(["x" * 500], tmp_path / "t.json")
    assert found[0].tolist() == [1, ids["Ġ"], *[ids["x"]] * 124, 2]


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "t.json", size=1000)
    with pytest.raises(CheckpointError, match=r"not CONCH's tokenizer: 1000 entries .* 32007"):
        tokenize(["a"], tmp_path / "t.json")


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(json.dumps({"no": "tokenizer"}))
    with pytest.raises(CheckpointError, match=r"t\.json: is not a tokenizer file"):
        tokenize(["a"], tmp_path / "t.json")


def test_a_missing_tokenizer_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.json: no such file; CONCH's tokenizer is"):
        find_tokenizer(tmp_path / "gone.json")


def test_the_tokenizer_of_an_installed_conch_package_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "conch" / "open_clip_custom" / "tokenizers"
    write_tokenizer(folder / "conch_byte_level_bpe_uncased.json")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_tokenizer(None) == folder / "conch_byte_level_bpe_uncased.json"
    assert "conch" not in sys.modules


def test_without_any_tokenizer_the_error_says_what_to_give(hollow_conch: Path) -> None:
    encoder = ConchEncoder(hollow_conch)
    with pytest.raises(CheckpointError, match="give the path of conch_byte_level_bpe_uncased"):
        encoder.embed_text(["tumour"])


@pytest.mark.slow
def test_texts_are_embedded_saved_and_looked_up(conch_file: Path, tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "t.json")
    prompts = ["tumour"]
    encoder = ConchEncoder(conch_file, tokenizer=tmp_path / "t.json")
    encoder.save_texts(prompts, tmp_path / "texts.safetensors")
    wanted = encoder.embed_tokens(tokenize(prompts, tmp_path / "t.json"))
    without = ConchEncoder(conch_file, texts=tmp_path / "texts.safetensors")
    assert torch.equal(without.embed_text(prompts), wanted)


def test_texts_are_looked_up_in_any_order(tmp_path: Path) -> None:
    made = write_texts(["a", "b"], torch.eye(2), tmp_path / "texts.safetensors", "0" * 64)
    assert look_up(["b", "a", "b"], read_texts(made, "0" * 64)).tolist() == [[0, 1], [1, 0], [0, 1]]


def test_an_unknown_text_is_named() -> None:
    with pytest.raises(CheckpointError, match="text 'b' is not among the 1 embedded ones"):
        look_up(["a", "b"], {"a": torch.zeros(2)})


def test_texts_of_other_weights_are_refused(hollow_conch: Path, tmp_path: Path) -> None:
    path = write_texts(["a"], torch.zeros(1, 512), tmp_path / "texts.safetensors", "0" * 64)
    with pytest.raises(CheckpointError, match="embedded with weights 0000000000000000, these are"):
        ConchEncoder(hollow_conch, texts=path)


def test_a_file_that_holds_no_texts_is_refused(tmp_path: Path) -> None:
    save_file({"embeddings": torch.zeros(1, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="is not a file of text embeddings"):
        read_texts(tmp_path / "other.safetensors", "0" * 64)


STRAIGHT = {ord(quote): '"' for quote in "“”"}
PROMPTS = yaml.safe_load((ROOT / "configs" / "bcss.yaml").read_text())["prompts"]
TEXTS = {
    "text/yaml": PROMPTS,
    # Table 1: no abbreviations, straight quotes.
    "text/paper": [re.sub(r" \([A-Z]{3}\)", "", text).translate(STRAIGHT) for text in PROMPTS],
    "text/edge": ["", "H&E", "Ductal carcinoma IN SITU — naïve Café, 40×!",
                  " ".join(["lymphocytes and stroma"] * 60)],
}  # fmt: skip


@golden.asserts("text/*.tokens", needs="conch")
@pytest.mark.parametrize("case", ["text/yaml", "text/paper", "text/edge"])
def test_tokens_equal_the_released_codes(case: str) -> None:
    """With CONCH's own file, which may not be passed on; the last of 128 columns is empty."""
    try:
        tokenizer = find_tokenizer(None)
    except CheckpointError:
        pytest.skip("the conch package, whose tokenizer is needed, is not installed")
    found = tokenize(TEXTS[case], tokenizer)
    golden.check(f"{case}.tokens", torch.nn.functional.pad(found, (0, 1)))
