"""Settings files: YAML that may build on other files, and where each value came from."""

from __future__ import annotations

import ast
import difflib
import inspect
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from wsiseg.errors import ConfigError

__all__ = [
    "Files",
    "Settings",
    "describe_fields",
    "load_config",
    "load_yaml",
    "parse_config",
    "read_settings",
]

_M = TypeVar("_M", bound=BaseModel)  # PEP 695 syntax needs Python 3.12

Files = str | Path | Sequence[str | Path] | None
"""Settings files; later ones override earlier ones."""

_EXTENDS = "extends"


class _Loader(yaml.SafeLoader):
    """Refuses a key given twice in a mapping, of which YAML keeps the last in silence."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        first: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            name, line = (key.tag, str(key.value)), key.start_mark.line + 1
            if name in first:
                raise yaml.YAMLError(
                    f"line {line}: the key {key.value!r} was given in line {first[name]}; keep one"
                )
            first[name] = line
        return node


def load_yaml(text: str) -> Any:
    """Load YAML as `yaml.safe_load` does, but refuse a key given twice.

    Raises
    ------
    yaml.YAMLError
        If the text is not YAML, a mapping has a key twice, or a date does not exist.
    """
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except ValueError as error:
        raise yaml.YAMLError(f"a date or number in it does not exist ({error})") from error


def describe_fields(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstring under each field of a model, by name; a field without one is left out.

    pydantic can read them too, but does so for every model on every import, which takes half as
    long as `wsiseg --help`.
    """
    described: dict[str, str] = {}
    bases = [base for base in model.__mro__ if issubclass(base, BaseModel)]
    for part in reversed(bases[:-1]):  # not pydantic's own
        (parsed,) = ast.parse(textwrap.dedent(inspect.getsource(part))).body
        assert isinstance(parsed, ast.ClassDef)
        for field, text in pairwise(parsed.body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                match text:
                    case ast.Expr(value=ast.Constant(value=str(words))):
                        described[field.target.id] = inspect.cleandoc(words)
    return described


class Settings(NamedTuple):
    """The merged content of settings files."""

    data: dict[str, Any]
    origins: dict[str, str]
    """The file of each value, by its dotted name."""


def read_settings(files: Files) -> Settings:
    """Read YAML files, each of which overrides those before it.

    A file may say ``extends: FILE``, or list several, relative to its own folder; it overrides
    them. Mappings are merged key by key; any other value replaces the earlier one.

    Raises
    ------
    ConfigError
        If a file is missing, is not a YAML mapping, has a key twice, or extends itself.
    """
    merged = Settings({}, {})
    for path in [files] if isinstance(files, str | Path) else files or ():
        for part in _read_chain(Path(path), ()):
            _merge(merged, part)
    return merged


def load_config(files: Files, model: type[_M]) -> _M:
    """Read YAML files (`read_settings`) into `model`; ``None`` gives the defaults.

    Raises
    ------
    ConfigError
        As `read_settings` does, or if a key or value is invalid; the message names the file, the
        key and the closest known key.
    """
    settings = read_settings(files)
    return parse_config(settings.data, model, "settings", settings.origins)


def parse_config(
    data: dict[str, Any], model: type[_M], source: str, origins: Mapping[str, str] | None = None
) -> _M:
    """Validate `data` as `model`.

    Errors name `source` as the place of an invalid value, unless `origins` has its file.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        by_source: dict[str, list[str]] = {}
        for problem in error.errors():
            where = _find_origin([str(step) for step in problem["loc"]], origins or {}) or source
            by_source.setdefault(where, []).append(_explain(dict(problem), model))
        lines = [f"{where}: " + "; ".join(problems) for where, problems in by_source.items()]
        raise ConfigError("\n".join(lines)) from error


def _read_chain(path: Path, before: tuple[Path, ...]) -> Iterator[Settings]:
    """Yield the files that a file extends, then the file itself."""
    resolved = path.resolve()
    if resolved in before:
        chain = " -> ".join(str(file) for file in (*before, resolved))
        raise ConfigError(f"{path}: extends itself ({chain}); remove one of these `extends` lines")
    data = _read(path)
    bases = data.pop(_EXTENDS, [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{path}: extends = {bases!r}; give a file, or a list of files")
    for base in bases:
        yield from _read_chain(path.parent / base, (*before, resolved))
    yield Settings(data, dict.fromkeys(_names(data), str(path)))


def _read(path: Path) -> dict[str, Any]:
    try:
        data = load_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: is not valid YAML ({error})") from error
    data = {} if data is None else data
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: holds a {type(data).__name__}; a mapping of settings is needed")
    return data


def _names(data: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all values; an empty mapping counts as one."""
    for key, value in data.items():
        if isinstance(value, dict) and value:
            yield from _names(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _merge(base: Settings, over: Settings) -> None:
    _merge_data(base.data, over.data)
    replaced = [name for name in base.origins if any(_hides(new, name) for new in over.origins)]
    for name in replaced:
        del base.origins[name]
    base.origins.update(over.origins)


def _merge_data(base: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge_data(base[key], value)
        else:
            base[key] = value


def _hides(new: str, old: str) -> bool:
    """Whether the value `new` replaces `old`: the same name, one around it, or one within it."""
    return old == new or old.startswith(f"{new}.") or new.startswith(f"{old}.")


def _find_origin(steps: Sequence[str], origins: Mapping[str, str]) -> str | None:
    """Return the file of a value, or of the first value within it."""
    name = ".".join(steps)
    for length in range(len(steps), 0, -1):
        if ".".join(steps[:length]) in origins:
            return origins[".".join(steps[:length])]
    within = (file for other, file in origins.items() if other.startswith(f"{name}.") or not name)
    return next(within, None)


def _explain(problem: dict[str, Any], model: type[BaseModel]) -> str:
    where = ".".join(str(step) for step in problem["loc"])
    given = problem["input"]
    if problem["type"] == "tuple_type":
        return (
            f"{where} = {given!r}: give a list{'' if isinstance(given, dict) else f': [{given}]'}"
        )
    if problem["type"] != "extra_forbidden":
        return f"{where} = {given!r}: {problem['msg']}"
    owner: Any = model
    for step in problem["loc"][:-1]:
        is_index = isinstance(step, int)  # into a tuple, whose items all have one type
        owner = get_args(owner)[0] if is_index else owner.model_fields[step].annotation
        if NoneType in get_args(owner):  # `Model | None`: a setting that may be null
            owner = next(part for part in get_args(owner) if part is not NoneType)
    close = difflib.get_close_matches(str(problem["loc"][-1]), owner.model_fields, n=1, cutoff=0.3)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{where} is not a setting{hint}"
