import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tifffile

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


HELP = {"numpy", "rich", "torch", "yaml", "zarr"}
"""What `--help` has no use for; it would make it slow to come."""
TILE = {"dask", "jinja2", "scipy.ndimage", "shapely", "tiffslide", "torch"}
"""What `tile` has no use for where no pen has drawn and no outline is written."""


def loaded(*arguments: str) -> set[str]:
    """The modules that a command has loaded in the end, in a process of its own."""
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('loaded', *sys.modules))\n"
        "from wsiseg.cli import app\n"
        f"app({list(arguments)}, prog_name='wsiseg')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_help_loads_nothing_heavy():
    assert not loaded("--help") & (HELP | {"pydantic"})
    assert not loaded("annotate", "--help") & HELP  # typer reads options with pydantic


def test_tile_loads_what_it_uses(tmp_path):
    image = np.full((64, 96, 3), 244, np.uint8)
    image[16:48, 16:64] = 190, 110, 170
    slide = tmp_path / "a.tif"
    tifffile.imwrite(slide, image, photometric="rgb", tile=(32, 32), compression="zlib")
    modules = loaded(
        "tile", str(slide), "-o", str(tmp_path / "a.zarr"), "--mpp-override", "8",
        "--set", "tile.mpp=8", "--set", "tile.tile=32", "--set", "tile.block=64",
    )  # fmt: skip
    assert "zarr" in modules
    assert not modules & TILE


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
