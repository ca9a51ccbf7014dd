from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from wsiseg.errors import MissingDependencyError, StoreError
from wsiseg.store import files as module
from wsiseg.store.files import Files, Folder, open_files


@pytest.fixture(params=["folder", "file", "memory", "s3"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    if request.param == "folder":
        return open_files(tmp_path / "a")
    if request.param == "file":
        return open_files((tmp_path / "a").as_uri())
    pytest.importorskip("obstore", reason="pip install 'wsiseg[cloud]'")
    if request.param == "memory":
        return open_files(f"memory://{uuid4().hex}/a")
    return open_files(f"{request.getfixturevalue('bucket')}/{uuid4().hex}")


def test_all_places_keep_files_alike(files: Files) -> None:
    assert files.empty()
    assert files.read("x/y") is None
    files.delete("x/y")
    files.write("x/y", [b"abc", b"", b"defgh"])
    assert not files.empty()
    assert files.read("x/y") == b"abcdefgh"
    with files.open("x/y") as file:
        assert file.end(3) == b"fgh"
        assert [bytes(part) for part in file.parts([(0, 2), (5, 8), (1, 2)])] == [
            b"ab",
            b"fgh",
            b"b",
        ]
    files.write("x/y", [b"new"])
    assert files.read("x/y") == b"new"
    assert files.each(files.read, ["x/y", "none", "x/y"]) == [b"new", None, b"new"]
    files.delete("x/y")
    assert files.read("x/y") is None
    with files.open("x/y") as file:
        assert file is None or file.end(3) is None
    files.write("x/empty", [])
    with files.open("x/empty") as file:
        assert file.end(3) == b"", "an empty file is there"
    files.write("x/a/b", [b"four"])
    files.sync(["x/empty", "x/a/b"])
    assert files.sizes("x") == {"x/empty": 0, "x/a/b": 4}
    assert files.sizes("x/a/b/c") == files.sizes("none") == {}


def test_a_service_without_suffix_ranges_is_asked_for_the_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As Azure's is, which cannot run here: its refusal is played, the rest is real."""
    obstore = pytest.importorskip("obstore", reason="pip install 'wsiseg[cloud]'")
    files = open_files(f"memory://{uuid4().hex}/a")
    files.write("x", [b"abcdefgh"])
    files.write("empty", [])
    get, refused = obstore.get, []

    def refuse(store: Any, path: str, *, options: Any = None) -> Any:
        if "suffix" in (options or {}).get("range", ()):
            refused.append(path)
            raise obstore.exceptions.NotSupportedError("suffix ranges")
        return get(store, path, options=options)

    monkeypatch.setattr(obstore, "get", refuse)
    for key, end in (("x", b"fgh"), ("none", None), ("empty", b""), ("x", b"fgh")):
        with files.open(key) as file:
            assert file.end(3) == end
    with files.open("x") as file:
        assert file.end(30) == b"abcdefgh"
    assert len(refused) == 1, "it is asked for once"


def test_a_file_that_is_being_read_is_replaced_under_no_reader(tmp_path: Path) -> None:
    files = Folder(tmp_path)
    files.write("x", [b"old"])
    with files.open("x") as file:
        assert file is not None
        if sys.platform != "win32":
            files.write("x", [b"longer"])
        assert file.end(3) == b"old"


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    files = Folder(tmp_path)
    files.write("x", [b"old"])

    def parts():
        yield b"ne"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write("x", parts())
    assert os.listdir(tmp_path) == ["x"]
    assert files.read("x") == b"old"


def test_places_that_cannot_be_used_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        StoreError, match=r"s3:/a/b: is a URL that was converted to a Path; pass it as"
    ):
        open_files(Path("s3://a/b"))
    pytest.importorskip("obstore", reason="pip install 'wsiseg[cloud]'")
    with pytest.raises(StoreError, match=r"foo://a/b: .*foo"):
        open_files("foo://a/b")
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(MissingDependencyError, match=r"gs://a/b: .*pip install 'wsiseg\[cloud\]'"):
        open_files("gs://a/b")


def test_a_service_that_fails_is_named(bucket: str) -> None:
    files = open_files(f"{bucket}-that-is-not/a")
    with pytest.raises(StoreError, match=r"s3://.*-that-is-not/a: "):
        files.write("x", [b"abc"])


def test_a_file_that_was_replaced_is_synced_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inodes: list[int] = []
    monkeypatch.setattr(module, "_sync", lambda path: inodes.append(Path(path).stat().st_ino))
    folder = Folder(tmp_path)
    for content in (b"old", b"new"):
        folder.write("x", [content])
        (tmp_path / content.decode()).hardlink_to(tmp_path / "x")  # keeps its inode its own
        if content == b"old":
            folder.begin_sync("x")
    folder.sync(["x"])
    assert (tmp_path / "new").stat().st_ino in inodes


def test_a_file_that_vanishes_while_a_folder_is_listed_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a writer's temporary file does: marks were taken for missing."""
    (tmp_path / "done").mkdir()
    for name in (".part", "c.0.0", "c.1.0"):
        (tmp_path / "done" / name).write_text("x")
    scan = os.scandir

    @contextmanager
    def vanish(path: str) -> Any:
        with scan(path) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
        (tmp_path / "done" / ".part").unlink()
        yield listed

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", vanish)
        sizes = Folder(tmp_path).sizes("done")
    assert sizes == {"done/c.0.0": 1, "done/c.1.0": 1}
