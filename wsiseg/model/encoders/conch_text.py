"""Texts for CONCH: its tokenizer, and files of embedded texts.

The tokenizer (byte-level BPE) is part of CONCH under its own licence, so wsiseg does not ship it;
the user's own copy of its JSON file is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from tokenizers import Tokenizer
from torch import Tensor

from wsiseg.atomic import open_atomic
from wsiseg.errors import CheckpointError
from wsiseg.model.weights import translated

__all__ = ["check_texts", "find_tokenizer", "look_up", "read_texts", "tokenize", "write_texts"]

_NAME = "conch_byte_level_bpe_uncased.json"
_IN_PACKAGE = Path("open_clip_custom", "tokenizers", _NAME)
_VOCABULARY = 32007
_SPECIAL = {"<pad>": 0, "<start_of_text>": 1, "<end_of_text>": 2}
_LENGTH = 127
"""Most tokens that a text may have, start and end included."""


def find_tokenizer(given: Path | None) -> Path:
    """Find the user's tokenizer file, or the one of an installed `conch` package.

    Raises
    ------
    CheckpointError
        If there is neither.
    """
    if given is not None:
        if not given.is_file():
            raise CheckpointError(f"{given}: no such file; CONCH's tokenizer is {_NAME}")
        return given
    spec = find_spec("conch")
    places = (spec.submodule_search_locations or []) if spec else []
    for place in places:
        path = Path(place) / _IN_PACKAGE
        if path.is_file():
            return path
    raise CheckpointError(
        f"embedding a text with CONCH needs its tokenizer: give the path of {_NAME} (in CONCH's "
        f"repository under conch/{_IN_PACKAGE.parent.as_posix()}) as the encoder option "
        f"'tokenizer' (--set encoder_options.tokenizer=PATH), or install the conch package: pip "
        f"install git+https://github.com/mahmoodlab/CONCH"
    )


def check_texts(
    tokenizer: str | Path | None = None, texts: str | Path | None = None, **_: object
) -> None:
    """Check that texts can be embedded with these options of the student; loads no tower.

    Raises
    ------
    CheckpointError
        If there is neither a tokenizer nor a file of `texts`, or the tokenizer is not CONCH's.
    """
    if texts is None:
        _read_tokenizer(find_tokenizer(None if tokenizer is None else Path(tokenizer)))


def tokenize(texts: Sequence[str], path: Path) -> Tensor:
    """``(C, 127)`` int64 token ids: start, text (cut to fit), end, padding.

    Raises
    ------
    CheckpointError
        If the file is not a tokenizer, or not CONCH's.
    """
    tokenizer = _read_tokenizer(path)
    rows = torch.full((len(texts), _LENGTH), _SPECIAL["<pad>"])
    for row, text in zip(rows, texts, strict=True):
        ids = tokenizer.encode(text, add_special_tokens=False).ids[: _LENGTH - 2]
        ids = [_SPECIAL["<start_of_text>"], *ids, _SPECIAL["<end_of_text>"]]
        row[: len(ids)] = torch.tensor(ids)
    return rows


def _read_tokenizer(path: Path) -> Tokenizer:
    try:
        # Not transformers: some of its versions drop the space before the first word.
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise CheckpointError(f"{path}: is not a tokenizer file ({error})") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    ids = {name: tokenizer.token_to_id(name) for name in _SPECIAL}
    size = tokenizer.get_vocab_size()
    if size != _VOCABULARY or ids != _SPECIAL:
        raise CheckpointError(
            f"{path}: is not CONCH's tokenizer: {size} entries with {ids}, should be "
            f"{_VOCABULARY} with {_SPECIAL}"
        )
    return tokenizer


def write_texts(
    prompts: Sequence[str], embeddings: Tensor, path: Path, weights_sha256: str
) -> Path:
    """Write `embeddings` ``(C, E)`` of `prompts` as safetensors, with what made them."""
    made = {"prompts": list(prompts), "weights_sha256": weights_sha256}
    tensors = {"embeddings": embeddings.detach().cpu().contiguous()}
    with open_atomic(path) as file:
        file.write(save(tensors, {"wsiseg_texts": json.dumps(made)}))
    return path


def read_texts(path: Path, weights_sha256: str) -> dict[str, Tensor]:
    """Read the embedding ``(E,)`` of each text in a file of `write_texts`.

    Raises
    ------
    CheckpointError
        If it is another file, or its texts were embedded with other weights than
        `weights_sha256`.
    """
    with translated(path), safe_open(path, "pt") as file:
        made = (file.metadata() or {}).get("wsiseg_texts")
        embeddings = file.get_tensor("embeddings") if made else None
    if made is None or embeddings is None:
        raise CheckpointError(f"{path}: is not a file of text embeddings that wsiseg wrote")
    facts = json.loads(made)
    if facts["weights_sha256"] != weights_sha256:
        raise CheckpointError(
            f"{path}: its texts were embedded with weights {facts['weights_sha256'][:16]}, these "
            f"are {weights_sha256[:16]}; embed them again"
        )
    return dict(zip(facts["prompts"], embeddings, strict=True))


def look_up(prompts: Sequence[str], texts: Mapping[str, Tensor]) -> Tensor:
    """Return the embeddings ``(C, E)`` of `prompts`.

    Raises
    ------
    CheckpointError
        If one is not among `texts`.
    """
    for prompt in prompts:
        if prompt not in texts:
            raise CheckpointError(
                f"text {prompt!r} is not among the {len(texts)} embedded ones; embed it with "
                f"CONCH's tokenizer first"
            )
    return torch.stack([texts[prompt] for prompt in prompts])
