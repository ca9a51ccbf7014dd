"""The options that commands share, and the settings that they add up to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from wsiseg.config import Config, load_config, parse_config

__all__ = [
    "ConfigFile",
    "Executor",
    "Inputs",
    "MaxMb",
    "MaxObjects",
    "MaxVertices",
    "MppOverride",
    "Out",
    "Settings",
    "StorePath",
    "Workers",
    "budget",
    "configure",
    "override",
]

Inputs = Annotated[list[Path], typer.Argument(help="Slides, folders of slides, or CSV manifests.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Output folder.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML settings; see `wsiseg config`.")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="One setting, as stitch.refine=false.")
]
MppOverride = Annotated[
    float | None, typer.Option(help="Level-0 µm/px to use instead of the metadata.")
]
Executor = Annotated[
    str, typer.Option(help="serial, threads, processes, dask, or a scheduler's tcp://HOST:PORT.")
]
Workers = Annotated[int | None, typer.Option(help="Workers; the number of cores if not given.")]
StorePath = Annotated[Path, typer.Argument(help="A slide's .zarr store.")]


MaxObjects = Annotated[
    int | None, typer.Option(help="Regions from which they become detections, not annotations.")
]
MaxVertices = Annotated[
    int | None, typer.Option(help="Vertices from which a slide's GeoJSON comes in parts.")
]
MaxMb = Annotated[
    float | None, typer.Option(help="MB from which GeoJSON is packed, and packed, in parts.")
]


def budget(
    settings: list[str] | None, objects: int | None, vertices: int | None, mb: float | None
) -> list[str]:
    """The settings of the command line, and those that have options of their own."""
    limits = {"objects": objects, "vertices": vertices, "mb": mb}
    own = [f"export.max_{name}={limit}" for name, limit in limits.items() if limit is not None]
    return [*(settings or []), *own]


def configure(path: Path | None, settings: list[str] | None, mpp: float | None) -> Config:
    """The settings of the file, then those of the command line."""
    data = load_config(path, Config).model_dump()
    override(data, settings, "--set")
    if mpp is not None:
        data["slide"]["mpp_override"] = mpp
    return parse_config(data, Config, "the command line")


def override(data: dict[str, Any], settings: list[str] | None, option: str) -> dict[str, Any]:
    """Put each ``step.name=value`` of the command line into `data`."""
    for setting in settings or []:
        name, equals, value = setting.partition("=")
        if not equals:
            raise typer.BadParameter(f"{option} {setting!r} needs the form name=value")
        *parents, leaf = name.split(".")
        target = data
        for parent in parents:
            target = target.setdefault(parent, {})
        target[leaf] = yaml.safe_load(value)
    return data
