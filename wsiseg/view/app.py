"""The web application: routes and handlers. Slides have ids; static files are fixed."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from wsiseg.errors import DataError, GeoJsonError, StoreError, WsisegError
from wsiseg.export.png import pack_grey
from wsiseg.text import dump_json
from wsiseg.view import answers, orders
from wsiseg.view.earlier import Earlier
from wsiseg.view.guard import Guard, TooLarge
from wsiseg.view.library import Library, OutdatedMapError, Shown, UnknownSlideError
from wsiseg.view.pictures import Cache, pack_jpeg
from wsiseg.view.places import Places

__all__ = ["build_app"]

_T = TypeVar("_T")  # PEP 695 syntax needs Python 3.12

_FOREVER = {"cache-control": "private, max-age=31536000, immutable"}
_REVALIDATE = {"cache-control": "private, no-cache"}
_CACHE_BYTES = 64 * 2**20
_MAX_CLASSES = 200
_INTEGER = re.compile(r"-?[0-9]{1,9}", re.ASCII)
_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (UnknownSlideError, 404),
    (OutdatedMapError, 412),
    (DataError, 400),
    (StoreError, 409),
    (GeoJsonError, 409),
)
"""The first that fits an error counts; 500 if none does."""
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


def build_app(
    library: Library,
    token: str | None = None,
    places: Places | None = None,
    command: str = "",
    earlier: Earlier | None = None,
) -> ASGIApp:
    """Build the application that serves `library`, with suggested `places`.

    If `token` is given, requests need it. `command` starts the viewer again, once it was stopped.
    The corrections of `earlier` are shown, too.
    """
    server = _Server(library, places or Places(), earlier or Earlier(), command)
    slide = "/api/slides/{slide}"
    routes = [
        Route("/", server.page),
        Route("/static/{name:path}", server.static),
        Route("/api/slides", server.slides),
        Route(slide, server.scene),
        Route(f"{slide}/thumbnail", server.thumbnail),
        Route(f"{slide}/regions", server.regions),
        Route(f"{slide}/regions/{{index}}", server.region),
        Route(f"{slide}/ranked", server.ranked),
        Route(f"{slide}/outlines", server.outlines),
        Route(f"{slide}/hover", server.hover),
        Route(f"{slide}/places", server.frames),
        Route(f"{slide}/earlier", server.earlier),
        Route(f"{slide}/corrections", server.corrections, methods=["GET"]),
        Route(f"{slide}/corrections", server.correct, methods=["POST"]),
        Route("/tiles/{slide}/{kind}/{version}/{zoom}/{col}/{row}", server.tile),
    ]
    handlers: dict[Any, Any] = {WsisegError: _answer_error, HTTPException: _answer_http_error}
    app = Starlette(routes=routes, exception_handlers=handlers, lifespan=server.lifespan)
    return Guard(app, token)


class _Server:
    """The handlers of the routes; slides are processed in a few threads."""

    def __init__(self, library: Library, places: Places, earlier: Earlier, command: str) -> None:
        self._library, self._places, self._command = library, places, command
        self._earlier = earlier
        self._tiles = Cache(_CACHE_BYTES)
        self._files = dict(_list_static(files("wsiseg.view") / "static"))
        self._limiter: anyio.CapacityLimiter | None = None

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        yield
        self._library.close()

    async def _do(self, work: Callable[[], _T]) -> _T:
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(2 + (os.cpu_count() or 1))
        return await anyio.to_thread.run_sync(work, limiter=self._limiter)

    async def _with_slide(
        self, request: Request, work: Callable[[Shown], _T], *, afresh: bool = False
    ) -> _T:
        def borrow() -> _T:
            with self._library.borrow(request.path_params["slide"], afresh=afresh) as shown:
                return work(shown)

        return await self._do(borrow)

    async def _with_map(self, request: Request, work: Callable[[Shown], _T]) -> _T:
        """Work on the map of the version that the request expects, if it names one.

        Raises
        ------
        OutdatedMapError
            If the map is another one by now, or becomes one meanwhile.
        """
        expected = _expected_version(request)

        def checked(shown: Shown) -> _T:
            shown.expect(expected)
            done = work(shown)
            shown.expect()
            return done

        return await self._with_slide(request, checked, afresh=not expected)

    # -- the page ----------------------------------------------------------------------------

    async def page(self, request: Request) -> Response:
        return self._send_file(request, "index.html")

    async def static(self, request: Request) -> Response:
        return self._send_file(request, request.path_params["name"])

    def _send_file(self, request: Request, name: str) -> Response:
        if name not in self._files:  # only files of the package are served
            raise HTTPException(404, "no such file")
        content, tag = self._files[name]
        kind = _TYPES.get(os.path.splitext(name)[1], "application/octet-stream")
        return _send_tagged(request, content, kind, tag)

    # -- slides ------------------------------------------------------------------------------

    async def slides(self, request: Request) -> Response:
        listed = await self._do(
            lambda: answers.list_slides(self._library, self._places, self._earlier)
        )
        return _json(listed | {"command": self._command})

    async def scene(self, request: Request) -> Response:
        return _json(await self._with_slide(request, answers.describe_scene, afresh=True))

    async def thumbnail(self, request: Request) -> Response:
        content = await self._with_slide(request, self._thumbnail)
        if not content:  # not an error: the slide may not be tiled yet, or have failed
            return Response(status_code=204, headers=_REVALIDATE)
        return _send_tagged(request, content, "image/jpeg", hashlib.sha256(content).hexdigest())

    def _thumbnail(self, shown: Shown) -> bytes:
        def make() -> bytes:
            pixels = shown.scene.thumbnail()
            return b"" if pixels is None else pack_jpeg(pixels)

        return self._tiles.get(("thumbnail", shown.entry.id, shown.scene.tiled), make)

    async def tile(self, request: Request) -> Response:
        place = request.path_params
        kind, version = place["kind"], place["version"]
        zoom, col, row = (_parse_integer(place[name]) for name in ("zoom", "col", "row"))

        def make(shown: Shown) -> bytes:
            current = shown.scene.versions.get(kind.partition("-")[0])
            if current is None and kind != "labels":  # a map that is being made has none
                raise HTTPException(404, "no such layer")
            if current != version:
                raise OutdatedMapError("no such tile: the map has changed")
            if kind != "photo":  # the slide stays when a map is made again
                shown.expect()
            key = (place["slide"], kind, version, zoom, col, row)
            return self._tiles.get(key, lambda: _make_tile(shown, kind, zoom, col, row))

        content = await self._with_slide(request, make)
        if not content:  # most of a slide is empty: not an error, which browsers would log
            return Response(status_code=204, headers=_FOREVER)
        media_type = "image/jpeg" if kind == "photo" else "image/png"
        return Response(content, media_type=media_type, headers=_FOREVER)

    # -- regions -----------------------------------------------------------------------------

    async def regions(self, request: Request) -> Response:
        return _json(await self._with_map(request, answers.describe_regions))

    async def region(self, request: Request) -> Response:
        (tolerance,) = _parse_numbers(request, "tolerance")
        index = _parse_integer(request.path_params["index"])

        def describe(shown: Shown) -> dict[str, Any]:
            if not 0 <= index < len(shown.regions):
                raise UnknownSlideError(f"there are {len(shown.regions)} regions")
            return answers.describe_region(shown, shown.regions[index], max(0.0, tolerance))

        return _json(await self._with_map(request, describe))

    async def ranked(self, request: Request) -> Response:
        (rank,) = _parse_numbers(request, "rank")
        order = request.query_params.get("order", "size")
        names = request.query_params.getlist("class")
        if order not in ("size", "confidence") or len(names) > _MAX_CLASSES or abs(rank) > 1e9:
            raise HTTPException(400, "order is size or confidence, rank a number")
        return _json(
            await self._with_map(
                request, lambda shown: answers.describe_ranked(shown, order, int(rank), names)
            )
        )

    async def outlines(self, request: Request) -> Response:
        x0, y0, x1, y1, tolerance = _parse_numbers(request, "x0", "y0", "x1", "y1", "tolerance")
        box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
        return _json(
            await self._with_map(
                request,
                lambda shown: answers.describe_outlines(shown, box, max(0.0, tolerance)),
            )
        )

    async def hover(self, request: Request) -> Response:
        x, y = _parse_numbers(request, "x", "y")
        return _json(
            await self._with_map(request, lambda shown: answers.describe_hover(shown, x, y))
        )

    # -- suggested places --------------------------------------------------------------------

    async def frames(self, request: Request) -> Response:
        return _json(
            await self._with_slide(
                request, lambda shown: answers.describe_places(shown, self._places)
            )
        )

    # -- corrections -------------------------------------------------------------------------

    async def corrections(self, request: Request) -> Response:
        return _json(await self._with_map(request, answers.describe_corrections))

    async def earlier(self, request: Request) -> Response:
        return _json(
            await self._with_map(
                request, lambda shown: answers.describe_earlier(shown, self._earlier)
            )
        )

    async def correct(self, request: Request) -> Response:
        try:
            order = orjson.loads(await request.body())
        except TooLarge:
            raise HTTPException(413, "the request is too large") from None
        except orjson.JSONDecodeError as error:
            raise HTTPException(400, f"not JSON: {error}") from None
        expected = _expected_version(request)

        def correct(shown: Shown) -> dict[str, Any]:
            outdated = not shown.is_map(expected)
            return orders.correct(shown, order, self._earlier, outdated=outdated)

        return _json(await self._with_slide(request, correct, afresh=not expected))


def _make_tile(shown: Shown, kind: str, zoom: int, col: int, row: int) -> bytes:
    """Encode a tile; empty bytes if nothing is in it."""
    scene = shown.scene
    pixels: NDArray[np.uint8] | None
    scores = {f"score-{k}" for k in range(len(scene.palette.classes))} if scene.scores else set()
    if kind == "photo":
        pixels = scene.photo(zoom, col, row)
    elif kind in {"labels", "confidence", *scores}:
        pixels = scene.raster(kind, zoom, col, row)
    else:
        pixels = None
    if pixels is None:
        raise HTTPException(404, "no such tile")
    if kind == "photo":
        return pack_jpeg(pixels)
    shown.expect()  # else pixels of two maps would be kept under the address of one
    return pack_grey(pixels) if pixels.any() else b""


def _expected_version(request: Request) -> str:
    """Return the version of the map that a request is about; empty if it does not say."""
    return request.headers.get("if-match", "").strip('"')


def _parse_integer(text: str) -> int:
    """Parse an integer of up to nine digits in an address."""
    if not _INTEGER.fullmatch(text):
        raise HTTPException(404, "no such place")
    return int(text)


def _parse_numbers(request: Request, *names: str) -> list[float]:
    """Parse finite numbers in the query; anything else is an error."""
    values = []
    for name in names:
        try:
            value = float(request.query_params[name])
        except (KeyError, ValueError):
            raise HTTPException(400, f"{name} must be a number") from None
        if not math.isfinite(value) or abs(value) > 1e9:
            raise HTTPException(400, f"{name} must be a number below 1e9")
        values.append(value)
    return values


def _json(content: Any) -> Response:
    data = dump_json(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(data, media_type="application/json", headers=_REVALIDATE)


def _send_tagged(request: Request, content: bytes, kind: str, tag: str) -> Response:
    """Send a file with an ETag, so that it is only transferred when it has changed."""
    headers = {**_REVALIDATE, "etag": f'"{tag[:32]}"'}
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=kind, headers=headers)


async def _answer_error(request: Request, error: Exception) -> Response:
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    return _error_response(status, str(error))


async def _answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error_response(error.status_code, error.detail)


def _error_response(status: int, text: str) -> Response:
    return Response(dump_json({"error": text}), status, media_type="application/json")


def _list_static(folder: Traversable, prefix: str = "") -> list[tuple[str, tuple[bytes, str]]]:
    """List name, content and hash of each static file."""
    static = []
    for child in folder.iterdir():
        if child.is_dir():
            static += _list_static(child, f"{prefix}{child.name}/")
        else:
            content = child.read_bytes()
            static.append((prefix + child.name, (content, hashlib.sha256(content).hexdigest())))
    return static
