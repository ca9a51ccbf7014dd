"""Commands that inspect a slide, a file, a store, the settings or the installation."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer

from wsiseg.cli.app import FILES, LOOK, app
from wsiseg.cli.options import ConfigFile, MppOverride, Settings, configure
from wsiseg.cli.show import complain, print_facts, print_table, progress_bars, say
from wsiseg.errors import WsisegError

__all__ = ["check", "doctor", "info", "init", "lint", "show_config"]


_GEOJSON = (".geojson", ".geojson.gz")


@app.command(rich_help_panel=FILES, epilog="Example: wsiseg init SLIDES")
def init(
    folder: Annotated[Path, typer.Argument(help="A folder of slides or of labelled patches.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file; FOLDER/wsiseg.yaml if not given.")
    ] = None,
) -> None:
    """Inspect a folder, write settings that fit it, and suggest the next command."""
    from wsiseg.survey import describe, next_command, survey_folder, write_settings

    with progress_bars() as bars:
        survey = survey_folder(folder, bars)
        written = write_settings(survey, out) if survey.slides else None
    for line in describe(survey):
        say(line)
    if written is not None:
        say(f"Settings: {written}")
    say(f"Next: {next_command(survey, written)}")


@app.command(rich_help_panel=LOOK, epilog="Example: wsiseg info slide.svs")
def info(
    slide: Annotated[Path, typer.Argument(help="A slide.")], mpp_override: MppOverride = None
) -> None:
    """Show what is known about one slide."""
    from wsiseg.config import SlideConfig, parse_config
    from wsiseg.slide import open_slide

    config = parse_config({"mpp_override": mpp_override}, SlideConfig, "the command line")
    with open_slide(slide, config) as opened:
        facts = {
            "reader": opened.reader,
            "vendor": opened.vendor,
            "size": f"{opened.size.width} x {opened.size.height} px",
            "mpp": f"{opened.mpp.x:g} x {opened.mpp.y:g} ({opened.mpp_source})",
            "objective": f"{opened.objective:g}" if opened.objective else "unknown",
            "bounds": "x {} y {} width {} height {}".format(*opened.bounds),
            "levels": ", ".join(f"{s.width} x {s.height}" for s in opened.level_sizes),
            "associated images": ", ".join(opened.associated) or "none",
        }
        notes = opened.notes
    print_facts(facts)
    for note in notes:
        complain(f"warning: {note}")


@app.command(rich_help_panel=FILES, epilog="Example: wsiseg lint out/geojson/slide.geojson")
def lint(
    files: Annotated[
        list[Path], typer.Argument(help="GeoJSON files from any source, or folders of them.")
    ],
    fix: Annotated[bool, typer.Option("--fix", help="Write a repaired copy.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The copy; NAME.fixed.geojson if not given.")
    ] = None,
) -> None:
    """Check GeoJSON files against all rules of QuPath's importer, or repair them."""
    if out is not None and (not fix or len(files) != 1 or files[0].is_dir()):
        raise typer.BadParameter("--out names one repaired copy: give --fix and a single file")
    found = [file for given in files for file in _find_geojson(given)]
    clean = [_fix(file, out) if fix else _lint(file) for file in found]
    if not all(clean):
        raise typer.Exit(1)


def _find_geojson(given: Path) -> list[Path]:
    """Return the GeoJSON files of a folder, without repaired copies; or the file itself."""
    if not given.is_dir():
        return [given]
    found = sorted(path for end in _GEOJSON for path in given.glob(f"*{end}"))
    kept = [path for path in found if ".fixed." not in path.name]
    if not kept:
        raise typer.BadParameter(f"{given}: holds no {' or '.join(_GEOJSON)} file")
    return kept


def _lint(file: Path) -> bool:
    """Print what is wrong with a file; return whether QuPath imports all of it."""
    from wsiseg.qupath import lint_geojson

    findings = lint_geojson(file)
    for finding in findings:
        say(f"{file}: {finding}")
    if not findings:
        say(f"{file}: clean")
    return all(finding.severity != "error" for finding in findings)


def _fix(file: Path, out: Path | None) -> bool:
    """Write a repaired copy of a file, print the repairs, and check the copy."""
    from wsiseg.qupath import fix_geojson

    copy, repairs = fix_geojson(file, out)
    for repair in repairs:
        say(f"{file}: {repair}")
    return _lint(copy)


@app.command(rich_help_panel=FILES, epilog="Example: wsiseg check out/slides/slide.zarr")
def check(
    stores: Annotated[list[str], typer.Argument(help=".zarr stores: folders or URLs.")],
) -> None:
    """Check every file of stores against its checksum; the next run repairs damage."""
    if not all([_check(store) for store in stores]):
        raise typer.Exit(1)


def _check(location: str) -> bool:
    """Print what is wrong with a store; return whether nothing is."""
    from wsiseg.store import check_store

    try:
        report = check_store(location)
    except WsisegError as error:  # the others are still checked
        complain(f"error: {error}")
        return False
    for fault in report.damage:
        say(f"{location}: {fault.key}: {fault.why}")
    for step, (left, total) in report.unfinished.items():
        say(f"{location}: {step}: {left:,} of {total:,} blocks are missing")
    if report.damage:
        say(f"{location}: repeat the command that made it, to redo only the damaged blocks")
    elif report.whole:
        caveat = "" if report.checked else ", as far as can be checked: its format has no checksums"
        say(f"{location}: complete ({report.files:,} files){caveat}")
    return report.whole


@app.command("config", rich_help_panel=FILES, epilog="Example: wsiseg config -c wsiseg.yaml")
def show_config(config: ConfigFile = None, settings: Settings = None) -> None:
    """Print the resulting settings as YAML, and where each comes from."""
    from wsiseg.config import Config
    from wsiseg.settings import read_settings

    resolved = configure(Config, config, settings).model_dump(mode="json")
    origins = read_settings(config).origins
    given = (setting.partition("=")[0] for setting in settings or ())
    origins |= dict.fromkeys(given, "--set")
    sys.stdout.write("".join(f"{line}\n" for line in _lay_out(resolved, origins)))


def _lay_out(
    data: Mapping[str, object], origins: Mapping[str, str], parent: str = ""
) -> Iterator[str]:
    """Yield lines of YAML; a comment names the origin of values that are not defaults."""
    import yaml

    indent = "  " * parent.count(".")
    for key, value in data.items():
        name = f"{parent}{key}"
        if isinstance(value, dict) and value:
            yield f"{indent}{key}:"
            yield from _lay_out(value, origins, f"{name}.")
        else:
            (text,) = yaml.safe_dump([value], default_flow_style=True, width=math.inf).splitlines()
            origin = f"  # {origins[name]}" if name in origins else ""
            yield f"{indent}{key}: {text[1:-1]}{origin}"


@app.command(rich_help_panel=FILES, epilog="Example: wsiseg doctor")
def doctor() -> None:
    """Report what is installed, what is missing, and what this machine is ready for.

    Exits with 1 only if it cannot make a first map.
    """
    from wsiseg.doctor import check_installation, check_purposes

    print_table(("part", "found", "what to do"), check_installation())
    purposes = check_purposes()
    for purpose in purposes:
        if purpose.missing:
            say(f"not ready for {purpose.name}: {purpose.missing}; {purpose.remedy}")
        else:
            say(f"ready for {purpose.name}: {purpose.remedy}")
    if any(purpose.needed and purpose.missing for purpose in purposes):
        raise typer.Exit(1)
