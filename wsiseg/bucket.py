"""Access to object stores through obstore; translates its errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

from wsiseg.errors import MissingDependencyError, StoreError

__all__ = ["Service", "open_service"]


class Service(NamedTuple):
    """An open location in an object store."""

    api: Any
    """The module `obstore`."""
    store: Any

    @contextmanager
    def translated(self, place: str) -> Iterator[None]:
        """Raise a `StoreError` that names `place` for every failure of the service in the block."""
        with _translated(self.api, place):
            yield


@cache  # one client for all blocks and heartbeats; memory:// keeps its data in it
def open_service(url: str) -> Service:
    """Open an ``s3://``, ``gs://``, ``az://`` or ``memory://`` URL with obstore's own credentials.

    Raises
    ------
    MissingDependencyError
        If obstore is not installed.
    StoreError
        If the URL cannot be used.
    """
    try:
        import obstore
    except ImportError as error:
        raise MissingDependencyError(
            f"{url}: needs obstore: pip install 'wsiseg[cloud]'"
        ) from error
    with _translated(obstore, url):
        if url.startswith("memory://"):
            return Service(obstore, obstore.store.MemoryStore())
        return Service(obstore, obstore.store.from_url(url))


@contextmanager
def _translated(api: Any, place: str) -> Iterator[None]:
    try:
        yield
    except (api.exceptions.BaseError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise StoreError(f"{place}: {reason}") from error
