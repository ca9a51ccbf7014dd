"""The options that commands share, and the settings that they add up to."""

from __future__ import annotations

import json
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
    typer.Option(help="YAML that tells people of the model; see configs/card.yaml."),
]
ConfigFile = Annotated[
    list[Path] | None,
    typer.Option("--config", "-c", help="YAML settings; of several, later ones go over earlier."),
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="One setting, as stitch.refine=false.")
]
EncoderOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Where the encoder is, if not on the hub: encoder_options.weights=PATH."
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
        help="serial, threads, processes, dask (workers here), a dask scheduler's tcp://HOST:PORT, "
        "or a cluster's FILE.yaml.",
    ),
]
Workers = Annotated[int | None, typer.Option(help="Workers; the number of cores if not given.")]
NameMap = Annotated[
    str | None,
    typer.Option(
        "--map", help='Classes renamed or merged, as "Tumour=Tumor,Tumor: invasive=Tumor".'
    ),
]
Manifest = Annotated[
    Path | None,
    typer.Option(
        help="CSV slide[,labels][,patient][,split]: whose labels, of whom, train or test."
    ),
]
StorePath = Annotated[
    str, typer.Argument(help="A slide's .zarr store: a folder, or a URL as s3://BUCKET/NAME.zarr.")
]

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors.")]
Prompts = Annotated[
    Path | None,
    typer.Option(help="Classes in words (configs/prompts/*.yaml), in place of a checkpoint."),
]
Devices = Annotated[
    str | None,
    typer.Option(help="Where the model runs: cpu, cuda, or several as cuda:0,cuda:1."),
]
MaxObjects = Annotated[
    int | None, typer.Option(help="Regions from which they become detections, not annotations.")
]
MaxVertices = Annotated[
    int | None, typer.Option(help="Vertices from which a slide's GeoJSON comes in parts.")
]
MaxMb = Annotated[
    float | None, typer.Option(help="MB from which GeoJSON is packed, and packed, in parts.")
]
Origin = Annotated[
    str | None,
    typer.Option(
        help="qupath: (0, 0) is the slide's bounds corner, as QuPath shows it; or level0."
    ),
]


def with_given(settings: list[str] | None, options: Mapping[str, object]) -> list[str]:
    """The settings of the command line, and those of its options by name that were given."""
    given = [f"{name}={_to_yaml(value)}" for name, value in options.items() if value is not None]
    return [*(settings or []), *given]


def with_map(settings: list[str] | None, text: str | None, name: str) -> list[str]:
    """The settings, and the classes that ``--map`` renames as the setting `name`."""
    from wsiseg.labels.names import parse_map

    if text is None:
        return settings or []
    return [*(settings or []), f"{name}={json.dumps(parse_map(text))}"]


def _to_yaml(value: object) -> object:
    """A path stays a string, whatever its name looks like, and a number a number, as 1e-5."""
    import yaml

    if isinstance(value, float):
        return yaml.safe_dump(value).splitlines()[0]
    return json.dumps(str(value)) if isinstance(value, Path) else value


def configure(model: type[_M], files: Files, settings: list[str] | None) -> _M:
    """The settings of the files, then those of the command line."""
    from wsiseg.config import load_config, parse_config

    data = override(load_config(files, model).model_dump(), settings, "--set")
    return parse_config(data, model, "the command line")


def read_encoder_options(settings: list[str] | None) -> dict[str, Any]:
    """The options of commands that take ``--set encoder_options.NAME=VALUE`` and no more."""
    given = override({"encoder_options": {}}, settings, "--set")
    others = sorted(given.keys() - {"encoder_options"})
    if others or not isinstance(given["encoder_options"], dict):
        raise typer.BadParameter(f"--set takes encoder_options.NAME=VALUE here, not {settings}")
    return dict(given["encoder_options"])


def override(data: dict[str, Any], settings: list[str] | None, option: str) -> dict[str, Any]:
    """Put each ``step.name=value`` of the command line into `data`."""
    import yaml

    for setting in settings or []:
        name, equals, value = setting.partition("=")
        if not equals:
            raise typer.BadParameter(f"{option} {setting!r} needs the form name=value")
        *parents, leaf = name.split(".")
        target: Any = data
        for depth, parent in enumerate(parents, start=1):
            target = target.setdefault(parent, {})
            if not isinstance(target, dict):
                group = ".".join(parents[:depth])
                raise typer.BadParameter(
                    f"{option} {setting!r}: {group} is one setting and holds no others, now it is "
                    f"{target!r}; give {group}=VALUE"
                )
        try:
            target[leaf] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            why = " ".join(str(error).split())
            raise typer.BadParameter(
                f"{option} {setting!r}: {value!r} is not valid YAML ({why})"
            ) from error
    return data
