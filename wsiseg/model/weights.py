"""Weight files of frozen encoders: found on disk or on the Hugging Face hub, and read strictly.

A weight file may hold tensors and nothing else: no code of it is ever run. Every tensor that the
model needs must be there in its shape, and none may be left over.
"""

from __future__ import annotations

import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from wsiseg.digests import hash_file
from wsiseg.errors import CheckpointError, MissingDependencyError

__all__ = [
    "FILE_ENDINGS",
    "HUB_PREFIX",
    "WeightFile",
    "explain_foreign",
    "find_weights",
    "match_tensors",
    "read_tensors",
    "refuse_misfits",
    "translated",
]

HUB_PREFIX = "hf-hub:"
"""Marks a repository of the hub; without it, `owner/name` is one where no such path exists."""

FILE_ENDINGS = (".bin", ".json", ".pt", ".pth", ".safetensors")
"""Endings that tell a file from a repository."""

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHOWN = 10
_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class WeightFile:
    """One weight file and where it came from."""

    path: Path
    """The file on this machine."""
    source: str
    """`owner/name/file` on the hub, or the file's own name."""
    revision: str
    """Commit of the hub repository; empty for a file that was given by its path."""
    sha256: str
    """Of the file, hex."""


def find_weights(
    source: str | Path,
    names: Sequence[str],
    *,
    revision: str | None = None,
    setting: str = "encoder_options.weights",
) -> WeightFile:
    """Find the first of `names` in a folder or a hub repository, or take the file that is given.

    Downloads show their progress and are kept in the hub's cache. With `HF_HUB_OFFLINE=1`, or if
    the hub does not answer one request, only that cache is used.

    Parameters
    ----------
    source
        A file, a folder that holds one of `names`, or a repository: ``hf-hub:owner/name``, or
        ``owner/name`` where no such path exists.
    names
        Accepted file names, best first.
    revision
        Branch, tag or commit of the repository; None is its main branch.
    setting
        The setting that gives the file instead, for messages.

    Raises
    ------
    CheckpointError
        If there is no such file or repository, its licence is not accepted, no token is set, the
        network is down or off and the file is not cached. The message says what to do.
    MissingDependencyError
        If a repository is asked for and `huggingface_hub` is not installed.
    """
    text = str(source)
    path = Path(text).expanduser()
    if text.startswith(HUB_PREFIX):
        return _download(text.removeprefix(HUB_PREFIX), names, revision, setting)
    if path.exists():
        return _on_disk(path, names)
    if _REPOSITORY.fullmatch(text) and not text.endswith(FILE_ENDINGS):
        return _download(text, names, revision, setting)
    raise CheckpointError(
        f"{text}: no such file or folder; give the path of {_either(names)}, or a repository of "
        f"the Hugging Face hub as {HUB_PREFIX}owner/name"
    )


def _on_disk(path: Path, names: Sequence[str]) -> WeightFile:
    if path.is_dir():
        matches = [path / name for name in names if (path / name).is_file()]
        if not matches:
            raise CheckpointError(f"{path}: the folder does not hold {_either(names)}")
        path = matches[0]
    try:
        return WeightFile(path, path.name, "", hash_file(path))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error


def _either(names: Sequence[str]) -> str:
    return " or ".join(names)


def _download(
    repository: str, names: Sequence[str], revision: str | None, setting: str
) -> WeightFile:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{repository}: reading from the hub needs {error.name}: pip install 'wsiseg[encoders]'"
        ) from error
    with _explained(repository, names, revision, setting):
        cached_only = not _answers(repository, names, revision)
        for name in names:
            try:
                downloaded = hf_hub_download(
                    repository, name, revision=revision, local_files_only=cached_only
                )
            except EntryNotFoundError:
                if name == names[-1]:
                    raise
            else:
                path = Path(downloaded)  # in the cache's snapshots/<commit>/
                return WeightFile(path, f"{repository}/{name}", path.parent.name, hash_file(path))
    raise AssertionError("the last name returns or raises")


def _answers(repository: str, names: Sequence[str], revision: str | None) -> bool:
    """Ask the hub once whether it answers: `hf_hub_download` would retry six times, noisily."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        if revision and _COMMIT.fullmatch(revision):  # what a commit holds does not change
            cached = [try_to_load_from_cache(repository, n, revision=revision) for n in names]
            if any(isinstance(entry, str) for entry in cached):
                return False
        get_hf_file_metadata(hf_hub_url(repository, names[0], revision=revision))
    except (HfHubHTTPError, HFValidationError):
        return True  # a refusal is an answer; the download meets it again
    except Exception:  # noqa: BLE001  # which errors a dead network gives depends on its version
        return False
    return True


@contextmanager
def _explained(
    repository: str, names: Sequence[str], revision: str | None, setting: str
) -> Iterator[None]:
    """Turn the hub's errors into what the user should do; the only place that knows them."""
    from huggingface_hub import errors

    instead = (
        f"or download {_either(names)} elsewhere and give its path instead: --set {setting}=PATH "
        f"(with annotate and predict, predict.{setting})"
    )
    try:
        yield
    except errors.GatedRepoError as error:
        raise CheckpointError(
            f"{repository}: its authors ask you to accept a licence. 1. Log in at "
            f"https://huggingface.co/{repository} and accept its terms (access may take a day). "
            f"2. Make a token with read access at https://huggingface.co/settings/tokens. "
            f"3. Run `hf auth login`, or set HF_TOKEN; {instead}"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{repository}: no such path, and the hub has no such repository, or it is private "
            f"and no token that may read it is set (`hf auth login`, or HF_TOKEN)"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(f"{repository}: has no revision {revision!r}") from error
    except errors.LocalEntryNotFoundError as error:
        raise CheckpointError(_not_cached(repository, names, instead)) from error
    except errors.EntryNotFoundError as error:
        raise CheckpointError(f"{repository}: the repository has no {_either(names)}") from error
    except errors.HFValidationError as error:
        raise CheckpointError(f"{repository}: is not a repository's name ({error})") from error
    except (errors.HfHubHTTPError, OSError) as error:
        line = str(error).partition("\n")[0]
        raise CheckpointError(f"{repository}: cannot be downloaded ({line}); {instead}") from error


def _not_cached(repository: str, names: Sequence[str], instead: str) -> str:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        why = "HF_HUB_OFFLINE is set; run once without it"
    else:
        why = "the hub cannot be reached; try again with a network"
    return f"{repository}: {_either(names)} is not in the hub's cache and {why}, {instead}"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a weight file by name, on the CPU; memory-mapped where the format allows.

    Takes safetensors and what `torch.save` wrote; unwraps ``state_dict`` and ``model``, and strips
    a ``module.`` that all names begin with.

    Raises
    ------
    CheckpointError
        If the file is damaged or of another kind, or holds anything but tensors.
    """
    with translated(path), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected pickle protocol")  # we say what is wrong
        raw = load_file(path) if path.suffix == ".safetensors" else _load_pickle(path)
    for wrapper in ("state_dict", "model"):
        if isinstance(raw, dict) and isinstance(raw.get(wrapper), dict):
            raw = raw[wrapper]
    return _named_tensors(raw, path)


def _load_pickle(path: Path) -> Any:
    # Only the zip format (PyTorch >= 1.6) can be mapped; official files may be older.
    mapped = zipfile.is_zipfile(path)
    return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def _named_tensors(raw: Any, path: Path) -> dict[str, Tensor]:
    if not isinstance(raw, dict) or not raw:
        raise CheckpointError(f"{path}: holds a {type(raw).__name__}, not tensors by name")
    others = [str(name) for name, value in raw.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(f"{path}: holds more than tensors: {_shorten(others)}")
    prefix = "module." if all(str(name).startswith("module.") for name in raw) else ""
    return {str(name).removeprefix(prefix): value for name, value in raw.items()}


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn any error of reading a broken or foreign weight file into `CheckpointError`."""
    try:
        yield
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL ([\w.]*\w)(?=\s)", str(error))
        raise CheckpointError(_refuse_code(path, code[1]) if code else _broken(path)) from error
    except MemoryError:
        raise
    # Not narrower: a damaged pickle may ask for anything, and torch's reader then raises anything.
    except Exception as error:
        raise CheckpointError(_broken(path)) from error


def _refuse_code(path: Path, what: str) -> str:
    return (
        f"{path}: holds code ({what}), not only tensors, and wsiseg never runs code of a weight "
        f"file; if you trust it, load it elsewhere and save its tensors alone as .safetensors"
    )


def _broken(path: Path) -> str:
    if not path.is_file():
        return f"{path}: no such file"
    size = os.path.getsize(path)
    with path.open("rb") as file:
        start = file.read(len(_LFS_POINTER))
    if start == _LFS_POINTER:
        return f"{path}: is a Git LFS pointer of {size} bytes, not the file: run `git lfs pull`"
    return (
        f"{path}: cannot be read as a weight file ({size} bytes): it is cut short, damaged or "
        f"something else; fetch it again"
    )


def explain_foreign(path: Path, reason: str) -> str:
    """Explain why `path` is not a checkpoint of ours, and what to do; `reason` is safetensors'."""
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith((b"PK\x03\x04", b"\x80\x02")):  # torch.save, in its new form or the old
        return (
            f"{path}: is a PyTorch file and not a checkpoint of wsiseg; if it is of the released "
            f"ConStruct code: wsiseg model import {path} -o NAME.safetensors --classes A,B,..."
        )
    return f"{path}: is not a safetensors file ({reason})"


def match_tensors(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Sequence[int]], path: Path, model: str
) -> None:
    """Check that `found` is exactly what `model` needs.

    Parameters
    ----------
    found
        Tensors of the file, without those that may be left out.
    wanted
        Shape of every tensor that the model needs.
    path, model
        For the message.

    Raises
    ------
    CheckpointError
        If a tensor is missing, unexpected or of another shape; lists them, shortened past ten.
    """
    missing = [name for name in expected if name not in tensors]
    unexpected = [name for name in tensors if name not in expected]
    wrong = [
        f"{name} is {tuple(tensors[name].shape)}, should be {tuple(shape)}"
        for name, shape in expected.items()
        if name in tensors and tuple(tensors[name].shape) != tuple(shape)
    ]
    refuse_misfits(path, model, len(expected), missing, unexpected, wrong)


def refuse_misfits(
    path: Path,
    model: str,
    count: int,
    missing: Sequence[str],
    unexpected: Sequence[str],
    wrong: Sequence[str] = (),
) -> None:
    """Raise `CheckpointError` if any list is not empty; `count` tensors are needed in all."""
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": wrong}
    parts = [
        f"{len(listed)} {kind}: {_shorten(listed)}" for kind, listed in kinds.items() if listed
    ]
    if parts:
        other = " (another model's file?)" if len(missing) > count / 2 else ""
        raise CheckpointError(f"{path}: is not {model}{other}: {'; '.join(parts)}")


def _shorten(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} ... and {len(names) - _SHOWN} more"
