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
    "MppOverride",
    "Out",
    "Settings",
    "StorePath",
    "Workers",
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
    str,
    typer.Option(
        "--executor",
        "--scheduler",
        help="serial, threads, processes, dask (workers here), a dask scheduler's tcp://HOST:PORT, "
        "or a cluster's FILE.yaml.",
    ),
]
Workers = Annotated[int | None, typer.Option(help="Workers; the number of cores if not given.")]
StorePath = Annotated[Path, typer.Argument(help="A slide's .zarr store.")]


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
