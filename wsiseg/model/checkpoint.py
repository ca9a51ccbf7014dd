"""Checkpoints: the trained tensors and what they were trained for, as safetensors. No pickle.

The frozen encoder is not inside; it is rebuilt from its name, and its identity is checked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from wsiseg.annotations import Palette
from wsiseg.atomic import open_atomic
from wsiseg.config import Pooling, Preset
from wsiseg.errors import CheckpointError
from wsiseg.model.card import Card
from wsiseg.model.catalog import find_checkpoint
from wsiseg.model.construct import ConStruct
from wsiseg.model.encoders import load_encoder
from wsiseg.model.metadata import FORMAT, Kind, read_card, read_description

__all__ = [
    "FORMAT",
    "CheckpointInfo",
    "fill_tensors",
    "find_checkpoint",
    "load_checkpoint",
    "read_info",
    "save_checkpoint",
    "trained_state",
    "write_checkpoint",
]

_FROZEN = ("encoder.", "teacher.")
_PLACES = {"weights", "model"}  # options that say where an encoder's weights are


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint says about itself."""

    encoder: str
    """Name of the frozen student, as in `ENCODERS`; of a segmenter, its network in `NETWORKS`."""
    identity: str
    """`Encoder.identity` that it was trained on; of a segmenter, that its body started from."""
    names: tuple[str, ...]
    """Class names, in label order."""
    colors: tuple[tuple[int, int, int], ...]
    """RGB of each class."""
    prompts: tuple[str, ...]
    """The text of each class, from which its prototypes were initialised unless from images; a
    segmenter has none."""
    prototypes_per_class: int
    """Prototypes per class: k, or 2 k if initialised from texts and images together."""
    mpp: float
    """µm/px of the training patches."""
    tile: int
    """Side of the training patches, pixels."""
    config: dict[str, Any] = field(default_factory=dict)
    """The `TrainConfig` or `DistillConfig` that made it."""
    note: str = ""
    """What the user should know before trusting it."""
    preset: Preset = "wsiseg"
    """Which reading of ConStruct it follows."""
    guidance_levels: tuple[int, ...] | None = None
    """Levels that the teacher guided; None for the encoder's own."""
    cam_levels: tuple[int, ...] | None = None
    """Levels that the CAM reads; None for the encoder's own."""
    cam_overlap: int = 1
    """2 if the CAM is made from four passes, a quarter cell off each way."""
    encoder_options: dict[str, Any] = field(default_factory=dict)
    """Options that the encoder was made with, without paths."""
    pooling: Pooling = "mean"
    """How a CAM becomes a class logit."""
    background: int = 0
    """How many of the last `names` are kinds of background, not classes of a map."""
    calibration: tuple[tuple[float, float], ...] = ()
    """Scale and offset that calibrate the logits of each of `names`; empty if uncalibrated."""
    weights: dict[str, dict[str, str]] = field(default_factory=dict)
    """Source, revision and sha256 of the `encoder`'s and the `teacher`'s weights."""
    card: Card | None = None
    """What people should know about it; None in older files."""
    kind: Kind = "construct"
    """What it holds."""
    first_stage: dict[str, str] = field(default_factory=dict)
    """Of a segmenter: what made the labels that it was trained on, item by item."""
    run: str = ""
    """Hash of the settings, patches and frozen weights that it came from; empty if unknown."""
    sha256: str = ""
    """Of the file; filled in on loading."""

    @property
    def palette(self) -> Palette:
        """Names and colours of the classes of a map."""
        count = len(self.names) - self.background
        return Palette(self.names[:count], self.colors[:count])


def save_checkpoint(model: ConStruct, info: CheckpointInfo, path: str | Path) -> Path:
    """Write the trained tensors and `info`; the file appears whole or not at all."""
    return write_checkpoint(trained_state(model), info, path)


def write_checkpoint(tensors: Mapping[str, Tensor], info: CheckpointInfo, path: str | Path) -> Path:
    """Write tensors and `info`; the file appears whole or not at all."""
    path = Path(path)
    plain = asdict(info)
    del plain["sha256"]
    plain["card"] = None if info.card is None else info.card.model_dump(mode="json")
    metadata = {"wsiseg": json.dumps({"format": FORMAT, **plain}, sort_keys=True)}
    with open_atomic(path) as file:
        file.write(save_tensors(dict(tensors), metadata))
    return path


def read_info(name_or_path: str | Path) -> CheckpointInfo:
    """Read what a checkpoint says about itself, without loading its encoder.

    Raises
    ------
    CheckpointError
        If the file is missing, not safetensors, or not a checkpoint of this format.
    """
    path = find_checkpoint(name_or_path)
    return _parse(path, read_description(path))


def _parse(path: Path, plain: dict[str, Any]) -> CheckpointInfo:
    try:
        for name in ("names", "prompts"):
            plain[name] = tuple(plain[name])
        for name in ("guidance_levels", "cam_levels"):
            if plain.get(name) is not None:
                plain[name] = tuple(plain[name])
        plain["calibration"] = tuple((a, b) for a, b in plain.get("calibration", ()))
        plain["colors"] = tuple((r, g, b) for r, g, b in plain["colors"])
        plain["card"] = read_card(plain.get("card"), plain["names"], path)
        info = CheckpointInfo(**plain, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    except (AttributeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: lacks or misnames a field ({error})") from error
    wanted = len(info.names) if info.kind == "construct" else 0
    if len(info.names) != len(info.colors) or len(info.prompts) != wanted:
        raise CheckpointError(
            f"{path}: names {len(info.names)} classes but {len(info.colors)} colours and "
            f"{len(info.prompts)} prompts"
        )
    return info


def load_checkpoint(
    name_or_path: str | Path, encoder_options: Mapping[str, Any] | None = None
) -> tuple[ConStruct, CheckpointInfo]:
    """Load the model, in evaluation mode on the CPU, and what its checkpoint says.

    Parameters
    ----------
    name_or_path
        A shipped checkpoint's name, or a file.
    encoder_options
        Options of its encoder that the checkpoint does not hold, such as `weights`, the path of
        weights that do not come from the hub. Neither tokenizer nor text tower is needed.

    Raises
    ------
    CheckpointError
        If the file is missing, is no checkpoint or of another kind, was trained on another version
        of the encoder, its tensors do not fit the classes and the encoder that it names, or the
        encoder's weights are not given.
    """
    info = read_info(name_or_path)
    path = find_checkpoint(name_or_path)
    if info.kind != "construct":
        raise CheckpointError(
            f"{path}: is a {info.kind} of `wsiseg distill`, which has no prototypes; a checkpoint "
            f"of `wsiseg train` is needed here"
        )
    encoder = load_encoder(info.encoder, **_complete_options(info, encoder_options or {}, path))
    if encoder.identity != info.identity:
        raise CheckpointError(
            f"{path}: was trained on encoder {info.identity!r}, this wsiseg has "
            f"{encoder.identity!r}; train it again, or give the weights of that encoder as "
            f"encoder_options.weights"
        )
    model = ConStruct(
        encoder,
        torch.zeros(len(info.prompts), encoder.embedding_dim),
        prototypes_per_class=info.prototypes_per_class,
        preset=info.preset,
        guidance_levels=info.guidance_levels,
        cam_levels=info.cam_levels,
        pooling=info.pooling,
    )
    tensors = load_tensors(path.read_bytes())
    model.add_parts(tensors)
    _fill(model, tensors, path)
    return model.eval(), info


def _complete_options(info: CheckpointInfo, given: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Merge the recorded options, the recorded revision of the hub and the given options."""
    used = info.weights.get("encoder")
    if used is None or given.keys() & _PLACES:
        return {**info.encoder_options, **given}
    if used["revision"]:
        # The commit itself: a branch may have moved since.
        return {**info.encoder_options, "revision": used["revision"], **given}
    raise CheckpointError(
        f"{path}: was trained on weights from a file, {used['source']} (sha256 "
        f"{used['sha256'][:12]}), and a checkpoint does not hold its encoder's weights; give "
        f"their path as the encoder option 'weights' (a folder for open_clip: 'model'): --set "
        f"encoder_options.weights=PATH (with annotate and predict, predict.encoder_options.weights)"
    )


def trained_state(model: ConStruct) -> dict[str, Tensor]:
    """The tensors that training changes, by name: all but the frozen encoders'."""
    return {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if not name.startswith(_FROZEN)
    }


def _fill(model: ConStruct, tensors: dict[str, Tensor], path: Path) -> None:
    fill_tensors(model, trained_state(model), tensors, path, f"its {model.classes} classes")
    if not tensors["prototypes"].isfinite().all():
        raise CheckpointError(f"{path}: prototypes holds values that are not finite")


def fill_tensors(
    model: nn.Module, ours: Mapping[str, Tensor], tensors: Mapping[str, Tensor], path: Path,
    what: str,
) -> None:  # fmt: skip
    """Load a checkpoint's tensors into a model, if names and shapes are those of `ours`.

    Raises
    ------
    CheckpointError
        If one is missing, unexpected or of another shape; names `path` and `what` does not fit.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in ours.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    problems = [
        f"{name} is {shapes.get(name, 'missing')}, should be {expected.get(name, 'absent')}"
        for name in sorted(expected.keys() | shapes.keys())
        if expected.get(name) != shapes.get(name)
    ]
    if problems:
        raise CheckpointError(f"{path}: its tensors do not fit {what}: {'; '.join(problems)}")
    model.load_state_dict(tensors, strict=False)
