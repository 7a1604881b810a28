"""`fvs web`: a live page that shows what a robot sees and remembers, and asks it; also `ros2 run fvs_ros web`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
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

TOKEN_VARIABLE = "FVS_WEB_TOKEN"
_PORT = 8766


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what is shown, and how browsers reach it."""
    add_backend_arguments(parser, 1.0, "default %(default)s: as fast as it was recorded")
    parser.add_argument(
        "--listen",
        metavar="[HOST:]PORT",
        type=address,
        default=("127.0.0.1", _PORT),
        help=f"where the page is served, on 127.0.0.1 unless told otherwise (default {_PORT}; 0 takes a free port)",
    )
    add_token_argument(parser, TOKEN_VARIABLE)


def run(arguments: argparse.Namespace) -> int:
    """Serves until the process is interrupted.

    Returns:
        0; 1 with a message where the source, the libraries, ROS 2 or the address is not there.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with ExitStack() as stack:
            _serve(arguments, stack)
    except (ReadableError, ValueError, OSError) as error:
        print(f"fvs web: {one_line(str(error))}", file=sys.stderr)
        return 1
    return 0


def _interrupt(*_: object) -> None:
    """Ends through Python, which closes stores."""
    raise KeyboardInterrupt


def _serve(arguments: argparse.Namespace, stack: ExitStack) -> None:
    for module in ("starlette", "uvicorn"):
        require(module, module.capitalize(), "pip install starlette uvicorn, or install fvs_ros with the extra web")
    backend = opened_backend(arguments, "fvs web")
    from fvs_ros.http_access import checked_token, serve
    from fvs_ros.web.app import build_app

    host, port = arguments.listen
    token = checked_token(given_token(arguments, TOKEN_VARIABLE), host)
    app = build_app(stack.enter_context(backend), host, token)
    serve(app, host, port, "/", lambda url: print(f"fvs web: {url}", file=sys.stderr, flush=True))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv`; `ros2 run` starts this module by itself."""
    parser = argparse.ArgumentParser("web", description=__doc__)
    add_arguments(parser)
    try:
        return run(parser.parse_args(argv))
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
