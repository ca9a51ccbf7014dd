import http.client
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
import zipfile
from importlib.resources import files
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from tests.view.conftest import HOST
from tests.view.runs import make_run, suggest
from wsiseg.cli import app
from wsiseg.errors import ConfigError, MissingDependencyError, StoreError
from wsiseg.view import answers, open_run
from wsiseg.view.app import build_app
from wsiseg.view.library import Library
from wsiseg.view.serve import _listen, make_server, serve

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_command_prints_an_address_that_answers_and_stops_when_told(run, number, code):
    wsiseg = shutil.which("wsiseg", path=str(Path(sys.executable).parent))
    command = [wsiseg, "view", str(run), "--no-browser", "--token", "sesame"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            address = process.stdout.readline().strip()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=sesame", address)
            opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
            assert b"<title>wsiseg view</title>" in opener.open(address, timeout=300).read()
            process.send_signal(number)
            assert process.wait(300) == code
        finally:
            process.kill()


def test_what_cannot_be_shown_is_one_line(tmp_path):
    done = CliRunner().invoke(app, ["view", str(tmp_path), "--no-browser"])
    assert done.exit_code == 1
    assert "contains no map" in done.output
    assert "Traceback" not in done.output


def test_without_the_extra_the_install_line_is_named(run, monkeypatch):
    for name in ("uvicorn", "wsiseg.view.app"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'wsiseg\[view\]'"):
        serve([run], browser=False)


def test_closing_while_something_is_read_is_quiet(run, monkeypatch, capfd):
    asked, go_on = threading.Event(), threading.Event()

    def read(*of):
        asked.set()
        go_on.wait(60)

    monkeypatch.setattr(answers, "list_slides", read)
    listener = _listen("127.0.0.1", 0)
    server = make_server(build_app(Library([open_run(run)])))
    server.config.timeout_graceful_shutdown = 1
    serving = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    serving.start()
    connection = http.client.HTTPConnection(*listener.getsockname(), timeout=60)
    connection.request("GET", "/api/slides")
    assert asked.wait(60)
    server.should_exit = True
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (503, b'{"error":"the viewer is closing"}')
    go_on.set()
    serving.join(60)
    connection.close()
    assert capfd.readouterr().err == ""


def test_a_port_that_is_taken_is_refused_or_passed_over():
    taken = _listen("127.0.0.1", 0)
    with taken, pytest.raises(ConfigError, match=r"cannot listen on 127\.0\.0\.1, port .*--port"):
        _listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(ConfigError, match=r"port 70000: .*0-65535.*choose another --port"):
        _listen("127.0.0.1", 70_000)
    with _listen("127.0.0.1", None) as first, _listen("127.0.0.1", None) as second:
        assert first.getsockname() != second.getsockname()


def test_answers_are_not_held_back_for_an_acknowledgement():
    # asyncio sets TCP_NODELAY on sockets of this protocol only.
    with _listen("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_another_address_than_the_loopback_gets_a_token_by_itself(run, monkeypatch):
    import uvicorn

    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: sockets[0].close())
    told = []
    serve([run], host="0.0.0.0", port=0, browser=False, tell=told.append)
    serve([run], port=0, browser=False, tell=told.append)
    assert re.fullmatch(r"http://0\.0\.0\.0:\d+/\?token=[\w-]{32}", told[0])
    assert "token" not in told[1]


def test_the_page_is_told_the_command_that_starts_the_same_again(run, tmp_path, monkeypatch):
    import uvicorn

    apps = []

    def end(server, sockets):
        apps.append(server.config.app)
        sockets[0].close()

    monkeypatch.setattr(uvicorn.Server, "run", end)
    folder = suggest(tmp_path / "my places", (1, "one", (0, 0, 9, 9)))
    before = tmp_path / "before"
    make_run(before)
    serve([run], port=0, browser=False, suggest=folder, slides=tmp_path, earlier=before)
    serve([run], host="0.0.0.0", port=0, token="secret", browser=False)
    more = f" --slides {tmp_path} --suggest '{folder}' --earlier {before}"
    for app_, options, header in zip(
        apps, (more, " --host 0.0.0.0"), ({}, {"authorization": "Bearer secret"}), strict=True
    ):
        with TestClient(app_, base_url=HOST) as client:
            command = client.get("/api/slides", headers=header).json()["command"]
        assert re.fullmatch(re.escape(f"wsiseg view {run}{options} --port ") + r"\d+", command)


def test_a_token_is_in_the_address_as_addresses_spell_it_and_never_empty(run, monkeypatch):
    import uvicorn

    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: sockets[0].close())
    told = []
    serve([run], port=0, token="a+b/c=", browser=False, tell=told.append)
    assert told[0].endswith("/?token=a%2Bb%2Fc%3D")
    done = CliRunner().invoke(app, ["view", str(run), "--no-browser", "--token", ""])
    assert done.exit_code == 1
    assert "the token '' is not one or more" in done.output


def test_slides_must_be_a_folder(run, tmp_path):
    with pytest.raises(ConfigError, match="is not a folder; give the folder of the slides"):
        serve([run], slides=tmp_path / "none", browser=False)
    with pytest.raises(StoreError, match="contains no map"):
        serve([tmp_path], browser=False)


def test_suggested_places_are_served_and_a_folder_without_them_is_one_line(
    run, tmp_path, monkeypatch
):
    import uvicorn

    listed = []

    def ask(self, sockets):
        sockets[0].close()
        with TestClient(self.config.app, base_url=HOST) as client:
            listed.extend(client.get("/api/slides").json()["runs"][0]["places"])

    monkeypatch.setattr(uvicorn.Server, "run", ask)
    call = ["view", str(run), "--no-browser", "--port", "0", "--suggest", str(tmp_path)]
    done = CliRunner().invoke(app, call)
    assert (done.exit_code, listed) == (1, [])
    assert "has no suggestions.csv; give the folder" in done.output
    suggest(tmp_path, (1, "one", (0, 0, 9, 9)), (2, "gone", (0, 0, 9, 9)))
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 0
    assert [one["rank"] for one in listed] == [1]
    assert "warning: " in done.output
    assert "left out:\n  gone" in done.output


def test_a_folder_without_an_earlier_map_is_one_line(run, tmp_path):
    call = ["view", str(run), "--no-browser", "--port", "0", "--earlier"]
    for folder, reason in ((tmp_path, "contains no map"), (run, "is the output that is shown")):
        done = CliRunner().invoke(app, [*call, str(folder)])
        assert done.exit_code == 1
        assert f"{folder}: {reason}; give" in done.output.replace("\n", " ")


def test_the_page_names_no_other_host_and_each_vendored_part_has_its_licence():
    static = files("wsiseg.view") / "static"
    for path in Path(str(static)).rglob("*"):
        if path.is_file() and "vendor" not in path.parts:
            text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
            assert "http" not in text, path.name
            assert "innerHTML" not in text, path.name
    for part in Path(str(static / "vendor")).iterdir():
        assert (part / "LICENSE.txt").is_file()
    vendored = (static / "vendor/openseadragon/openseadragon.min.js").read_text(encoding="utf-8")
    assert vendored.startswith("//! openseadragon 6.1.1\n")


@pytest.mark.slow
def test_the_wheel_holds_the_page(tmp_path):
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode and "hatchling" in done.stdout + done.stderr:
        pytest.skip("hatchling is not installed, and a test downloads nothing")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    folder = ROOT / "wsiseg/view/static"
    for path in folder.rglob("*"):
        if path.is_file():
            assert path.relative_to(ROOT).as_posix() in names
