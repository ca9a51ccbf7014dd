"""What commands print: on a terminal, for programs, in logs; errors, warnings, others' noise."""

import errno
import json
import logging
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import threading
import warnings

import pytest
from typer.testing import CliRunner

from wsiseg.cli import app, show
from wsiseg.cli.messages import MESSAGES, listen
from wsiseg.cli.progress import Board
from wsiseg.cli.run_view import RunView
from wsiseg.demo.synthesis import synthesize_slide
from wsiseg.errors import WsisegWarning
from wsiseg.run.events import RunStarted, SlideFinished, SlideStarted, StepAdvanced
from wsiseg.run.slide import SlideResult

run = CliRunner()
SETTINGS = ["--set=tile.block=448", "--set=predict.checkpoint=tiny", "--executor=threads"]


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """A slide, and one of which the end, where its directories are, is cut off."""
    folder = tmp_path_factory.mktemp("slides")
    synthesize_slide(folder / "good.svs", width=1024, height=1024, seed=3)
    (folder / "cut.svs").write_bytes(struct.pack("<2sHI", b"II", 42, 1_275_950) + bytes(4096))
    return folder


@pytest.fixture(scope="module")
def finished(slides, tmp_path_factory):
    """A run over both, told as JSON."""
    out = tmp_path_factory.mktemp("out")
    done = run.invoke(app, ["annotate", str(slides), "-o", str(out), "--json", *SETTINGS])
    return done, out


def test_json_has_an_event_a_line_and_nothing_else(finished):
    done, _ = finished
    events = [json.loads(line) for line in done.stdout.splitlines()]
    names = [event["event"] for event in events]
    assert (names[0], names[-1]) == ("run_started", "run_finished")
    assert set(names) == {"run_started", "slide_started", "step", "slide_finished", "run_finished"}
    assert events[-1]["slides"] == {"done": 1, "failed": 1}
    assert events[-1]["error"] == ""
    ended = {event["slide"]: event for event in events if event["event"] == "slide_finished"}
    assert ended["good"]["status"] == "done"
    assert "cut.svs: not a slide" in ended["cut"]["error"]
    steps = [event for event in events if event["event"] == "step"]
    made = {"tile", "predict", "stitch", "outline"}  # too small for levels of its own
    assert {step["step"] for step in steps} == made
    last = {step["step"]: step for step in steps}
    assert all(step["done"] == step["total"] > 0 for step in last.values())
    assert all(last[step]["worker_seconds"] > 0 for step in ("tile", "predict", "stitch"))
    assert done.exit_code == 1


def test_the_log_of_a_run_holds_what_libraries_said_once(finished):
    done, out = finished
    (record,) = (out / "runs").glob("*T*.json")
    log = record.with_suffix(".log").read_text()
    assert log.count("invalid offset to first page") == 1
    assert "WARNING tifffile [cut]: " in log
    assert "good: done after" in log
    assert re.search(r"ERROR wsiseg.run: cut: failed after .*cut.svs: not a slide", log)
    assert "invalid offset" not in done.output


def test_others_noise_is_one_line_of_ours(slides):
    done = run.invoke(app, ["info", str(slides / "cut.svs")])
    assert done.exit_code == 1
    assert "invalid offset" not in done.output
    assert done.stderr.count("Messages of tifffile") == 1
    loud = run.invoke(app, ["--debug", "info", str(slides / "cut.svs")])
    assert loud.stderr.count("invalid offset") == 1
    assert "Traceback" in loud.stderr


def test_json_ends_with_the_error_that_ended_the_run(tmp_path):
    done = run.invoke(app, ["annotate", "nowhere.svs", "-o", str(tmp_path / "out"), "--json"])
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["event"] == "run_finished"
    assert "nowhere.svs: does not exist" in json.loads(line)["error"]
    assert "error: nowhere.svs: does not exist" in done.stderr
    assert done.exit_code == 1


def test_quiet_says_only_what_is_wrong(slides, tmp_path):
    done = run.invoke(
        app, ["annotate", str(slides / "cut.svs"), "-o", str(tmp_path / "out"), "--quiet"]
    )
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"failed: {slides / 'cut.svs'}: not a slide")
    assert done.exit_code == 1


@pytest.mark.parametrize("how", ["option", "environment", "none"])
def test_what_nobody_expected_is_a_line_and_its_traceback_is_for_debug(monkeypatch, how):
    def fail():
        raise KeyError("a fault")

    monkeypatch.setattr("wsiseg.doctor.check_installation", fail)
    arguments = ["--debug", "doctor"] if how == "option" else ["doctor"]
    done = run.invoke(app, arguments, env={"WSISEG_DEBUG": "1" if how == "environment" else ""})
    assert done.exit_code == 1
    assert "error: KeyError: 'a fault' (cli/checks.py, line " in done.stderr
    assert ("Traceback" in done.stderr) == (how != "none")
    assert ("`wsiseg --debug ...` shows" in done.stderr) == (how == "none")


def test_a_file_that_cannot_be_written_is_no_bug(monkeypatch):
    def fail():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out/a.geojson")

    monkeypatch.setattr("wsiseg.doctor.check_installation", fail)
    done = run.invoke(app, ["doctor"])
    assert done.exit_code == 1
    assert "out/a.geojson: cannot be read or written: No space left on device; free" in done.stderr
    assert "bug" not in done.stderr


@pytest.mark.parametrize(
    ("call", "work", "resumes"),
    [
        ("annotate a.svs -o out", "wsiseg.run.annotate", True),
        ("annotate a.svs -o out --json", "wsiseg.run.annotate", True),
        ("annotate a.svs -o out --overwrite", "wsiseg.run.annotate", False),
        ("tile a.svs -o a.zarr", "wsiseg.tile.tile_slide", True),
        ("predict a.zarr", "wsiseg.predict.predict_tiles", True),
        ("stitch a.zarr", "wsiseg.stitch.stitch_labels", True),
        ("train a.csv -o a.safetensors", "wsiseg.train.load_patches", True),
        ("masks a.safetensors a.csv", "wsiseg.masks.write_masks", True),
        ("learn a --labels b -o a.safetensors", "wsiseg.learn.learn_model", True),
        ("distill a -o a.safetensors", "wsiseg.distill.load_stores", True),
        ("compare a b", "wsiseg.report.compare_runs", False),
    ],
)
def test_ctrl_c_says_whether_the_command_resumes(monkeypatch, call, work, resumes):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(work, interrupt)
    done = run.invoke(app, call.split())
    kept = ": what was finished is kept, and the same command continues from there"
    assert done.stderr == f"interrupted{kept if resumes else ''}\n"
    assert done.exit_code == 130


def test_sigterm_says_what_ctrl_c_says_and_has_its_own_exit_code(monkeypatch):
    def work(*_, **__):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("wsiseg.run.annotate", work)
    done = run.invoke(app, ["annotate", "a.svs", "-o", "out"])
    kept = ": what was finished is kept, and the same command continues from there"
    assert done.stderr == f"interrupted{kept}\n"
    assert done.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, "it is as before the command"


@pytest.mark.parametrize("how", ["ignored", "torchrun", "thread"])
def test_sigterm_is_left_to_whom_it_belongs(monkeypatch, how):
    handlers = []
    monkeypatch.setattr(
        "wsiseg.run.annotate", lambda *_, **__: handlers.append(signal.getsignal(signal.SIGTERM))
    )
    if how == "torchrun":
        monkeypatch.setenv("WORLD_SIZE", "2")
    before = signal.SIG_IGN if how == "ignored" else signal.SIG_DFL
    signal.signal(signal.SIGTERM, before)
    command = threading.Thread(target=run.invoke, args=(app, ["annotate", "a.svs", "-o", "out"]))
    try:
        command.start() if how == "thread" else command.run()
        if how == "thread":
            command.join(120)
        assert signal.getsignal(signal.SIGTERM) is before
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert handlers == [before]


def test_a_fault_within_a_run_is_in_its_log(slides, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr("wsiseg.run.slide.plan_tile", fail)
    out = tmp_path / "out"
    done = run.invoke(app, ["annotate", str(slides / "good.svs"), "-o", str(out), *SETTINGS])
    assert "failed: ZeroDivisionError: a fault" in done.stderr
    assert "Traceback" not in done.output
    (log,) = (out / "runs").glob("*.log")
    assert "Traceback (most recent call last)" in log.read_text()
    assert f"Log: {log}" in done.stderr.replace("\n", "")


def test_warnings_are_said_once_and_others_kept(capsys):
    with listen(debug=False, quiet=False), warnings.catch_warnings():
        warnings.simplefilter("always")
        for _ in range(3):
            warnings.warn("a.svs: ours", WsisegWarning, stacklevel=1)
            warnings.warn("theirs", UserWarning, stacklevel=1)
            logging.getLogger("wsiseg.tile").warning("a.svs: %s", "logged")
            logging.getLogger("PIL.Image").warning("noise")
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == ["warning: a.svs: ours", "warning: a.svs: logged"]
    assert len(said) == 3
    assert said[2].startswith("Messages of PIL (1), ")
    assert MESSAGES not in logging.getLogger().handlers


def test_a_note_that_was_said_as_a_warning_is_not_said_again(capsys):
    result = SlideResult("a", "a.svs", "done", note="first; second")
    with listen(debug=False, quiet=False):
        logging.getLogger("wsiseg.tile").warning("a.svs: first")
        show.print_results([result])
    printed = capsys.readouterr()
    assert "a: second" in printed.out
    assert "first" not in printed.out


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def view_of(width=100, height=24):
    clock = Clock()
    board = Board(lambda: (width, height), clock)
    return clock, board, RunView(board)


def begin(clock, view, slides=2):
    view.take(RunStarted("r", slides, "r.log"))
    view.take(SlideStarted("a_slide_with_a_long_name", "a.svs"))
    view.take(StepAdvanced("a_slide_with_a_long_name", "tile", 0, 10, 0.0))
    view.take(StepAdvanced("a_slide_with_a_long_name", "predict", 0, 10, 0.0))
    clock.now = 10.0
    view.take(StepAdvanced("a_slide_with_a_long_name", "tile", 5, 10, 2.0))
    view.take(StepAdvanced("a_slide_with_a_long_name", "predict", 5, 10, 8.0))


def test_lines_tell_step_rate_time_left_and_what_bounds():
    clock, board, view = view_of()
    begin(clock, view)
    slide, whole = board.texts(100, 24)
    assert slide.split() == [
        "a_slide_with_a_long_name", "━" * 10 + "╌" * 10, "50%", "predict", "5/10", "0.5/s",
        "0:00:10",
    ]  # fmt: skip
    assert whole == "0/2 slides, mostly model (80%), 0:00:10 elapsed, 0:00:30 left"
    view.take(SlideFinished(SlideResult("a_slide_with_a_long_name", "", "failed", error="x")))
    assert board.texts(100, 24) == ["1/2 slides, 1 failed, mostly model (80%), 0:00:10 elapsed"]


@pytest.mark.parametrize("width", [20, 40, 75, 76, 80])
def test_lines_fit_the_terminal(width):
    clock, board, view = view_of()
    begin(clock, view)
    texts = board.texts(width, 24)
    assert max(map(len, texts)) <= width
    if width >= 40:
        assert "predict" in texts[0]
        assert "50%" in texts[0]
        assert "0:00:10" in texts[0]


def test_more_slides_than_rows_are_counted():
    _, board, view = view_of()
    view.take(RunStarted("r", 30, "r.log"))
    for number in range(16):
        view.take(SlideStarted(f"s{number}", ""))
    texts = board.texts(80, 10)
    assert len(texts) == 9
    assert texts[-2] == "and 9 more"


def test_without_a_terminal_a_plain_line_comes_now_and_then():
    clock, board, view = view_of()
    told = []
    board.tell = told.append
    begin(clock, view)
    assert told == []
    for clock.now in (31.0, 32.0, 59.0, 62.0):
        view.take(StepAdvanced("a_slide_with_a_long_name", "tile", 6, 10, 3.0))
    assert len(told) == 2
    assert told[0].startswith("0/2 slides, mostly model (73%), 0:00:31 elapsed")
    assert "a_slide_with_a_long_name tile 6/10, 55%, 0.19/s" in told[0]


def in_terminal(arguments, columns, **environment):
    """What a command writes to a terminal of so many columns, and its exit code."""
    leader, follower = pty.openpty()
    env = {**os.environ, "COLUMNS": str(columns), "LINES": "24", "TERM": "xterm", **environment}
    with subprocess.Popen(
        [sys.executable, "-m", "wsiseg", *arguments], stdout=follower, stderr=follower,
        stdin=follower, env=env,
    ) as process:  # fmt: skip
        os.close(follower)
        written = b""
        while select.select([leader], [], [], 120)[0]:
            try:
                piece = os.read(leader, 65536)
            except OSError:  # Linux's word for the end of a terminal
                break
            if not piece:
                break
            written += piece
        os.close(leader)
    return written.decode(), process.returncode


@pytest.mark.parametrize(("columns", "mute"), [(100, ""), (40, "1")])
def test_a_terminal_shows_a_line_a_slide(slides, tmp_path, columns, mute):
    written, code = in_terminal(
        ["annotate", str(slides / "good.svs"), "-o", str(tmp_path / "out"), *SETTINGS],
        columns, NO_COLOR=mute,
    )  # fmt: skip
    assert code == 0, written
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", written)
    lines = [line.strip() for line in plain.replace("\r", "\n").splitlines()]
    mine = [line for line in lines if re.match(r"good .*(open|tile|predict|stitch|outline)", line)]
    assert mine, written
    assert any(re.match(r"0/1 slides, .*elapsed", line) for line in lines)
    assert max(map(len, mine)) <= columns
    colours = re.findall(r"\x1b\[(?:3|9)\d(?:;\d+)*m", written)
    assert not mute or not colours
