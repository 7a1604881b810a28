"""Who may reach an HTTP server of ours: the loopback alone, or whoever brings the token; no page of another host."""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

from fvs_ros.errors import ReadableError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

SHORTEST_TOKEN = 16
# Open streams get so long to end.
_SHUTDOWN_S = 3


class HttpAccessError(ReadableError, ValueError):
    """The server must not, or cannot, be reached as it was asked to."""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def checked_token(token: str | None, host: str) -> str | None:
    """The token that requests must bring; None where none is needed.

    Raises:
        HttpAccessError: it is too short, or missing where others could reach the server.
    """
    if token is None:
        if is_loopback(host):
            return None
        raise HttpAccessError(
            f"{host} is no loopback address: whoever reaches it could ask what the camera saw; give a --token-file, or "
            "listen on 127.0.0.1"
        )
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise HttpAccessError(
            f"the token has {len(token)} characters; it takes at least {SHORTEST_TOKEN} printable ASCII ones without "
            "spaces, such as `openssl rand -hex 32` gives"
        )
    return token


class BearerToken:
    """Lets only those requests through that bring the token, as `Authorization: Bearer TOKEN`."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request without the token, and hands on all others."""
        if scope["type"] == "http" and not self._brings_it(scope):
            response = JSONResponse(
                {"error": "the bearer token is missing or wrong"}, 401, {"WWW-Authenticate": "Bearer"}
            )
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _brings_it(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], self._expected)


def serve(app: ASGIApp, host: str, port: int, path: str, on_ready: Callable[[str], None]) -> None:
    """Serves any number of clients, until the process is interrupted.

    Args:
        app: what is served.
        host: address to listen on.
        port: to listen on; 0 takes a free one.
        path: of the URL that clients begin with.
        on_ready: called with that URL once it listens.

    Raises:
        OSError: nobody may listen there, or somebody does.
    """
    import uvicorn

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listener:
        shown = f"[{host}]" if ":" in host else host
        on_ready(f"http://{shown}:{listener.getsockname()[1]}{path}")
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, timeout_graceful_shutdown=_SHUTDOWN_S, server_header=False
        )
        uvicorn.Server(config).run(sockets=[listener])
