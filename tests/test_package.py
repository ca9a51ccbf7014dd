import subprocess
import sys

import wsiseg


def test_public_names_are_sorted_and_importable():
    assert wsiseg.__all__ == sorted(wsiseg.__all__)
    for name in wsiseg.__all__:
        assert callable(getattr(wsiseg, name))


def test_import_and_help_load_no_torch():
    code = (
        "import sys, wsiseg, wsiseg.cli\n"
        "from typer.testing import CliRunner\n"
        "assert CliRunner().invoke(wsiseg.cli.app, ['--help']).exit_code == 0\n"
        "assert not {'torch', 'zarr', 'numba', 'openslide'} & set(sys.modules), 'heavy'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
