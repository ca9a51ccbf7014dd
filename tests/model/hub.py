"""A hub of models on this machine, with as much of its protocol as a download asks for."""

from __future__ import annotations

import hashlib
import http.server
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What the hub says of a file."""

    content: bytes = b""
    status: int = 200
    refusal: str = ""


class Hub(http.server.BaseHTTPRequestHandler, ABC):
    """Answers with what `find` says."""

    commit: str

    @abstractmethod
    def find(self, owner: str, name: str, revision: str, file: str) -> Answer:
        """Say what is at ``/owner/name/resolve/revision/file``."""

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._begin()

    def do_GET(self) -> None:
        if self.path.startswith("/api/"):
            self.send_error(404)
        else:
            self.wfile.write(self._begin())

    def _begin(self) -> bytes:
        owner, name, _, revision, file = self.path.split("/")[1:6]
        content, status, refusal = self.find(owner, name, revision, file)
        self.send_response(status)
        if refusal:
            self.send_header("X-Error-Code", refusal)
        self.send_header("X-Repo-Commit", self.commit)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        return content


@contextmanager
def serving(hub: type[Hub]) -> Iterator[str]:
    """Yield the hub's address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
