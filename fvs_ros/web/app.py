"""The page's server: what a browser may see and ask. It knows a backend, and no model, engine or ROS."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from fvs_ros.backends.backend import MemoryBackend
from fvs_ros.backends.event_loop import LOADING, begun, opened, waited_for
from fvs_ros.errors import ReadableError, one_line
from fvs_ros.http_access import BearerToken
from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.sources.stamps import parse_stamp, stamp_text
from fvs_ros.stream.types import AskError, AskOptions, Picture
from fvs_ros.web.camera import NewestPicture
from fvs_ros.web.protection import SameOrigin, SecurityHeaders
from fvs_ros.web.views import answer_view, moments_view, state_view

STATIC = Path(__file__).parent / "static"
# Of a question's request; the engine has its own, lower bound on the question.
MOST_BYTES = 65_536
_OPTIONS = AskOptions(with_images=True)


class MemoryPage:
    """The routes.

    Args:
        opening: the backend, as soon as it is there.
    """

    def __init__(self, opening: Future[MemoryBackend]) -> None:
        self._opening = opening
        self._newest = NewestPicture()

    def routes(self) -> list[Route]:
        """What is served below /api."""
        return [
            Route("/state", self.state),
            Route("/moments", _told(self.moments)),
            # A picture that is not there yet is nothing that a browser need log.
            Route("/camera", _told(self.camera, 200)),
            Route("/picture", _told(self.picture, 200)),
            Route("/ask", self.ask, methods=["POST"]),
        ]

    async def state(self, _: Request) -> Response:
        """How the memory stands; until it is there, what is waited for."""
        if not self._opening.done():
            return JSONResponse({"progress": LOADING})
        try:
            backend = opened(self._opening)
            report = await asyncio.wrap_future(backend.memory())
        except ReadableError as error:
            return JSONResponse({"problem": str(error), "progress": ""})
        return JSONResponse(state_view(report, backend.progress()))

    async def moments(self, _: Request) -> Response:
        """Everything that the memory shows the model."""
        shown = await asyncio.wrap_future(self._backend().timeline())
        return JSONResponse({"moments": moments_view(shown.moments, shown.end_ns), "live": shown.live})

    async def camera(self, request: Request) -> Response:
        """The newest picture; 204 where the browser has it."""
        picture = await self._newest.of(self._backend())
        if request.query_params.get("after") == stamp_text(picture.stamp_ns):
            return Response(status_code=204)
        return _picture_response(picture, picture.stamp_ns)

    async def picture(self, request: Request) -> Response:
        """The stored picture of the scene in view at a stamp, or else of the nearest one in time."""
        stamp_ns = parse_stamp(request.query_params["stamp"])
        return _picture_response(await asyncio.wrap_future(self._backend().keyframe(stamp_ns)), stamp_ns)

    async def ask(self, request: Request) -> Response:
        """Asks; the response is lines of JSON: `waiting`, `token` by token, and `answer` or `error` at last.

        A browser that leaves cancels its question.
        """
        try:
            question = await _question(request)
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400)
        return StreamingResponse(self._answer(question), media_type="application/x-ndjson")

    def _backend(self) -> MemoryBackend:
        return opened(self._opening)

    async def _answer(self, question: str) -> AsyncGenerator[str, None]:
        try:
            async for note in waited_for(self._opening):
                yield _line(waiting=note)
            backend = opened(self._opening)
            with begun(partial(backend.ask, question, _OPTIONS)) as (tokens, answer):
                async for token in tokens:
                    yield _line(token=token)
                yield _line(answer=answer_view(await asyncio.wrap_future(answer)))
        except AskError as error:
            yield _line(error=str(error), code=error.code.name)
        except ReadableError as error:
            yield _line(error=str(error), code="")


def build_app(opening: Future[MemoryBackend], host: str, token: str | None) -> ASGIApp:
    """The page and what it asks.

    Args:
        opening: the backend, as soon as it is there.
        host: address that is listened on.
        token: that what the page asks must bring, see `checked_token`; the page itself, which holds nothing, comes
            without. None serves all who reach the address, by its own name or as localhost.
    """
    asked: ASGIApp = Starlette(routes=MemoryPage(opening).routes())
    if token is not None:
        asked = BearerToken(asked, token)
    app: ASGIApp = Starlette(
        routes=[
            Mount("/api", asked),
            Route("/", lambda _: FileResponse(STATIC / "index.html")),
            Mount("/", StaticFiles(directory=STATIC)),
        ]
    )
    if token is None:
        # A site must not reach it by a name of its own; with a token it cannot.
        app = TrustedHostMiddleware(app, [host, f"[{host}]", "localhost"], www_redirect=False)
    return SecurityHeaders(SameOrigin(app))


def _told(
    route: Callable[[Request], Awaitable[Response]], status: int = 404
) -> Callable[[Request], Awaitable[Response]]:
    """A route whose failures come as JSON, with that status where what was asked for is not there."""

    async def answered(request: Request) -> Response:
        try:
            return await route(request)
        except ReadableError as error:
            return JSONResponse({"error": str(error)}, status)
        except (KeyError, ValueError, OverflowError) as error:
            return JSONResponse({"error": one_line(f"wrong or missing in the address: {error}")}, 400)

    return answered


async def _question(request: Request) -> str:
    """The question of a request.

    Raises:
        ValueError: it is not what the page sends.
    """
    # A form of another site cannot be of this type without asking this server first, which allows nothing.
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise ValueError("send the question as application/json")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise ValueError(f"the request has more than {MOST_BYTES} bytes; ask something shorter")
    try:
        sent = json.loads(body)
    except (ValueError, RecursionError):
        sent = None
    if not isinstance(sent, dict) or set(sent) != {"question"} or not isinstance(sent["question"], str):
        raise ValueError('send {"question": "..."}')
    question: str = sent["question"]
    return question


def _line(**event: Any) -> str:
    return f"{json.dumps(event)}\n"


def _picture_response(picture: Picture, wanted_ns: int) -> Response:
    """A picture, with its stamp and how many seconds after the wanted one it was taken."""
    headers = {"Fvs-Stamp": stamp_text(picture.stamp_ns), "Fvs-Offset": f"{(picture.stamp_ns - wanted_ns) / SECOND_NS}"}
    return Response(picture.jpeg, media_type="image/jpeg", headers=headers)
