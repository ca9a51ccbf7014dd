"""Restrict requests to the server's own page and address, and to the token if there is one."""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wsiseg.errors import ConfigError

__all__ = ["MOST_BODY", "Guard", "TooLarge", "is_loopback", "make_token"]

MOST_BODY = 4_000_000
"""Largest body of a request in bytes."""
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Only the style that OpenSeadragon 6.1.1 adds to the page.
_OWN_STYLE = "'sha256-9xTiqzfwFaL2SGb1rmr8gysEwVVjIvqWAgmZgqFqpEE='"
_HEADERS = {
    "content-security-policy": (
        f"default-src 'none'; script-src 'self'; style-src 'self' {_OWN_STYLE}; "
        "connect-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_SAFE = ("GET", "HEAD")
_TOKEN = re.compile(r"[!-~]+")


def is_loopback(host: str) -> bool:
    """Whether a host to listen on can only be reached from this machine."""
    return host in _LOOPBACK


def make_token() -> str:
    """Generate a random token."""
    return secrets.token_urlsafe(24)


class Guard:
    """The outermost ASGI middleware.

    Without a token, only loopback names are accepted as ``Host``, so that a foreign page cannot
    reach the server by DNS rebinding. Requests from other origins are refused, and with a `token`
    those without it; it is passed once in the address of the page, then in a cookie, or as
    ``Authorization: Bearer``.

    Raises
    ------
    ConfigError
        If the token is empty, which every request would have, or cannot be part of a header.
    """

    def __init__(self, app: ASGIApp, token: str | None = None) -> None:
        if token is not None and not _TOKEN.fullmatch(token):
            raise ConfigError(
                f"the token {token!r} is not one or more printable ASCII characters without "
                f"spaces; give another --token, or none: one is generated if it is needed"
            )
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets
            return
        refusal = self._refuse(scope)
        if refusal is not None:
            await refusal(scope, receive, _add_headers(send))
            return
        try:
            await self.app(scope, _limit(receive), _add_headers(send))
        except asyncio.CancelledError:  # the server is closed while a thread still reads
            with suppress(RuntimeError):  # part of a response may have been sent
                await _error(503, "the viewer is closing")(scope, receive, _add_headers(send))

    def _refuse(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self.token is None and _name_of(host) not in _LOOPBACK:
            return _error(421, f"this server does not answer to the name {host[:80]!r}")
        if _is_foreign(scope, headers, host):
            return _error(403, "requests from other pages are refused")
        if self.token is not None and not self._has_token(headers, host):
            return self._welcome(scope, host)
        if scope["method"] not in (*_SAFE, "POST"):
            return _error(405, "only GET and POST are supported")
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > MOST_BODY:
            return _error(413, f"a request may have at most {MOST_BODY:,} bytes")
        if scope["method"] == "POST" and headers.get("content-type") != "application/json":
            return _error(415, "send application/json")
        return None

    def _has_token(self, headers: Headers, host: str) -> bool:
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(_cookie_name(host))
        except CookieError:
            cookie = None
        return self._is_token(bearer) or (cookie is not None and self._is_token(cookie.value))

    def _is_token(self, text: str) -> bool:
        assert self.token is not None
        return hmac.compare_digest(text.encode(), self.token.encode())

    def _welcome(self, scope: Scope, host: str) -> Response:
        """Set the cookie if the page's address contains the token, else refuse."""
        query = parse_qs(scope["query_string"].decode("latin-1"))
        given = query.pop("token", [""])[0]
        if scope["method"] != "GET" or scope["path"] != "/" or not self._is_token(given):
            return _error(401, "open the address that `wsiseg view` printed: it contains the token")
        rest = urlencode(query, doseq=True)
        response = RedirectResponse(f"/?{rest}" if rest else "/", 303)
        response.set_cookie(_cookie_name(host), given, httponly=True, samesite="lax")
        return response


def _is_foreign(scope: Scope, headers: Headers, host: str) -> bool:
    """Whether another page sent the request; following a link to our page is allowed."""
    origin = headers.get("origin")
    if origin is not None and origin != f"{scope['scheme']}://{host}":
        return True
    site = headers.get("sec-fetch-site", "same-origin")
    is_visit = scope["method"] == "GET" and scope["path"] == "/"
    return site not in ("same-origin", "none") and not is_visit


def _name_of(host: str) -> str:
    """Return the name in a ``Host`` header, without the port."""
    name, colon, port = host.rpartition(":")
    if colon and port.isdigit():
        host = name
    return host.removeprefix("[").removesuffix("]").lower()


def _cookie_name(host: str) -> str:
    """Name the cookie by port: cookies are shared by all servers on a machine."""
    port = host.rpartition(":")[2]
    return f"wsiseg_{port if port.isdigit() else ''}"


def _error(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status)


def _add_headers(send: Send) -> Send:
    """Add the headers that every response has."""

    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("cache-control", "no-store")
        await send(message)

    return wrapped


class TooLarge(Exception):
    """Raised if a body exceeds the limit while it is received."""


def _limit(receive: Receive) -> Receive:
    """Limit the size of the received body, as chunked bodies have no declared length."""
    total = 0

    async def wrapped() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > MOST_BODY:
            raise TooLarge
        return message

    return wrapped
