from __future__ import annotations

from pathlib import Path

import pytest

from wsiseg.demo import Truth, synthesize_slide

WIDTH, HEIGHT = 3071, 2561  # odd: the truth's last row and column lie half outside


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth]:
    path = tmp_path_factory.mktemp("synthesis") / "one.svs"
    return path, synthesize_slide(path, WIDTH, HEIGHT, seed=3)
