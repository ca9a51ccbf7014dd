"""Options shared by commands, and the settings that result from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel

    from wsiseg.settings import Files

__all__ = [
    "CardFile",
    "CheckpointOut",
    "ConfigFile",
    "Devices",
    "EncoderOptions",
    "Executor",
    "Inputs",
    "Manifest",
    "MaxMb",
    "MaxObjects",
    "MaxVertices",
    "MppOverride",
    "NameMap",
    "Origin",
    "Out",
    "Prompts",
    "Quiet",
    "Settings",
    "StorePath",
    "Workers",
    "configure",
    "override",
    "read_encoder_options",
    "with_given",
    "with_map",
]

_M = TypeVar("_M", bound="BaseModel")

Inputs = Annotated[list[Path], typer.Argument(help="Slides, folders of slides, or CSV manifests.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Output folder.")]
CheckpointOut = Annotated[
    Path, typer.Option("--out", "-o", help="The checkpoint (.safetensors) to write.")
]
CardFile = Annotated[
    Path | None,
    typer.Option(help="A model card as YAML; see configs/card.yaml."),
]
ConfigFile = Annotated[
    list[Path] | None,
    typer.Option("--config", "-c", help="YAML settings; later files override earlier ones."),
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="One setting, such as stitch.refine=false.")
]
EncoderOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="The encoder's weights, if not on the hub: encoder_options.weights=PATH."
    ),
]
MppOverride = Annotated[
    float | None, typer.Option(help="Level-0 µm/px to use instead of the metadata.")
]
Executor = Annotated[
    str,
    typer.Option(
        "--executor",
        "--scheduler",
        help="serial, threads, processes, dask (local workers), a dask scheduler's "
        "tcp://HOST:PORT, or a cluster's FILE.yaml.",
    ),
]
Workers = Annotated[
    int | None, typer.Option(help="Number of workers; one per core if not given.", min=1)
]
NameMap = Annotated[
    str | None,
    typer.Option(
        "--map",
        help='Classes to rename or merge, as "Tumour=Tumor,Tumor: invasive=Tumor", or as JSON.',
    ),
]
Manifest = Annotated[
    Path | None,
    typer.Option(help="CSV slide[,labels][,patient][,split]; split is train or test."),
]
StorePath = Annotated[
    str,
    typer.Argument(help="A slide's .zarr store: a folder, or a URL such as s3://BUCKET/NAME.zarr."),
]

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only warnings and errors.")]
Prompts = Annotated[
    Path | None,
    typer.Option(help="Classes in words (configs/prompts/*.yaml), instead of a checkpoint."),
]
Devices = Annotated[
    str | None,
    typer.Option(help="Devices for the model: cpu, cuda, or several as cuda:0,cuda:1."),
]
MaxObjects = Annotated[
    int | None,
    typer.Option(help="More regions than this are written as detections."),
]
MaxVertices = Annotated[
    int | None, typer.Option(help="More vertices than this are written in parts.")
]
MaxMb = Annotated[
    float | None,
    typer.Option(help="Larger GeoJSON (MB) is compressed, then written in parts."),
]
Origin = Annotated[
    str | None,
    typer.Option(
        help="qupath: (0, 0) is the corner of the slide's bounds, as in QuPath; or level0."
    ),
]


def with_given(settings: list[str] | None, options: Mapping[str, object]) -> list[str]:
    """Return the settings of the command line, and those of its options that were given."""
    given = [f"{name}={_to_yaml(value)}" for name, value in options.items() if value is not None]
    return [*(settings or []), *given]


def with_map(settings: list[str] | None, text: str | None, name: str) -> list[str]:
    """Return the settings, with the classes that ``--map`` renames as the setting `name`."""
    from wsiseg.labels.names import parse_map

    if text is None:
        return settings or []
    return with_given(settings, {name: parse_map(text)})


def _to_yaml(value: object) -> object:
    """Quote paths and mappings of names, so that all stay strings; write 1e-5 as YAML reads it."""
    import yaml

    if isinstance(value, float):
        return yaml.safe_dump(value).splitlines()[0]
    if not isinstance(value, Path | dict):
        return value
    plain = str(value) if isinstance(value, Path) else value
    # On one line, with every letter beyond ASCII escaped as YAML does it, which JSON does not.
    return yaml.safe_dump(plain, default_style='"', default_flow_style=True, width=math.inf).strip()


def configure(model: type[_M], files: Files, settings: list[str] | None) -> _M:
    """Read the settings of the files, overridden by those of the command line."""
    from wsiseg.config import load_config, parse_config

    data = override(load_config(files, model).model_dump(), settings, "--set")
    return parse_config(data, model, "the command line")


def read_encoder_options(settings: list[str] | None) -> dict[str, Any]:
    """Return the options of commands that accept only ``--set encoder_options.NAME=VALUE``."""
    given = override({"encoder_options": {}}, settings, "--set")
    others = sorted(given.keys() - {"encoder_options"})
    if others or not isinstance(given["encoder_options"], dict):
        raise typer.BadParameter(
            f"--set takes only encoder_options.NAME=VALUE here, not {settings}"
        )
    return dict(given["encoder_options"])


def override(data: dict[str, Any], settings: list[str] | None, option: str) -> dict[str, Any]:
    """Put each ``step.name=value`` of the command line into `data`."""
    import yaml

    from wsiseg.settings import load_yaml

    for setting in settings or []:
        name, equals, value = setting.partition("=")
        if not equals or not all(map(str.strip, name.split("."))):
            raise typer.BadParameter(f"{option} {setting!r} needs the form name=value")
        *parents, leaf = name.split(".")
        target: Any = data
        for depth, parent in enumerate(parents, start=1):
            target = target.setdefault(parent, {})
            if not isinstance(target, dict):
                group = ".".join(parents[:depth])
                raise typer.BadParameter(
                    f"{option} {setting!r}: {group} is a single setting without others in it, and "
                    f"is {target!r}; give {group}=VALUE"
                )
        try:
            target[leaf] = load_yaml(value)
        except yaml.YAMLError as error:
            why = " ".join(str(error).split())
            raise typer.BadParameter(
                f"{option} {setting!r}: {value!r} is not valid YAML ({why})"
            ) from error
    return data
