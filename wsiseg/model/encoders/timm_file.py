"""Build vision transformers of timm, and load their weight files strictly.

The constructor's arguments are known for the models of `wsiseg.model.vits`, and read from
``config.json`` for others of the hub; a file that does not fit them is refused, not reshaped.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import timm
import timm.layers
import torch
from torch import Tensor

from wsiseg.errors import CheckpointError, ConfigError
from wsiseg.model.encoders.dinov2_names import rename_transformers
from wsiseg.model.vits import IMAGENET_MEAN, IMAGENET_STD, VITS, KnownVit, find_vit
from wsiseg.model.weights import HUB_PREFIX, WeightFile, find_weights, match_tensors, read_tensors

__all__ = ["Color", "Recipe", "build_vit", "fill_vit", "find_recipe", "read_vit"]

_CONFIG, _PREPROCESSOR = "config.json", "preprocessor_config.json"
_FILES = ("model.safetensors", "pytorch_model.bin")
_MODEL = "encoder_options.model"
_HEADS = ("head.", "head_dist.", "fc.")  # of the labels that a model was trained on
_MLPS = ("GluMlp", "Mlp", "SwiGLU", "SwiGLUPacked")
_OURS = ("img_size", "num_classes", "dynamic_img_size", "dynamic_img_pad", "features_only")
"""Arguments that are set here: one image size, to which the positions are resampled once."""

Color = tuple[float, float, float]


@dataclass(frozen=True)
class Recipe:
    """How to build a model, and its weights."""

    name: str
    """For messages."""
    architecture: str
    """timm's name of the architecture."""
    arguments: dict[str, Any]
    """Arguments of its constructor."""
    image_size: int
    mean: Color
    std: Color
    weights: WeightFile


def find_recipe(model: str, weights: str | Path | None, revision: str | None) -> Recipe:
    """Look up `model`: a short name, an architecture of timm, a hub repository or a folder.

    Parameters
    ----------
    weights
        A file, folder or repository to take instead of the one that goes with the name.
    revision
        Revision of the repository.

    Raises
    ------
    ConfigError
        If there is no model of this name; names similar ones.
    CheckpointError
        If its files are not found, or its configuration is of another kind of model.
    """
    known = find_vit(model.removeprefix(HUB_PREFIX))
    if known is not None:
        return _recipe_of(known, weights, revision)
    architecture = model.split(".")[0]
    if architecture in timm.list_models():
        return _named_recipe(model, weights, revision)
    if not model.startswith(HUB_PREFIX) and "/" not in model and not Path(model).exists():
        names = [*(vit.name for vit in VITS), *timm.list_models("*vit*")]
        near = difflib.get_close_matches(model, names, 3)
        raise ConfigError(
            f"{_MODEL} = {model!r} is known neither here nor to timm {timm.__version__}; "
            f"{'similar are ' + ', '.join(near) if near else 'see `wsiseg model list`'}; a "
            f"repository of the hub is written {HUB_PREFIX}owner/name"
        )
    return _configured_recipe(model, weights, revision)


def _recipe_of(vit: KnownVit, weights: str | Path | None, revision: str | None) -> Recipe:
    source = weights or f"{HUB_PREFIX}{vit.repository}"
    names = tuple(dict.fromkeys((vit.file, *_FILES)))
    file = find_weights(source, names, revision=revision)
    return Recipe(
        vit.name, vit.architecture, dict(vit.arguments), vit.image_size, vit.mean, vit.std, file
    )


def _named_recipe(model: str, weights: str | Path | None, revision: str | None) -> Recipe:
    facts = timm.get_pretrained_cfg(model)
    if facts is None or (weights is None and not facts.hf_hub_id):
        raise ConfigError(
            f"{_MODEL} = {model!r}: timm has no weights of this name; add one of its tags "
            f"(timm.list_pretrained({model.split('.')[0]!r})), or give encoder_options.weights"
        )
    file = find_weights(weights or f"{HUB_PREFIX}{facts.hf_hub_id}", _FILES, revision=revision)
    mean, std = _color(facts.mean), _color(facts.std)
    return Recipe(model, model, {}, facts.input_size[-1], mean, std, file)


def _configured_recipe(model: str, weights: str | Path | None, revision: str | None) -> Recipe:
    config = find_weights(model, (_CONFIG,), revision=revision, setting=_MODEL)
    plain = _read_json(config.path)
    # The configuration's commit, so that all files are from the same state of the repository.
    commit = config.revision or revision
    file = find_weights(weights or model, _FILES, revision=None if weights else commit)
    if "model_type" in plain:
        prepared = find_weights(model, (_PREPROCESSOR,), revision=commit, setting=_MODEL)
        return _transformers_recipe(model, plain, _read_json(prepared.path), config.path, file)
    facts = plain.get("pretrained_cfg", plain)
    if not isinstance(plain.get("architecture"), str):
        raise CheckpointError(f"{config.path}: names no 'architecture' of timm")
    size = facts.get("input_size", (3, 224, 224))[-1]
    mean, std = facts.get("mean", IMAGENET_MEAN), facts.get("std", IMAGENET_STD)
    arguments = dict(plain.get("model_args", {}))
    size = arguments.get("img_size", size)
    return Recipe(model, plain["architecture"], arguments, size, _color(mean), _color(std), file)


def _transformers_recipe(
    model: str, plain: Mapping[str, Any], prepared: Mapping[str, Any], path: Path, file: WeightFile
) -> Recipe:
    """Translate transformers' configuration of a DINOv2, with or without registers."""
    kind = plain["model_type"]
    if not str(kind).startswith("dinov2"):
        raise CheckpointError(
            f"{path}: is of a {kind!r} model of transformers; of these only dinov2 can be read"
        )
    width, registers = plain["hidden_size"], plain.get("num_register_tokens", 0)
    arguments: dict[str, Any] = {
        "patch_size": plain["patch_size"], "embed_dim": width, "depth": plain["num_hidden_layers"],
        "num_heads": plain["num_attention_heads"], "init_values": plain.get("layerscale_value", 1),
        "mlp_ratio": plain.get("mlp_ratio", 4),
    }  # fmt: skip
    if registers:
        arguments |= {"reg_tokens": registers, "no_embed_class": True}
    if plain.get("use_swiglu_ffn"):
        hidden = (int(width * arguments["mlp_ratio"] * 2 / 3) + 7) // 8 * 8
        arguments |= {"mlp_ratio": 2 * hidden / width}
        arguments |= {"mlp_layer": "SwiGLUPacked", "act_layer": "silu"}
    side = prepared.get("crop_size", prepared.get("size", {})).get("height", plain["image_size"])
    mean, std = (prepared.get(name) for name in ("image_mean", "image_std"))
    return Recipe(
        model, "vit_base_patch16_224", arguments, side, _color(mean or IMAGENET_MEAN),
        _color(std or IMAGENET_STD), file,
    )  # fmt: skip


def _color(values: Any) -> Color:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _read_json(path: Path) -> dict[str, Any]:
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: is not valid JSON ({error})") from error
    if not isinstance(plain, dict):
        raise CheckpointError(f"{path}: holds a {type(plain).__name__}, not a configuration")
    return plain


def build_vit(recipe: Recipe, image_size: int, arguments: Mapping[str, Any]) -> Any:
    """Build timm's model for one image size, without memory for weights that a file will bring.

    Raises
    ------
    ConfigError
        If it is not a vision transformer with one grid of patches, or timm refuses an argument.
    """
    settled = {k: v for k, v in (recipe.arguments | dict(arguments)).items() if k not in _OURS}
    if "mlp_layer" in settled:
        settled["mlp_layer"] = _find_mlp(settled["mlp_layer"])
    settled |= {"num_classes": 0, "img_size": image_size}
    if timm.models.is_model_in_modules(recipe.architecture.split(".")[0], ("vision_transformer",)):
        settled["weight_init"] = "skip"  # the file has them; a giant takes seconds
    try:
        with torch.device("meta"):
            model = timm.create_model(recipe.architecture, pretrained=False, **settled)
        if any(True for _ in model.buffers()):  # computed, and in no file
            model = timm.create_model(recipe.architecture, pretrained=False, **settled)
    except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{recipe.name}: timm {timm.__version__} cannot make {recipe.architecture} with "
            f"{settled} ({error}); encoder_options.arguments are those of its constructor"
        ) from error
    needed = ("blocks", "forward_intermediates", "num_prefix_tokens", "patch_embed")
    if not all(hasattr(model, name) for name in needed):
        raise ConfigError(
            f"{recipe.name}: is a {type(model).__name__}; a vision transformer is needed, whose "
            f"patches stay in one grid"
        )
    return model


def _find_mlp(name: Any) -> Any:
    short = str(name).rpartition(".")[2]
    if short not in _MLPS:
        raise ConfigError(f"mlp_layer = {name!r}: is none of {', '.join(_MLPS)}")
    return getattr(timm.layers, short)


def fill_vit(model: Any, tensors: Mapping[str, Tensor], path: Path, *, smooth: bool = True) -> Any:
    """Load tensors into a model of `build_vit`, strictly: none missing, none left over.

    Position embeddings of another grid are resampled, bicubic with antialiasing, or bilinear
    without if not `smooth`; heads for labels are left out.

    Raises
    ------
    CheckpointError
        If patch, registers, depth or width differ, or a tensor is missing, left over or of another
        shape; names `path` and what to do.
    """
    if "embeddings.cls_token" in tensors:
        tensors = rename_transformers(tensors)
    _check_shape(model, tensors, path)
    convert = import_module(type(model).__module__).checkpoint_filter_fn
    resampling = {"interpolation": "bicubic" if smooth else "bilinear", "antialias": smooth}
    try:
        converted = convert(dict(tensors), model, **resampling)
    except (AssertionError, KeyError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path}: does not fit the model ({error})") from error
    converted = {name: value for name, value in converted.items() if not name.startswith(_HEADS)}
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    match_tensors(converted, expected, path, f"a {type(model).__name__} as configured")
    model.load_state_dict({n: v.float() for n, v in converted.items()}, assign=True)
    return model


def _check_shape(model: Any, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Explain a misfit that would otherwise be a list of shapes, or be resampled silently."""
    kernel = tensors.get("patch_embed.proj.weight")
    patch = model.patch_embed.patch_size[0]
    if kernel is not None and kernel.ndim == 4 and kernel.shape[-1] != patch:
        raise CheckpointError(
            f"{path}: its patches are of {kernel.shape[-1]} px, those of the model {patch} px; if "
            f"it is the right file, set encoder_options.arguments="
            f"{{patch_size: {kernel.shape[-1]}}}"
        )
    embedding = next((tensors[n] for n in ("reg_token", "register_tokens") if n in tensors), None)
    registers = 0 if embedding is None else embedding.shape[1]
    wanted = 0 if getattr(model, "reg_token", None) is None else model.reg_token.shape[1]
    if registers != wanted:
        raise CheckpointError(
            f"{path}: holds {registers or 'no'} register tokens, the model has {wanted or 'none'}; "
            f"if it is the right file, set encoder_options.arguments={{reg_tokens: {registers}}}"
        )
    depth = 1 + max((int(n.split(".")[1]) for n in tensors if n.startswith("blocks.")), default=-1)
    width = 0 if kernel is None else kernel.shape[0]
    if depth and width and (depth, width) != (len(model.blocks), model.embed_dim):
        raise CheckpointError(
            f"{path}: has {depth} blocks of width {width}, the model {len(model.blocks)} of "
            f"{model.embed_dim}: it is another model's file"
        )


def read_vit(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Read the trunk's tensors, and the others where a file has more (CONCH v1.5's pooler)."""
    tensors = read_tensors(path)
    if "trunk.cls_token" not in tensors:
        return tensors, {}
    trunk = {n.removeprefix("trunk."): v for n, v in tensors.items() if n.startswith("trunk.")}
    return trunk, {n: v for n, v in tensors.items() if not n.startswith("trunk.")}
