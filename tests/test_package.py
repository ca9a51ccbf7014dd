import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

import wsiseg


def test_public_names_are_sorted_and_importable():
    assert wsiseg.__all__ == sorted(wsiseg.__all__)
    for name in wsiseg.__all__:
        assert callable(getattr(wsiseg, name))


@pytest.mark.parametrize("first", ["wsiseg", "wsiseg.run", "wsiseg.cli"])
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
TILE = {"dask", "jinja2", "numba", "scipy", "shapely", "tiffslide", "torch", "zarr"}
"""What `tile` of a small slide has no use for where no pen has drawn and no outline is written.

Nor has `annotate` before the first block is about to begin.
"""


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


@pytest.fixture
def slide(tmp_path):
    image = np.full((240, 256, 3), 244, np.uint8)
    image[16:200, 16:224] = 190, 110, 170
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, image, photometric="rgb", tile=(32, 32), compression="zlib")
    return path


def test_tile_loads_what_it_uses(slide, tmp_path):
    modules = loaded(
        "tile", str(slide), "-o", str(tmp_path / "a.zarr"), "--mpp-override", "8",
        "--set", "tile.mpp=16", "--set", "tile.tile=32", "--set", "tile.block=64",
    )  # fmt: skip
    assert "wsiseg.slide.direct" in modules
    assert (tmp_path / "a.zarr" / "image" / "0" / "c").is_dir()
    assert not modules & TILE


def test_annotate_begins_before_it_loads_the_rest(slide, tmp_path):
    code = (
        "import os, sys\n"
        "from wsiseg.run import annotate\n"
        "from wsiseg.run.events import StepAdvanced\n"
        "from wsiseg.config import Config\n"
        "def look(event):\n"
        "    if isinstance(event, StepAdvanced):\n"
        "        print(*sys.modules, flush=True)\n"
        "        os._exit(0)\n"
        "config = Config.model_validate({'slide': {'mpp_override': 0.5}})\n"
        f"annotate({str(slide)!r}, {str(tmp_path / 'out')!r}, config, on_event=look)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    modules = set(done.stdout.split())
    assert "wsiseg.slide.direct" in modules, done.stderr
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
    version = wsiseg.__version__
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    heading = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert heading
    assert heading[1] == version
