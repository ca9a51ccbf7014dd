"""What packages, containers and public checks say of the project holds for the project."""

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = SETTINGS["project"]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
IGNORED = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
CHECK = yaml.safe_load((ROOT / ".github/workflows/check.yml").read_text(encoding="utf-8"))
PYTHONS = [m[1] for line in PROJECT["classifiers"] if (m := re.search(r":: (3\.\d+)$", line))]


def test_the_image_has_what_the_wheel_is_built_of():
    parts = [
        "pyproject.toml",
        PROJECT["readme"],
        *PROJECT["license-files"],
        *SETTINGS["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"],
    ]
    for part in parts:
        assert (ROOT / part).exists(), part
        assert f"!{part}" in IGNORED, part
    for entry in IGNORED:
        if entry.startswith("!"):
            assert (ROOT / entry[1:]).exists(), entry
    hidden = [entry for entry in IGNORED if not entry.startswith("!") and entry != "*"]
    version = SETTINGS["tool"]["hatch"]["version"]["path"]
    assert not any(fnmatch(version, entry) for entry in hidden)


def test_the_image_takes_a_supported_python_and_extras_that_exist():
    pythons = set(re.findall(r"^FROM python:([\d.]+)", DOCKERFILE, re.M))
    assert len(pythons) == 1
    assert pythons <= set(PYTHONS)
    extras = re.findall(r"\.whl\)\[([\w,]+)\]", DOCKERFILE)
    assert extras
    for extra in ",".join(extras).split(","):
        assert extra in PROJECT["optional-dependencies"], extra


def test_what_stages_start_from_and_copy_from_exists():
    stages = set()
    for line in DOCKERFILE.splitlines():
        if source := re.match(r"COPY --from=(\w+)|FROM (\w+) AS", line):
            assert (source[1] or source[2]) in stages, line
        if stage := re.match(r"FROM \S+ AS (\w+)", line):
            stages.add(stage[1])
    for target in re.findall(r"--target (\w+)", DOCKERFILE):
        assert target in stages


def test_supported_pythons_are_those_that_are_checked():
    assert CHECK["jobs"]["check"]["strategy"]["matrix"]["python"] == PYTHONS
    lowest = PYTHONS[0]
    assert PROJECT["requires-python"] == f">={lowest}"
    assert SETTINGS["tool"]["ruff"]["target-version"] == f"py{lowest.replace('.', '')}"
    assert SETTINGS["tool"]["mypy"]["python_version"] == lowest


@pytest.mark.parametrize("page", ["README.md", "docs/start.md"])
def test_readers_are_told_the_lowest_python(page):
    assert f"Python {PYTHONS[0]} or later" in (ROOT / page).read_text(encoding="utf-8")
