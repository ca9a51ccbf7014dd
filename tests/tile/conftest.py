from __future__ import annotations

from pathlib import Path

import pytest

from tests.tile.slides import paint, save


@pytest.fixture(scope="module")
def slide_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("slides") / "a.tif", paint())
