"""How agents reach the server: standard input and output, or streamable HTTP, with a token beyond the loopback."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

from fvs_ros.http_access import BearerToken, serve

if TYPE_CHECKING:
    from starlette.types import ASGIApp

PATH = "/mcp"


def serve_stdio(server: MCPServer) -> None:
    """Serves the one client at standard input and output, until it closes them."""
    anyio.run(server.run_stdio_async)


def serve_http(server: MCPServer, host: str, port: int, token: str | None, on_ready: Callable[[str], None]) -> None:
    """Serves any number of clients, until the process is interrupted.

    Args:
        server: the server.
        host: address to listen on.
        port: to listen on; 0 takes a free one.
        token: see `http_access.checked_token`; None serves all who reach the address.
        on_ready: called with the server's URL once it listens.

    Raises:
        OSError: nobody may listen there, or somebody does.
    """
    # A page in a browser on this machine must not reach it by a name of its own; with a token it cannot.
    names = [f"[{host}]:*" if ":" in host else f"{host}:*", "localhost:*"]
    security = TransportSecuritySettings(
        enable_dns_rebinding_protection=token is None,
        allowed_hosts=names,
        allowed_origins=[f"http://{name}" for name in names],
    )
    app: ASGIApp = server.streamable_http_app(streamable_http_path=PATH, transport_security=security, host=host)
    serve(app if token is None else BearerToken(app, token), host, port, PATH, on_ready)
