import errno
import json
import os
import subprocess
import sys
import threading
import time
from uuid import uuid4

import pytest

from tests.waiting import wait_until
from wsiseg import lock as module
from wsiseg.errors import SlideReadError, StoreError
from wsiseg.lock import check_held, explained, hold
from wsiseg.lock.bucket import BucketLock
from wsiseg.lock.file import FileLock


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
        with hold(tmp_path / "table", wait_s=300):
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
    for text in (lock.read_text(), ""):  # also one that was made and never written
        lock.write_text(text)
        os.utime(lock, (time.time() - 100, time.time() - 100))
        with hold(tmp_path / "x"):
            pass


def test_a_holder_is_heard(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_BEAT_S", 0.02)
    with hold(tmp_path / "x"):
        os.utime(tmp_path / "x.lock", (0, 0))
        wait_until(lambda: (tmp_path / "x.lock").stat().st_mtime != 0, 60)


def test_errors_of_the_disk_become_ours():
    said = r"out: cannot be read or written: No space left .* \(f\)"
    with pytest.raises(StoreError, match=said), explained("out"):
        raise OSError(errno.ENOSPC, "No space left on device", "f")
    with pytest.raises(SlideReadError, match="as it was"), explained("out"):
        raise SlideReadError("as it was")
    said = r"out: cannot be read or written: File name too long; choose a shorter name"
    with pytest.raises(StoreError, match=said), explained("out"):
        raise OSError(errno.ENAMETOOLONG, "File name too long")


def test_what_no_other_process_sees_has_no_lock():
    with hold("memory://x") as token, hold("memory://x"):
        check_held("memory://x", token)


def test_ages_are_by_the_clock_of_the_file_system(tmp_path, monkeypatch):
    """A machine whose clock runs ahead took every lock for old, and every part for left behind."""
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / ".0.1.2.part").touch()
    lock = tmp_path / "x.lock"
    lock.write_text(json.dumps({"token": "t", "host": "elsewhere", "pid": 1, "since": "then"}))
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 3600)
    with pytest.raises(StoreError, match="another run writes it"), hold(tmp_path / "x"):
        pass
    lock.unlink()
    with hold(tmp_path / "x"):
        pass
    assert os.listdir(tmp_path) == ["x"]
    assert os.listdir(tmp_path / "x") == [".0.1.2.part"]


def test_who_was_taken_over_learns_it_and_stops(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_BEAT_S", 0.02)
    monkeypatch.setattr(module, "_RETRY_S", 0)
    path, other = tmp_path / "x", {"token": "t", "host": "elsewhere", "pid": 7, "since": "now"}
    said = r"x: this run no longer holds it: process 7 on elsewhere, since now took over"
    held = hold(path)
    token = held.__enter__()
    check_held(path, token)
    (beat,) = (one for one in threading.enumerate() if "_beat" in one.name)
    FileLock(path).path.write_text(json.dumps(other))
    wait_until(lambda: not beat.is_alive(), 60)
    os.utime(tmp_path / "x.lock", (0, 0))
    with pytest.raises(StoreError, match=said):
        check_held(path, token)
    with pytest.raises(StoreError, match=said):
        held.__exit__(None, None, None)
    assert (tmp_path / "x.lock").stat().st_mtime == 0, "another's lock was kept alive"
    assert FileLock(path).read() == other
    with hold(path) as token:  # silent for long
        (tmp_path / "x.lock").unlink()
        with pytest.raises(StoreError, match="its lock was deleted"):
            check_held(path, token)
        FileLock(path).create({"token": token})


def test_a_lock_that_is_being_restored_is_held(tmp_path, monkeypatch):
    """By a run that took it over by mistake, and got no turn for a while."""
    lock, aside, naps = tmp_path / "x.lock", tmp_path / "aside", []

    def nap(seconds):
        naps.append(seconds)
        if len(naps) == 5:
            aside.rename(lock)

    with hold(tmp_path / "x") as token:
        lock.rename(aside)
        with monkeypatch.context() as patch:
            patch.setattr(time, "sleep", nap)
            check_held(tmp_path / "x", token)
    assert len(naps) == 5


def test_what_cannot_be_locked_is_not_left_locked(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("dumps", "now"):
        with monkeypatch.context() as patch:
            patch.setattr(*((FileLock, name) if name == "now" else (json, name)), fail)
            with pytest.raises(StoreError, match="No space left"), hold(tmp_path / "x"):
                pass
        assert list(tmp_path.iterdir()) == []
    with hold(tmp_path / "x"):
        pass


def test_a_failure_is_not_hidden_by_the_lost_lock(tmp_path):
    def work():
        with hold(tmp_path / "x"):
            (tmp_path / "x.lock").unlink()
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        work()


def test_a_bucket_is_locked_as_a_folder_is(bucket, monkeypatch):
    monkeypatch.setattr(module, "_RETRY_S", 0)
    url = f"{bucket}/{uuid4().hex}/a.zarr"
    said = rf"a\.zarr: another run writes it \(process {os.getpid()} on"
    with hold(url) as token:
        check_held(url, token)
        with pytest.raises(StoreError, match=said), hold(url):
            pass
        with pytest.raises(StoreError, match="this run no longer holds it"):
            check_held(url, "another")
    assert BucketLock(url).read() == {}
    monkeypatch.setattr(module, "_STALE_S", -1.0)
    first = hold(url)
    token = first.__enter__()
    with hold(url) as second:
        check_held(url, second)
        with pytest.raises(StoreError, match="took over"):
            check_held(url, token)
    with pytest.raises(StoreError, match="its lock was deleted"):
        first.__exit__(None, None, None)
    with hold(url):
        pass
    assert BucketLock(url).read() == {}


def test_of_two_who_take_a_bucket_over_one_has_it(bucket):
    lock = BucketLock(f"{bucket}/{uuid4().hex}/a.zarr")
    gone = {"token": "gone"}
    assert lock.create(gone)
    assert not lock.create({"token": "a"})
    lock.touch("gone")
    heard = lock.read()
    assert not lock.take_over(gone, {"token": "a"}), "it was heard of since"
    assert lock.take_over(heard, {"token": "a"})
    assert not lock.take_over(heard, {"token": "b"})
    assert 0 <= lock.silence() < 60
    lock.touch("gone")
    lock.release("gone")
    assert lock.read() == {"token": "a"}
    lock.release("a")
    assert (lock.read(), lock.silence()) == ({}, 0)


def test_a_bucket_that_is_not_there_is_named(bucket):
    with (
        pytest.raises(StoreError, match=r"s3://.*-that-is-not/a\.lock: "),
        hold(f"{bucket}-that-is-not/a"),
    ):
        pass
