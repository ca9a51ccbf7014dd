import re
import subprocess
import sys
from pathlib import Path

import pytest

from wsiseg.errors import CheckpointError
from wsiseg.model.catalog import CATALOG, SHIPPED, find_named
from wsiseg.model.checkpoint import find_checkpoint, read_info


def test_names_are_unique_and_what_ships_is_a_checkpoint_that_loads():
    names = [row.name for row in CATALOG]
    assert len(set(names)) == len(names)
    assert {row.name: row.path for row in CATALOG if row.file} == SHIPPED
    for name, path in SHIPPED.items():
        assert find_named(name).kind == "checkpoint"
        assert find_checkpoint(name) == path
        assert read_info(name).names


@pytest.mark.parametrize("row", [row for row in CATALOG if not row.file], ids=lambda row: row.name)
def test_what_is_elsewhere_says_how_to_get_it(row):
    repository = row.page.removeprefix("https://huggingface.co/")
    assert re.match(rf"hf download {repository}( |$)", row.fetch)
    assert row.megabytes > 0
    assert row.use
    assert row.licence


def test_the_hub_repositories_are_those_that_the_encoders_ask_for():
    from wsiseg.model.encoders import conch, open_clip, segformer

    for name, module in (("conch", conch), ("mit-b1", segformer), ("quiltnet-b-16", open_clip)):
        page = f"https://huggingface.co/{module.HUB.removeprefix('hf-hub:')}"
        assert find_named(name).page == page


def test_an_encoder_is_no_checkpoint():
    with pytest.raises(CheckpointError, match="conch: is a frozen encoder for training, not a"):
        find_checkpoint("conch")
    assert find_named("nobody") is None


def test_a_file_may_be_called_as_a_row(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("conch").write_bytes(b"")
    assert find_checkpoint("conch") == Path("conch")


def test_the_table_loads_no_torch():
    code = "import sys, wsiseg.model.catalog; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
