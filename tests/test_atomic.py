import os
import re
import signal
import subprocess
import sys
import time

import pytest

from wsiseg.atomic import free_name, open_atomic, remove_parts


def test_the_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "a" / "b.txt"
    with open_atomic(path) as file:
        file.write(b"half")
        assert not path.exists()
    assert path.read_bytes() == b"half"
    assert [one.name for one in path.parent.iterdir()] == ["b.txt"]


@pytest.mark.parametrize("name", ["a" * 255, "日" * 85, "b" * 161])
def test_a_name_as_long_as_a_file_system_takes(tmp_path, name):
    for content in (b"first", b"second"):
        with open_atomic(tmp_path / name) as file:
            file.write(content)
    assert [one.name for one in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"second"


def test_a_failure_leaves_everything_as_it_was(tmp_path):
    path = tmp_path / "b.txt"
    path.write_bytes(b"before")

    def fail():
        with open_atomic(path) as file:
            file.write(b"half")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert path.read_bytes() == b"before"
    assert [one.name for one in tmp_path.iterdir()] == ["b.txt"]


def test_a_folder_that_is_none_and_a_target_that_is_one_are_named(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "full").mkdir(parents=True)
    for path in (tmp_path / "file" / "a.txt", tmp_path / "folder"):
        with pytest.raises(OSError, match=re.escape(f"'{path}'")), open_atomic(path) as file:
            file.write(b"x")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file", "folder"]


SHORT = """
import resource, signal, sys
import numpy as np
from PIL import Image
from wsiseg.atomic import write_picture
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
noise = np.random.default_rng(0).integers(0, 255, (400, 400, 3), dtype=np.uint8)
resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, resource.RLIM_INFINITY))
write_picture(Image.fromarray(noise), sys.argv[1], sys.argv[2])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of files are POSIX")
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_picture_that_the_disk_cannot_hold_is_an_error_and_leaves_nothing(tmp_path, kind):
    command = [sys.executable, "-c", SHORT, str(tmp_path / "a"), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"File too large: '{tmp_path / 'a'}'" in done.stderr
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, sys
from wsiseg.atomic import open_atomic
with open_atomic(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), 9)
"""
ZARR = "zarr.0123456789abcdef0123456789abcdef.partial"


@pytest.mark.skipif(sys.platform == "win32", reason="kills are POSIX")
def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path):
    target = tmp_path / "image" / "0"
    run = subprocess.run([sys.executable, "-c", KILLED, str(target)], check=False)
    assert run.returncode == -signal.SIGKILL
    (left,) = target.parent.iterdir()
    kept = ["0", ".hidden", "my.part", ".my.part", "zarr.partial", ".0.1.part"]
    for name in (*kept, ZARR):
        (target.parent / name).write_text("x")
    remove_parts(tmp_path, before=left.stat().st_mtime - 1)
    assert left.exists(), "it may still be written"
    remove_parts(tmp_path, before=time.time() + 1)
    assert sorted(os.listdir(target.parent)) == sorted(kept)
    remove_parts(tmp_path / "nowhere", before=time.time())


@pytest.mark.parametrize(
    ("name", "free"),
    [
        ("a.geojson", "a.edited.geojson"), ("a.b.geojson.gz", "a.b.edited.geojson.gz"),
        ("a.ome.tiff", "a.edited.ome.tiff"), ("a.svs.jpg", "a.svs.edited.jpg"),
        ("a", "a.edited"), ("A.JSON", "A.edited.JSON"),
    ],
)  # fmt: skip
def test_a_free_name_keeps_the_suffix_and_takes_nobodys_place(tmp_path, name, free):
    assert free_name(tmp_path / name, ".edited") == tmp_path / free
    (tmp_path / free).touch()
    assert free_name(tmp_path / name, ".edited").name == free.replace(".edited", ".edited2")
