"""The notebooks and scripts of examples/ run from top to bottom, and show what they say."""

import re
import runpy
import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
PATIENCE = 1200
"""Seconds until a cell counts as stuck."""
SHOWS = {
    "cluster": [
        r"two +stitch +\d+ of \d+ blocks",
        "nothing was left",
        r"two \w+ \w+ equal",
        "SBATCH",
    ],
    "one_slide": ["slide: done", r"out/geojson/slide\.geojson", r"mean +IoU 0\.[6-9]"],
    "own_encoder": [r"\(1, 6, 28, 28\)", "^done $", "<image>"],
    "own_labels": ["^image Tumor Stroma", "^done {", r"mean +IoU 0\.[5-9]"],
    "reading_results": [r"\d+ regions; columns", "confidence 0\\.", "labels", "<image>"],
}
"""Patterns that must be found in what a notebook prints, in this order."""


def shown(notebook):
    """What the cells show, as text."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    for output in outputs:
        if output.output_type == "stream":
            yield output.text
        elif "image/png" in output.get("data", {}):
            yield "<image>\n"
        else:
            yield output.get("data", {}).get("text/plain", "") + "\n"


@pytest.fixture(scope="module")
def kernel():
    """One for all, as imports take longer than the rest; each notebook starts without names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # the suite's processes share the cores
        manager, client = start_new_kernel(startup_timeout=PATIENCE, kernel_name="python3")
    client.stop_channels()
    yield manager
    manager.shutdown_kernel(now=True)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_it_says(path, kernel, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    begin = new_code_cell(f"%reset -f\nimport os\nos.chdir({str(tmp_path)!r})\ndel os")
    notebook.cells.insert(0, begin)
    NotebookClient(notebook, km=kernel, timeout=PATIENCE, iopub_timeout=PATIENCE).execute()
    text = "".join(shown(notebook))
    assert not re.search("stderr|Warning|Traceback", text)
    at = 0
    for pattern in SHOWS[path.stem]:
        match = re.compile(pattern, re.M).search(text, at)
        assert match, f"{pattern!r} is not in what follows of\n{text[at:]}"
        at = match.end()
    assert {file.name for file in tmp_path.iterdir()} == {path.stem}, (
        "it writes in its folder alone"
    )


def test_notebooks_are_kept_without_outputs():
    assert {path.stem for path in NOTEBOOKS} == set(SHOWS)
    for path in NOTEBOOKS:
        cells = nbformat.read(path, as_version=4).cells
        assert all(not c.get("outputs") and c.get("execution_count") is None for c in cells), path


def test_links_lead_somewhere():
    for path in NOTEBOOKS:
        for target in re.findall(r"\]\(((?!http)[^)#]+)", path.read_text(encoding="utf-8")):
            assert (EXAMPLES / target).exists(), f"{path.name}: {target}"


def test_the_script_of_an_own_reader_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["own_reader.py", str(tmp_path)])
    runpy.run_path(str(EXAMPLES / "own_reader.py"), run_name="__main__")
    assert "at 0.5: (256, 256, 3)" in capsys.readouterr().out
