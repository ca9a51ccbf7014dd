from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsiseg.annotations import BACKGROUND, PALETTES
from wsiseg.demo import Truth
from wsiseg.demo.compare import _HEADER, write_compare
from wsiseg.grid import TileGrid
from wsiseg.store import SlideStore


@pytest.mark.parametrize("label", [0, 2])
def test_three_panels_side_by_side(made: tuple[Path, Truth], tmp_path: Path, label: int) -> None:
    path, truth = made
    height, width = truth.labels.shape
    store = SlideStore.create(
        tmp_path / "s.zarr", TileGrid(height, width, 224, 224, 1792), 0.5, {"name": "one.svs"}
    )
    store.create_labels(PALETTES["bcss"])
    mapped = np.full((height, width), label, np.uint8)
    store.write_labels(0, 0, mapped, mapped)
    write_compare(path, store, truth, tmp_path / "c.png")
    sheet = np.asarray(Image.open(tmp_path / "c.png").convert("RGB"))
    body = sheet[_HEADER:-_HEADER]
    step = 2  # of 1536 px, to fit into 900
    shown = truth.labels[::step, ::step]
    panels = np.split(body, [768, 780, 1548, 1560], axis=1)[::2]
    assert {panel.shape for panel in panels} == {(*shown.shape, 3)}
    assert panels[0][shown == BACKGROUND].min(axis=1).mean() > 225
    for k, color in enumerate(PALETTES["bcss"].colors):
        assert (panels[1][shown == k] == color).all()
    assert (panels[2] == PALETTES["bcss"].colors[label]).all()
