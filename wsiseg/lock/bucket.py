"""A lock that is an object in a bucket, created and replaced by conditional puts."""

from __future__ import annotations

import json
import uuid
from contextlib import AbstractContextManager, suppress
from typing import Any

from wsiseg.bucket import open_service
from wsiseg.lock.file import Holder

__all__ = ["BucketLock"]


class BucketLock:
    """The object ``<url>.lock``; ages are measured by the clock of the service.

    Raises
    ------
    MissingDependencyError
        If obstore is not installed.
    StoreError
        For every failure of the service.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        parent, _, name = self.url.rpartition("/")
        if parent.endswith("/"):  # the bucket itself
            parent, name = self.url, ""
        self._service = open_service(parent)
        self._api, self._store = self._service
        self._key = f"{name}.lock"

    def create(self, holder: Holder) -> bool:
        """Create the lock unless it exists; return whether it was created."""
        with self._translated():
            return self._put(holder, "create")

    def read(self) -> Holder:
        """Return the holder; empty if there is no lock."""
        return self._read()[0]

    def silence(self) -> float:
        """Return the seconds since the lock was touched; 0 if there is no lock."""
        with self._translated():
            try:
                touched = self._api.head(self._store, self._key)["last_modified"].timestamp()
            except FileNotFoundError:
                return 0.0
        return self.now() - float(touched)

    def now(self) -> float:
        """Return the time by the service's clock, read from a new object."""
        probe = f"{self._key}.{uuid.uuid4().hex}"
        with self._translated():
            self._api.put(self._store, probe, b"")
            try:
                return float(self._api.head(self._store, probe)["last_modified"].timestamp())
            finally:
                self._api.delete(self._store, probe)

    def touch(self, token: str) -> None:
        """Renew the lock, unless another run has taken it over."""
        holder, version = self._read()
        if holder.get("token") == token:
            with self._translated():
                # The count makes every heartbeat a version of its own.
                self._put({**holder, "beat": int(holder.get("beat", 0)) + 1}, version)

    def take_over(self, holder: Holder, me: Holder) -> bool:
        """Take over a dead holder's lock; return False if it was renewed or taken meanwhile."""
        current, version = self._read()
        with self._translated():
            return current == holder and self._put(me, version)

    def release(self, token: str) -> None:
        """Delete the lock, if it is still ours."""
        if self.read().get("token") == token:
            with self._translated(), suppress(FileNotFoundError):
                self._api.delete(self._store, self._key)

    def _read(self) -> tuple[Holder, Any]:
        """Return the holder, and the version of the lock as the condition of a put."""
        with self._translated(), suppress(FileNotFoundError):
            response = self._api.get(self._store, self._key)
            version = {
                key: response.meta[key] for key in ("e_tag", "version") if response.meta.get(key)
            }
            with suppress(ValueError):
                return dict(json.loads(bytes(response.bytes()))), version
        return {}, {}

    def _put(self, holder: Holder, mode: Any) -> bool:
        """Write the lock on a condition; return whether the condition was met."""
        errors = self._api.exceptions
        gone = () if mode == "create" else (FileNotFoundError,)  # on create, the bucket is missing
        with suppress(errors.AlreadyExistsError, errors.PreconditionError, *gone):
            self._api.put(self._store, self._key, json.dumps(holder).encode(), mode=mode)
            return True
        return False

    def _translated(self) -> AbstractContextManager[None]:
        return self._service.translated(f"{self.url}.lock")
