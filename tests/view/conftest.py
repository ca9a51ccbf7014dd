import csv

import pytest
from starlette.testclient import TestClient

from tests.export.stores import make_labels
from tests.view.browser import Page, open_browser, serving
from tests.view.coverage import Coverage
from tests.view.runs import NAME, make_run
from wsiseg.view import open_run
from wsiseg.view.app import build_app
from wsiseg.view.library import Library

HOST = "http://127.0.0.1:8675"
REACHED = set()
"""Tests of the page that ran to their end."""


@pytest.fixture(scope="session")
def labels():
    return make_labels()


@pytest.fixture(scope="session")
def run(labels, tmp_path_factory):
    """A run that tests only look at."""
    root = tmp_path_factory.mktemp("view") / "out"
    failed = {"slide": "<b>bad</b>", "status": "failed", "error": "cannot <i>be</i> read"}
    make_run(root, labels=labels, rows=[failed])
    return root


@pytest.fixture
def client(run):
    library = Library([open_run(run)])
    with TestClient(build_app(library), base_url=HOST) as client:
        yield client


@pytest.fixture
def slide(client):
    """Address of the run's slide."""
    (entry,) = [
        one for one in client.get("/api/slides").json()["runs"][0]["slides"] if one["viewable"]
    ]
    return f"/api/slides/{entry['id']}"


@pytest.fixture(scope="session")
def browser():
    driver = open_browser()
    driver.coverage = Coverage(driver)
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def roots(tmp_path_factory):
    """Two runs of one slide, the first with a second slide and one that failed."""
    first, second = (tmp_path_factory.mktemp("page") / name for name in ("first", "second"))
    make_run(first)
    bad = {"slide": "bad", "status": "failed", "error": "cannot <b>be</b> read"}
    make_run(first, NAME, rows=[bad, _row(first, "one")])
    make_run(second, labels=make_labels(seed=3))
    return first, second


def _row(root, name):
    with (root / "summary.csv").open(encoding="utf-8") as file:
        return next(row for row in csv.DictReader(file) if row["slide"] == name)


@pytest.fixture(scope="session")
def address(roots):
    with serving(roots[0]) as address:
        yield address


@pytest.fixture
def page(browser, address, request):
    page = Page(browser, address)
    page.open("#slide=one")
    yield page
    assert page.log() == []
    REACHED.add(request.node.nodeid)


@pytest.fixture
def own(browser, tmp_path, request):
    """A page of a run that the test writes to, and the file of its corrections."""
    make_run(tmp_path)
    with serving(tmp_path) as address:
        page = Page(browser, address)
        page.open("#slide=one")
        yield page, tmp_path / "corrections/one.geojson"
        assert page.log() == []
    REACHED.add(request.node.nodeid)
