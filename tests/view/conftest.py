import pytest
from starlette.testclient import TestClient

from tests.export.stores import make_labels
from tests.view.runs import make_run
from wsiseg.view import open_run
from wsiseg.view.app import build_app
from wsiseg.view.library import Library

HOST = "http://127.0.0.1:8675"


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
