import pytest

from tests.export.stores import make_labels, make_store, outline


@pytest.fixture(scope="session")
def labels():
    return make_labels()


@pytest.fixture(scope="session")
def store(labels, tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("exports") / "one.zarr", labels)


@pytest.fixture(scope="session")
def annotations(store):
    return outline(store)
