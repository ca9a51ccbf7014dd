import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import wsiseg


def test_public_names_are_sorted_and_importable():
    assert wsiseg.__all__ == sorted(wsiseg.__all__)
    for name in wsiseg.__all__:
        assert callable(getattr(wsiseg, name))


@pytest.mark.parametrize("first", ["wsiseg", "wsiseg.annotate", "wsiseg.cli"])
def test_annotate_is_the_function_whatever_was_imported_first(first, tmp_path):
    code = (
        f"import {first}\nimport wsiseg\nfrom wsiseg import SlideResult, annotate\n"
        "for call in (annotate, wsiseg.annotate):\n"
        "    try:\n        call('nowhere.svs', 'out')\n"
        "    except OSError as error:\n        assert 'nowhere.svs: does not exist' in str(error)\n"
        "    else:\n        raise SystemExit('no error')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


def test_import_and_help_load_no_torch():
    code = (
        "import sys, wsiseg, wsiseg.cli\n"
        "from typer.testing import CliRunner\n"
        "assert CliRunner().invoke(wsiseg.cli.app, ['--help']).exit_code == 0\n"
        "assert not {'torch', 'zarr', 'numba', 'openslide'} & set(sys.modules), 'heavy'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


ROOT = Path(__file__).resolve().parents[1]
OURS = {".py", ".typed", ".groovy", ".html", ".js", ".css", ".svg"}


def test_the_notice_names_what_the_wheel_holds_beside_our_code():
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    held = subprocess.run(
        ["git", "ls-files", "wsiseg"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    if not held:
        pytest.skip("not a checkout of git")
    for name in held:
        path = Path(name)
        if path.suffix in OURS and "vendor" not in path.parts:
            continue
        assert name in notice or path.name == "LICENSE.txt", name


def test_one_version_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    heading = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert heading
    assert heading[1] == version
