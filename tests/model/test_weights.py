from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import OrderedDict
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from tests.model.hub import Answer, Hub, serving
from wsiseg.errors import CheckpointError
from wsiseg.model.weights import find_weights, match_tensors, read_tensors

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}


class Harmful:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch ran",)


def same(found: dict[str, Tensor]) -> bool:
    return found.keys() == TENSORS.keys() and all(
        torch.equal(tensor, TENSORS[name]) for name, tensor in found.items()
    )


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize(
    "held",
    [
        TENSORS,
        {"state_dict": TENSORS, "epoch": 3},
        {"model": OrderedDict(TENSORS)},
        {f"module.{name}": tensor for name, tensor in TENSORS.items()},
    ],
    ids=["flat", "state_dict", "model", "module."],
)
def test_every_layout_of_torch_save_is_read(tmp_path: Path, held: Any, zipped: bool) -> None:
    torch.save(held, tmp_path / "w.bin", _use_new_zipfile_serialization=zipped)
    assert same(read_tensors(tmp_path / "w.bin"))


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "w.safetensors")
    assert same(read_tensors(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_code_in_a_pickle_is_named_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Harmful()}, "w.bin", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"w\.bin: holds code \(\w+\.system\), not only"):
        read_tensors(Path("w.bin"))
    assert not Path("ran").exists()


@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_a_file_cut_anywhere_is_a_checkpoint_error(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.bin")
    if kind == "safetensors":
        save_file(TENSORS, path)
    else:
        torch.save(TENSORS, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 150)):
        path.write_bytes(whole[:length])
        # A name that is cut short may be another name, and that is refused as code.
        message = rf"cannot be read as a weight file \({length} bytes\)|holds code \((torch|coll)"
        with pytest.raises(CheckpointError, match=message):
            read_tensors(path)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_checkpoint_error(
    tmp_path_factory: pytest.TempPathFactory, held: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.bin"
    path.write_bytes(held)
    with pytest.raises(CheckpointError, match=r"any\.bin: "):
        read_tensors(path)


def test_a_git_lfs_pointer_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(CheckpointError, match=r"Git LFS pointer of 56 bytes, .* `git lfs pull`"):
        read_tensors(tmp_path / "w.bin")


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ([torch.ones(1)], "holds a list, not tensors by name"),
        ({}, "holds a dict, not tensors by name"),
        ({"a": torch.ones(1), "b": 3, "c": "x"}, "holds more than tensors: b, c"),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, held: Any, message: str) -> None:
    torch.save(held, tmp_path / "w.bin")
    with pytest.raises(CheckpointError, match=message):
        read_tensors(tmp_path / "w.bin")


def test_matching_tensors_pass() -> None:
    match_tensors(TENSORS, {"a.weight": (2, 3), "a.bias": (2,)}, Path("w.bin"), "the model")


def test_every_misfit_is_listed_and_long_lists_are_shortened() -> None:
    wanted = {"a.weight": (3, 2), "a.bias": (2,), **{f"m{i}": (1,) for i in range(3)}}
    found = {**TENSORS, **{f"x{i:02d}": torch.ones(1) for i in range(12)}}
    with pytest.raises(
        CheckpointError,
        match=r"^w\.bin: is not the model \(another model's file\?\): 3 missing: m0, m1, m2; "
        r"12 unexpected: x00, x01, x02, x03, x04, x05, x06, x07, x08, x09 \.\.\. and 2 more; "
        r"1 of another shape: a\.weight is \(2, 3\), should be \(3, 2\)$",
    ):
        match_tensors(found, wanted, Path("w.bin"), "the model")


def test_a_file_and_its_folder_are_found_and_hashed(tmp_path: Path) -> None:
    path = tmp_path / "w.bin"
    path.write_bytes(b"abc")
    by_file, by_folder = find_weights(path, ["other"]), find_weights(tmp_path, ["v.bin", "w.bin"])
    assert by_file == by_folder
    assert (by_file.path, by_file.source, by_file.revision) == (path, "w.bin", "")
    assert by_file.sha256 == sha256(b"abc").hexdigest()


def test_a_folder_without_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"the folder does not hold v\.bin or w\.bin"):
        find_weights(tmp_path, ["v.bin", "w.bin"])


@pytest.mark.parametrize("source", ["/no/such/w.bin", "weights/conch.bin", "conch", "a/b/c"])
def test_a_missing_path_is_not_looked_up_on_the_hub(source: str) -> None:
    with pytest.raises(CheckpointError, match=f"{source}: no such file or folder; give the path"):
        find_weights(source, ["w.bin"])


CONTENT = b"weights" * 100
COMMIT = "a1" * 20
REFUSALS = {"gated": (401, "GatedRepo"), "private": (401, "RepoNotFound")}


class Weights(Hub):
    """Holds w.bin in every repository."""

    commit = COMMIT

    def find(self, owner: str, name: str, revision: str, file: str) -> Answer:
        if revision == "gone":
            return Answer(status=404, refusal="RevisionNotFound")
        if owner in REFUSALS:
            return Answer(b"", *REFUSALS[owner])
        if file != "w.bin":
            return Answer(status=404, refusal="EntryNotFound")
        return Answer(CONTENT)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `find_weights` makes of each request; in a process of its own, as the hub's client
    reads its settings once."""
    pytest.importorskip("huggingface_hub", reason="pip install 'wsiseg[encoders]'")
    requests = {
        "found": ["some/model", ["v.bin", "w.bin"], None],
        "prefixed": ["hf-hub:some/model", ["w.bin"], "main"],
        "gated": ["gated/model", ["w.bin"], None],
        "private": ["private/model", ["w.bin"], None],
        "no revision": ["some/model", ["w.bin"], "gone"],
        "no file": ["some/model", ["u.bin", "v.bin"], None],
        "no name": ["hf-hub:a/b/c", ["w.bin"], None],
        "offline": ["some/other", ["v.bin", "w.bin"], None],
        "offline, cached": ["some/model", ["v.bin", "w.bin"], None],
        "unreachable": ["some/other", ["v.bin", "w.bin"], None],
    }
    with serving(Weights) as address:
        made = subprocess.run(
            [sys.executable, "-c", ASK, json.dumps(requests)],
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
                "HF_ENDPOINT": address,
                "HF_HOME": str(tmp_path_factory.mktemp("hub")),
                "NO_PROXY": "127.0.0.1",
            },
            capture_output=True,
            check=True,
            timeout=600,
        )
    return json.loads(made.stdout) | {"log": made.stderr.decode()}


ASK = """
import dataclasses, json, sys, time
import huggingface_hub.constants
from wsiseg.errors import CheckpointError
from wsiseg.model.weights import find_weights
answers, waits = {}, []
for case, (source, names, revision) in json.loads(sys.argv[1]).items():
    huggingface_hub.constants.HF_HUB_OFFLINE = case.startswith("offline")
    if case == "unreachable":  # nothing listens at this port, however long one waits
        time.sleep = waits.append
        huggingface_hub.constants.ENDPOINT = "http://127.0.0.1:9"
        huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE = (
            "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
        )
    try:
        found = find_weights(source, names, revision=revision)
        answers[case] = dataclasses.asdict(found) | {"path": str(found.path)}
    except CheckpointError as error:
        answers[case] = str(error)
print(json.dumps(answers | {"waits": waits}))
"""


@pytest.mark.parametrize("case", ["found", "prefixed", "offline, cached"])
def test_a_repositorys_file_is_found_with_its_commit(answers: dict[str, Any], case: str) -> None:
    found = answers[case]
    assert (found["source"], found["revision"]) == ("some/model/w.bin", COMMIT)
    assert found["sha256"] == sha256(CONTENT).hexdigest()
    assert Path(found["path"]).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("gated", ["huggingface.co/gated/model", "accept", "token", "hf auth login", "HF_TOKEN"]),
        ("private", ["no such path", "no such repository", "hf auth login"]),
        ("no revision", ["some/model: has no revision 'gone'"]),
        ("no file", ["some/model: the repository has no u.bin or v.bin"]),
        ("no name", ["a/b/c: is not a repository's name"]),
        (
            "unreachable",
            [
                "v.bin or w.bin",
                "the hub cannot be reached",
                "try again",
                "its path",
                "--set encoder_options.weights=PATH",
            ],
        ),
        ("gated", ["--set encoder_options.weights=PATH"]),
        ("offline", ["v.bin or w.bin is not in the hub's cache", "HF_HUB_OFFLINE", "its path"]),
    ],
)
def test_each_refusal_says_what_to_do(answers: dict[str, Any], case: str, words: list[str]) -> None:
    assert isinstance(answers[case], str)
    assert [word for word in words if word not in answers[case]] == []


def test_without_a_network_the_hub_is_asked_once_and_quietly(answers: dict[str, Any]) -> None:
    assert answers["waits"] == []
    assert "Retry" not in answers["log"]
    assert "127.0.0.1:9" not in answers["log"]
