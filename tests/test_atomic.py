import pytest

from wsiseg.atomic import open_atomic


def test_the_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "a" / "b.txt"
    with open_atomic(path) as file:
        file.write(b"half")
        assert not path.exists()
    assert path.read_bytes() == b"half"
    assert [one.name for one in path.parent.iterdir()] == ["b.txt"]


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
