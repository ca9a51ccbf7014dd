import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wsiseg.run import memory
from wsiseg.run.memory import measure_peak


@pytest.fixture
def children(monkeypatch):
    """Those that are counted: other tests' browsers come and go."""
    counted = []
    monkeypatch.setattr(memory, "_find_children", lambda process: counted)
    return counted


def test_the_peak_grows_with_what_was_held_and_stays(children):
    before = measure_peak()
    if before is None:
        pytest.skip("nobody counts memory here")
    held = np.ones(int(before * 1e6), np.uint8)  # more than this process ever held
    grown = measure_peak()
    del held
    assert grown > 50
    assert grown > 1.2 * before
    assert measure_peak() > 0.9 * grown  # kernels count in lots


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts workers in /proc")
def test_workers_count_too_while_they_run(children):
    code = "import sys; held = b'1' * 300_000_000; print('now', flush=True); sys.stdin.read()"
    alone = measure_peak()
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as worker:
        assert worker.stdout.readline() == b"now\n"
        children.append(str(worker.pid))
        assert measure_peak() > alone + 250
        worker.communicate()
    assert measure_peak() < alone + 250


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts workers in /proc")
def test_workers_of_workers_are_found():
    code = (
        "import subprocess, sys; part = subprocess.Popen([sys.executable, '-c', 'input()'], "
        "stdin=subprocess.PIPE); print(part.pid, flush=True); sys.stdin.read(); part.communicate()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as worker:
        part = int(worker.stdout.readline())
        assert {str(worker.pid), str(part)} <= set(memory._find_children("self"))
        worker.communicate()
