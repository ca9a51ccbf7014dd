import errno
import io
import logging

import pytest

from wsiseg.errors import StoreError
from wsiseg.run.log import SLIDE, RunLog, open_log


def test_a_text_is_written_once_a_slide(tmp_path):
    path = tmp_path / "runs" / "a.log"
    with open_log(path):
        for slide in ("one", "one", "two"):
            SLIDE.set(slide)
            logging.getLogger("tifffile").warning("bad\noffset")
        SLIDE.set("")
        logging.getLogger("zarr").info("chatter")  # the libraries' levels are left alone
    lines = path.read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in lines if not line.startswith(" ")] == [
        "WARNING tifffile [one]: bad",
        "WARNING tifffile [two]: bad",
    ]
    assert lines[1] == "    offset"
    assert not [one for one in logging.getLogger().handlers if isinstance(one, RunLog)]


def test_what_ended_a_run_is_there_with_its_traceback(tmp_path):
    with pytest.raises(KeyboardInterrupt), open_log(tmp_path / "a.log"):
        raise KeyboardInterrupt
    text = (tmp_path / "a.log").read_text()
    assert "the run was ended by this" in text
    assert "Traceback" in text


def test_a_full_disk_ends_the_log_and_not_the_run(capsys):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, "No space left on device")

    log = RunLog(Full())
    logging.getLogger().addHandler(log)
    logging.getLogger("tifffile").warning("first")
    assert log not in logging.getLogger().handlers
    assert capsys.readouterr().err == ""


def test_a_log_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(StoreError, match=r"runs/a\.log: cannot be read or written"):
        open_log(tmp_path / "runs" / "a.log").__enter__()
