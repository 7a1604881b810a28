"""`fvs mcp`: an MCP server, by which language-model agents ask a running node, a recording, a camera or a store."""

from __future__ import annotations

import argparse
import signal
import sys
from contextlib import ExitStack

from fvs_ros.commands.backend_arguments import (
    add_backend_arguments,
    add_token_argument,
    address,
    given_token,
    opened_backend,
    require,
)
from fvs_ros.errors import ReadableError, one_line

TOKEN_VARIABLE = "FVS_MCP_TOKEN"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what is asked, and how agents reach the server."""
    add_backend_arguments(parser, None, "default: all at once, and questions wait for its end")
    parser.add_argument(
        "--http",
        metavar="[HOST:]PORT",
        type=address,
        help="serve streamable HTTP there, on 127.0.0.1 unless told otherwise, instead of standard input and output",
    )
    add_token_argument(parser, TOKEN_VARIABLE)


def run(arguments: argparse.Namespace) -> int:
    """Serves until the client leaves, or the process is interrupted.

    Returns:
        0; 1 with a message where the source, the SDK, ROS 2 or the address is not there.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with ExitStack() as stack:
            _serve(arguments, stack)
    except (ReadableError, ValueError, OSError) as error:
        print(f"fvs mcp: {one_line(str(error))}", file=sys.stderr)
        return 1
    return 0


def _interrupt(*_: object) -> None:
    """Ends through Python, which closes stores."""
    raise KeyboardInterrupt


def _serve(arguments: argparse.Namespace, stack: ExitStack) -> None:
    require("mcp", "the MCP Python SDK", "pip install 'mcp>=2,<3', or install fvs_ros with the extra mcp")
    backend = opened_backend(arguments, "fvs mcp")
    from fvs_ros.http_access import checked_token
    from fvs_ros.mcp_server.server import build_server
    from fvs_ros.mcp_server.transports import serve_http, serve_stdio

    token = None if arguments.http is None else checked_token(given_token(arguments, TOKEN_VARIABLE), arguments.http[0])
    server = build_server(stack.enter_context(backend))
    if arguments.http is None:
        serve_stdio(server)
    else:
        host, port = arguments.http
        serve_http(server, host, port, token, lambda url: print(f"fvs mcp: {url}", file=sys.stderr, flush=True))
