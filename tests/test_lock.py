import errno
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from wsiseg import lock as module
from wsiseg.errors import SlideReadError, StoreError
from wsiseg.lock import explained, hold


def test_one_holder_at_a_time(tmp_path):
    path = tmp_path / "deep" / "one.zarr"
    said = rf"one\.zarr: another run writes it \(process {os.getpid()} on"
    with hold(path), pytest.raises(StoreError, match=said), hold(path):
        pass
    with hold(path):
        pass
    assert not list(path.parent.iterdir())


def test_who_waits_has_its_turn(tmp_path):
    inside, most = 0, 0

    def work():
        nonlocal inside, most
        with hold(tmp_path / "table", wait_s=30):
            inside += 1
            most = max(most, inside)
            time.sleep(0.01)
            inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


@pytest.mark.skipif(sys.platform == "win32", reason="a process id tells nothing there")
def test_a_dead_process_leaves_it_open(tmp_path):
    code = (
        "import os, sys\nfrom wsiseg.lock import hold\n"
        "held = hold(sys.argv[1])\nheld.__enter__()\nos._exit(1)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")], check=False)
    assert (tmp_path / "x.lock").exists()
    with hold(tmp_path / "x"):
        pass
    assert not list(tmp_path.iterdir())


def test_old_parts_below_it_are_gone_in_the_end(tmp_path):
    out, other = tmp_path / "x.zarr", tmp_path / "y.zarr"
    for name, age in (("c/.0.1.2.part", 200), ("c/.1.1.2.part", 0), ("../y.zarr/.0.1.2.part", 200)):
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (time.time() - age, time.time() - age))
    with pytest.raises(StoreError, match="not ours"), hold(out):
        raise StoreError("not ours")
    with hold(out):
        assert len(os.listdir(out / "c")) == 2
    assert os.listdir(out / "c") == [".1.1.2.part"], "somebody may still write this one"
    assert os.listdir(other) == [".0.1.2.part"], "not what is held"


def test_another_machine_that_fell_silent_leaves_it_open(tmp_path):
    lock = tmp_path / "x.lock"
    lock.write_text(json.dumps({"token": "t", "host": "elsewhere", "pid": 1, "since": "then"}))
    with (
        pytest.raises(StoreError, match="process 1 on elsewhere, since then"),
        hold(tmp_path / "x"),
    ):
        pass
    os.utime(lock, (time.time() - 100, time.time() - 100))
    with hold(tmp_path / "x"):
        pass


def test_a_holder_is_heard(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_BEAT_S", 0.02)
    with hold(tmp_path / "x"):
        os.utime(tmp_path / "x.lock", (0, 0))
        deadline = time.monotonic() + 10
        while (tmp_path / "x.lock").stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_errors_of_the_disk_become_ours():
    said = r"out: cannot be read or written: No space left .* \(f\)"
    with pytest.raises(StoreError, match=said), explained("out"):
        raise OSError(errno.ENOSPC, "No space left on device", "f")
    with pytest.raises(SlideReadError, match="as it was"), explained("out"):
        raise SlideReadError("as it was")
    said = r"out: cannot be read or written: File name too long; choose a shorter name"
    with pytest.raises(StoreError, match=said), explained("out"):
        raise OSError(errno.ENAMETOOLONG, "File name too long")


def test_an_object_store_has_no_lock():
    with hold("memory://x"), hold("memory://x"):
        pass
