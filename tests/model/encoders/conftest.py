"""Weight files in the official layouts, filled with synthetic values, made once a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

from tests.model import golden
from wsiseg.model.encoders import Encoder, load_encoder


@pytest.fixture(scope="session")
def conch_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("conch") / "pytorch_model.bin"
    torch.save(golden.make_tensors("conch"), path)
    yield path
    path.unlink()  # 800 MB: pytest would keep it for the next sessions


@pytest.fixture(scope="session")
def conch_at(conch_file: Path) -> Callable[[int], Encoder]:
    """CONCH for images of a size, loaded once; tests leave it as it is."""
    return cache(lambda size: load_encoder("conch", weights=conch_file, image_size=size))


@pytest.fixture(scope="session")
def hollow_conch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hollow") / "pytorch_model.bin"
    torch.save(golden.make_hollow("conch"), path)
    return path


@pytest.fixture(scope="session")
def mit_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("mit")
    made = {
        "hub": (folder / "pytorch_model.bin", golden.make_tensors("mit_b1")),
        "official": (folder / "mit_b1.pth", golden.make_official_mit()),
    }
    for path, tensors in made.values():
        torch.save(tensors, path)
    return {naming: path for naming, (path, _) in made.items()}
