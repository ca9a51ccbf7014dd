"""Object stores through obstore, whose errors are translated here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

from wsiseg.errors import MissingDependencyError, StoreError

__all__ = ["Service", "open_service"]


class Service(NamedTuple):
    """A place in an object store, opened."""

    api: Any
    """The module `obstore`."""
    store: Any

    @contextmanager
    def translated(self, place: str) -> Iterator[None]:
        """Turn every failure of the service in the block into a `StoreError` about `place`."""
        with _translated(self.api, place):
            yield


@cache  # one client and its connections for all blocks and beats; memory:// keeps its bytes here
def open_service(url: str) -> Service:
    """Open ``s3://``, ``gs://``, ``az://`` or ``memory://``; credentials as obstore finds them.

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
