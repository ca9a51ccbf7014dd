"""Who is answered, who is not, and what nobody can get."""

import asyncio
import os
import string
from collections import Counter
from urllib.parse import quote, urlsplit

import pytest
from starlette.testclient import TestClient

from tests.view.browser import serving
from tests.view.conftest import HOST
from wsiseg.errors import ConfigError
from wsiseg.view import open_run
from wsiseg.view.app import build_app
from wsiseg.view.guard import MOST_BODY
from wsiseg.view.library import Library


@pytest.fixture
def guarded(run):
    """A server that wants a token, as one on an outer address does."""
    app = build_app(Library([open_run(run)]), token="sesame")
    with TestClient(app, base_url="http://example.org:8675", follow_redirects=False) as client:
        yield client


@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost:8675", "[::1]:8675", "127.0.0.1"])
def test_the_loopback_is_answered(client, host):
    assert client.get("/api/slides", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8675", "127.0.0.1.evil.example", "", "localhost.", "0"]
)
def test_other_names_are_not(client, host):
    assert client.get("/api/slides", headers={"host": host}).status_code == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "https://127.0.0.1:8675"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_other_pages_are_refused(client, slide, headers):
    assert client.get(slide, headers=headers).status_code == 403
    post = client.post(f"{slide}/corrections", json={"action": "undo"}, headers=headers)
    assert post.status_code == 403


def test_a_link_to_the_page_works_from_anywhere(client):
    assert client.get("/", headers={"sec-fetch-site": "cross-site"}).status_code == 200


def test_our_own_page_is_answered(client, slide):
    assert client.get(slide, headers={"origin": HOST}).status_code == 200
    post = client.post(f"{slide}/corrections", json={"action": "undo"}, headers={"origin": HOST})
    assert post.status_code == 400


@pytest.mark.parametrize("path", ["/", "/api/slides", "/static/style.css", "/?token=wrong"])
def test_without_the_token_there_is_nothing(guarded, path):
    refused = guarded.get(path)
    assert refused.status_code == 401
    assert "open the address" in refused.json()["error"]
    assert guarded.get(path, headers={"authorization": "Bearer sesam"}).status_code == 401
    assert guarded.get(path, headers={"cookie": "wsiseg_8675=x; a=b"}).status_code == 401


def test_the_token_in_the_address_becomes_a_cookie(guarded):
    welcome = guarded.get("/?token=sesame")
    assert (welcome.status_code, welcome.headers["location"]) == (303, "/")
    cookie = welcome.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert guarded.get("/").status_code == 200
    assert guarded.get("/api/slides").status_code == 200


@pytest.mark.parametrize("token", ["", " ", "a b", "a\n", "tür"])
def test_a_token_that_everybody_has_or_no_header_takes_is_refused(run, token):
    with pytest.raises(ConfigError, match="give another --token, or none"):
        build_app(Library([open_run(run)]), token)


def test_every_printable_character_of_a_token_comes_back_in_the_cookie(run):
    token = string.digits + string.ascii_letters + string.punctuation
    app = build_app(Library([open_run(run)]), token)
    with TestClient(app, base_url="http://example.org:8675") as client:
        assert client.get(f"/?token={quote(token, safe='')}").status_code == 200
        assert client.get("/api/slides").status_code == 200


def test_scripts_bear_it_in_a_header(guarded):
    bearer = {"authorization": "Bearer sesame"}
    assert guarded.get("/api/slides", headers=bearer).status_code == 200
    assert guarded.get("/api/slides?token=sesame").status_code == 401


def test_every_answer_forbids_foreign_scripts_and_guessing_types(client, slide):
    for path in ("/", slide, "/static/style.css", "/nowhere", f"{slide}/hover?x=a&y=1"):
        headers = client.get(path).headers
        assert "default-src 'none'; script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/vendor",
        "/static/js/../../guard.py",
        "/api/slides/../../etc/passwd",
        "/api/slides/..%2f..%2fetc%2fpasswd/thumbnail",
        "/api/slides/one",
        "/api/slides/out%2fslides%2fone.zarr",
        "/tiles/x/photo/0/0/0/0",
        "/summary.csv",
        "/slides/one.zarr/zarr.json",
    ],
)
def test_no_address_leads_to_another_file(client, path):
    answer = client.get(path)
    assert answer.status_code == 404
    assert "import" not in answer.text


@pytest.mark.parametrize(
    "place",
    ["labels/V/1e9/0/0", "labels/V/99999999999999999999/0/0", "labels/V/0/99999999999999999999/0",
     "labels/V/-9/0/0", "photo/P/99/0/0", "photo/P/0/-1/0", "score-99/V/0/0/0", "x/V/0/0/0",
     "labels/V/0/0/1.5"],
)  # fmt: skip
def test_tiles_that_are_nowhere_are_not_found(client, slide, place):
    scene = client.get(slide).json()
    place = place.replace("V", scene["layers"]["labels"]).replace("P", scene["layers"]["photo"])
    assert client.get(f"/tiles/{scene['id']}/{place}").status_code == 404


@pytest.mark.parametrize(
    "query",
    ["hover?x=nan&y=1", "hover?x=1e300&y=1", "hover?y=1", "outlines?x0=0&y0=0&x1=inf&y1=1",
     "ranked?order=name&rank=0", "ranked?order=size&rank=1e300", "regions/0?tolerance=-inf",
     "ranked?order=size&rank=0" + "&class=x" * 300],
)  # fmt: skip
def test_numbers_that_are_none_are_refused(client, slide, query):
    assert client.get(f"{slide}/{query}").status_code == 400


def test_bodies_are_limited_and_of_one_type(client, slide):
    where = f"{slide}/corrections"
    json = {"content-type": "application/json"}
    large = b"[" + b"0," * MOST_BODY
    assert client.post(where, content=large, headers=json).status_code == 413

    def pieces():
        for _ in range(60):
            yield b" " * 100_000

    assert client.post(where, content=pieces(), headers=json).status_code == 413
    assert client.post(where, content=b"{}").status_code == 415
    assert client.post(where, content=b"{", headers=json).status_code == 400
    form = {"content-type": "text/plain"}
    assert client.post(where, content=b"{}", headers=form).status_code == 415
    assert client.delete(where).status_code == 405


async def _flood(port, requests, connections):
    """How often each status came back."""
    ask = f"GET /api/slides/0/hover?x=1&y=1 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()

    async def connect(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        found = Counter()
        for _ in range(count):
            writer.write(ask)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split()[0])
            await reader.readexactly(length)
            found[int(head.split()[1])] += 1
            if b"connection: close" in head.lower():
                break
        writer.close()
        return found

    counts = [requests // connections] * connections
    return sum(await asyncio.gather(*map(connect, counts)), Counter())


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="counts open files in /proc")
def test_ten_thousand_requests_leave_nothing_behind(run, capfd):
    with serving(run) as address:
        port = urlsplit(address).port
        asyncio.run(_flood(port, 10, 1))
        before = len(os.listdir("/proc/self/fd"))
        answers = asyncio.run(_flood(port, 10_000, 400))
        assert set(answers) <= {404, 503}
        assert answers[404] >= 9_000
        assert asyncio.run(_flood(port, 1, 1)) == {404: 1}
        assert len(os.listdir("/proc/self/fd")) <= before + 20
    assert capfd.readouterr().err.count("Exceeded concurrency limit") <= 1
