"""Pages generated from the code: the commands, the settings, the public names.

They are written to `docs/reference/`, and copies of the notebooks to `docs/examples/`; git ignores
both.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from sphinx.application import Sphinx
from typer.main import get_command
from typer.testing import CliRunner

import wsiseg
from wsiseg import config
from wsiseg.cli import app
from wsiseg.settings import describe_fields

PLAIN = {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "96"}
STEPS = {
    "annotate": config.Config,
    "train, learn": config.TrainConfig,
    "labels (in train and learn)": config.LabelConfig,
    "evaluate": config.EvaluateConfig,
    "masks": config.MasksConfig,
    "distill": config.DistillConfig,
}


def setup(sphinx: Sphinx) -> dict[str, bool]:
    """Register the extension with Sphinx."""
    sphinx.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True}


def write_pages(sphinx: Sphinx) -> None:
    """Write the three pages, and copy the notebooks."""
    docs = Path(sphinx.srcdir)
    pages = {"commands": commands(), "settings": settings(), "api": names()}
    for name, lines in pages.items():
        _write(docs / "reference" / f"{name}.md", "\n".join(lines) + "\n")
    (docs / "examples").mkdir(exist_ok=True)
    for notebook in sorted((docs.parent / "examples").glob("*.ipynb")):
        text = notebook.read_text(encoding="utf-8")
        _write(docs / "examples" / notebook.name, text.replace("](../docs/", "](../"))


def _write(path: Path, text: str) -> None:
    """Write a file only if it changes, so that Sphinx does not read it again."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def commands() -> Iterator[str]:
    """Yield the help of every command, as on the terminal."""
    yield "# Commands\n"
    yield "The output of `wsiseg COMMAND --help`."
    yield "`wsiseg --install-completion` sets up completion in the shell.\n"
    for name in ["", *_command_names(get_command(app))]:
        words = [*name.split(), "--help"]
        shown = CliRunner().invoke(app, words, prog_name="wsiseg", env=PLAIN)
        assert shown.exit_code == 0, (name, shown.output)
        yield f"## {'wsiseg ' + name if name else 'wsiseg'}\n"
        yield f"```text\n{shown.output.strip()}\n```\n"


def _command_names(group: Any, before: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _command_names(command, f"{before}{name} ")
        elif not command.hidden:
            yield before + name


def settings() -> Iterator[str]:
    """Yield every setting with its default and meaning, from the models."""
    yield "# Settings\n"
    yield "Set them in a file with `-c FILE` (later files override earlier ones; a file may contain"
    yield "`extends: OTHER.yaml`), or one at a time with `--set SECTION.NAME=VALUE`."
    yield "`wsiseg config` prints the resulting values, and where each came from.\n"
    for name, model in STEPS.items():
        yield f"## {name}\n"
        fields = model.model_fields.items()
        sections = [(key, field.annotation) for key, field in fields if _is_model(field.annotation)]
        plain = [key for key, field in fields if not _is_model(field.annotation)]
        if plain:
            yield from _table(model, plain, "")
        for key, inner in sections:
            yield f"### {key}\n"
            yield f"{inner.__doc__}\n"
            yield from _nested(inner, f"{key}.")


def _nested(model: type[BaseModel], before: str) -> Iterator[str]:
    fields = model.model_fields.items()
    yield from _table(model, [k for k, f in fields if not _is_model(f.annotation)], before)
    for key, field in fields:
        if _is_model(field.annotation):
            yield from _nested(field.annotation, f"{before}{key}.")


def _table(model: type[BaseModel], keys: list[str], before: str) -> Iterator[str]:
    yield "| setting | default | meaning |\n|---|---|---|"
    meanings = describe_fields(model)
    for key in keys:
        field = model.model_fields[key]
        default = field.get_default(call_default_factory=True)
        meaning = re.sub(r"\s+", " ", meanings.get(key, "")).replace("``", "`")
        shown = "required" if field.is_required() else f"`{_plain(default)}`"
        yield f"| `{before}{key}` | {shown} | {_escape(meaning)} |"
    yield ""


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _plain(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple):
        return f"[{', '.join(map(_plain, value))}]"
    return str(value)


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def names() -> Iterator[str]:
    """Yield the public names with their docstrings."""
    yield "# Python\n"
    yield "All of these are names in `wsiseg`; its modules may change between versions.\n"
    for name in wsiseg.__all__:
        home = wsiseg._HOME[name]
        value = getattr(import_module(home), name)
        kind = "autofunction" if isinstance(value, types.FunctionType) else "autoclass"
        members = "\n   :members:" if kind == "autoclass" and not _is_model(value) else ""
        yield f"## {name}\n"
        yield f"```{{eval-rst}}\n.. {kind}:: {home}.{name}{members}\n```\n"
