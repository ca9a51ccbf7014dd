import subprocess
import sys

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
