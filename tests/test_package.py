import subprocess
import sys

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
