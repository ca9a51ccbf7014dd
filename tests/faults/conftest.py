from __future__ import annotations

import pytest

from tests.faults.runs import CONFIG, NAMES, contents
from wsiseg.demo.synthesis import synthesize_slide
from wsiseg.run import annotate


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    for seed, name in enumerate(NAMES):
        synthesize_slide(folder / f"{name}.svs", width=1344, height=1344, seed=seed + 3)
    return folder


@pytest.fixture(scope="session")
def finished(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished")
    results = annotate(folder, out, CONFIG, executor="serial")
    assert [result.status for result in results] == ["done", "done"]
    return contents(out)
