"""Checkpoints of the authors' released code, loaded into a model of preset `reference`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from wsiseg.errors import CheckpointError, ConfigError
from wsiseg.model.checkpoint import trained_state
from wsiseg.model.construct import ConStruct
from wsiseg.model.weights import match_tensors, read_tensors

__all__ = ["load_released", "read_released"]

_STUDENT, _TEACHER = "clip_adapter.model.", "segformer_teacher."
_SETTINGS = ("argparse", "builtins", "collections", "numpy", "omegaconf", "pathlib", "typing")
"""Packages whose classes occur in the settings and scores saved beside the tensors."""


class _Inert:
    """Stand-in for an object of the settings: accepts any arguments and does nothing."""

    def __new__(cls, *_: object) -> _Inert:
        return super().__new__(cls)

    def __setstate__(self, _: object) -> None:
        pass


def read_released(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a ``best_cam.pth`` by name, including those of the frozen encoders.

    The settings that the authors' script saves beside them, OmegaConf's objects, are skipped:
    `torch.load` reads with ``weights_only=True`` and gets inert stand-ins for their classes, so
    that no code of the file runs and OmegaConf is not needed.

    Raises
    ------
    CheckpointError
        If the file is damaged, or holds code of anything else.
    """
    stubs: dict[str, Callable[..., object]] = {}
    before = torch.serialization.get_safe_globals()
    try:
        while True:
            try:
                return read_tensors(Path(path))
            except CheckpointError as error:
                name = _unknown_class(error.__cause__)
                if name is None or name in stubs or name.split(".")[0] not in _SETTINGS:
                    raise
                stubs[name] = _make_stub(name)
                torch.serialization.add_safe_globals([stubs[name]])
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _unknown_class(error: BaseException | None) -> str | None:
    """The name of the class that `torch.load` does not know, with its module."""
    match = re.search(r"Unsupported global: GLOBAL ([\w.]+) was not", str(error))
    if match is None:
        return None
    return match[1] if "." in match[1] else f"builtins.{match[1]}"


def _make_stub(name: str) -> Callable[..., object]:
    module, _, last = name.rpartition(".")
    if name == "collections.defaultdict":  # it is filled after construction, so it must be a dict

        def stub(*_: object) -> dict[object, object]:
            return {}

        made: Callable[..., object] = stub
    else:
        made = type(last, (_Inert,), {})
    made.__module__, made.__qualname__ = module, last
    return made


def load_released(model: ConStruct, path: str | Path) -> ConStruct:
    """Fill `model` with the tensors of a ``best_cam.pth``, except those of the frozen encoders.

    Raises
    ------
    CheckpointError
        If the file is damaged, holds code, its tensors are not the model's, or it was trained on
        other weights of the student.
    ConfigError
        If the model is of another preset, whose layers differ.
    """
    if model.preset != "reference":
        raise ConfigError(
            f"{path}: is a checkpoint of the released code, but the model has preset "
            f"{model.preset!r}; build it with preset 'reference'"
        )
    path, released = Path(path), read_released(path)
    _check_student(model, released, path)
    used = f"l_fc{model.encoder.cam_level + 1}."
    ours = {
        f"l_fc.{name.removeprefix(used)}" if name.startswith(used) else name: tensor
        for name, tensor in released.items()
        if not name.startswith((_STUDENT, _TEACHER))
    }
    shapes = {name: tuple(tensor.shape) for name, tensor in trained_state(model).items()}
    match_tensors(ours, shapes, path, "a checkpoint of the released ConStruct")
    model.load_state_dict(ours, strict=False)
    return model


def _check_student(model: ConStruct, tensors: dict[str, Tensor], path: Path) -> None:
    """Compare the student inside the file with the weights that the model was given."""
    given = getattr(model.encoder, "weights", None)
    student = {name: t for name, t in tensors.items() if name.startswith(f"{_STUDENT}visual.")}
    if given is None or not student:
        return
    for name, tensor in read_tensors(given.path).items():
        other = student.get(_STUDENT + name, tensor)
        # Position embeddings differ in shape where the images were not of CONCH's own size.
        if other.shape == tensor.shape and not torch.allclose(other.float(), tensor.float()):
            raise CheckpointError(
                f"{path}: was trained on other weights than {given.path}: {name} differs; give "
                f"those that its authors used as encoder_options.weights"
            )
