"""Checkpoints of the authors' released code, loaded into a model of preset `reference`."""

from __future__ import annotations

from pathlib import Path

from wsiseg.errors import ConfigError
from wsiseg.model.checkpoint import trained_state
from wsiseg.model.construct import ConStruct
from wsiseg.model.weights import match_tensors, read_tensors

__all__ = ["load_released"]

_FROZEN = ("clip_adapter.", "segformer_teacher.")


def load_released(model: ConStruct, path: str | Path) -> ConStruct:
    """Fill `model` with a ``best_cam.pth``; what it holds of the frozen encoders is left out.

    The file as the authors' script writes it also holds settings as Python objects, which are
    never loaded: save its entry ``model`` alone first, where you trust it.

    Raises
    ------
    CheckpointError
        If the file is damaged, holds code, or its tensors are not the model's.
    ConfigError
        If the model is of another preset, whose layers differ.
    """
    if model.preset != "reference":
        raise ConfigError(
            f"{path}: is of the released code, the model of preset {model.preset!r}; "
            f"make it with preset 'reference'"
        )
    path = Path(path)
    used = f"l_fc{model.encoder.cam_level + 1}."
    tensors = {
        f"l_fc.{name.removeprefix(used)}" if name.startswith(used) else name: tensor
        for name, tensor in read_tensors(path).items()
        if not name.startswith(_FROZEN)
    }
    shapes = {name: tuple(tensor.shape) for name, tensor in trained_state(model).items()}
    match_tensors(tensors, shapes, path, "a checkpoint of the released ConStruct")
    model.load_state_dict(tensors, strict=False)
    return model
