"""Arguments of commands that let others ask a running node, or an engine of their own, and who may reach them."""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fvs_ros.commands.arguments import positive
from fvs_ros.commands.episode_arguments import add_episode_arguments, opened_episodes
from fvs_ros.commands.model_arguments import add_checkpoint_arguments, load_model
from fvs_ros.commands.source_arguments import SOURCE_HELP, add_source_arguments, open_source
from fvs_ros.errors import ReadableError, one_line

if TYPE_CHECKING:
    from fvs_ros.backends.backend import MemoryBackend
    from fvs_ros.sources.cameras import LiveSource
    from fvs_ros.sources.recordings import FrameSource

DEFAULT_NODE = "/stream_node"
# So fast that a recording is never waited for.
_AT_ONCE = 1e6


class MissingLibraryError(ReadableError):
    """A library that an extra brings, or ROS 2, is not installed."""


def add_backend_arguments(parser: argparse.ArgumentParser, rate: float | None, about_rate: str) -> None:
    """Declares what is asked.

    Args:
        parser: of the command.
        rate: the default speed of a recording; None reads it at once, and questions wait for its end.
        about_rate: says that.
    """
    parser.add_argument(
        "source",
        metavar="SOURCE",
        nargs="?",
        help=f"{SOURCE_HELP}; without it and --memory-dir, the running node is asked",
    )
    parser.add_argument("--node", metavar="NAME", help=f"full name of the stream node (default {DEFAULT_NODE})")
    add_source_arguments(parser)
    parser.add_argument("--rate", type=positive, default=rate, help=f"speed of a recording ({about_rate})")
    add_checkpoint_arguments(parser)
    add_episode_arguments(parser, "auto", "with SOURCE and --memory-dir, whether it goes on in the last episode")


def add_token_argument(parser: argparse.ArgumentParser, variable: str) -> None:
    """Declares where the token comes from that HTTP requests must bring, if not from a variable of the environment."""
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        type=Path,
        help=f"holds the bearer token that HTTP requests must bring (or {variable}); needed beyond the loopback",
    )


def address(text: str) -> tuple[str, int]:
    """Host and port of an argument such as `8765`, `0.0.0.0:8765` or `[::]:8765`."""
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    # A colon without brackets may be the middle of an address.
    if not (port.isascii() and port.isdecimal() and int(port) < 2**16) or (":" in host) != bracketed:
        raise argparse.ArgumentTypeError(f"{text!r} is no [HOST:]PORT, such as 8765 or 0.0.0.0:8765")
    return host or "127.0.0.1", int(port)


def given_token(arguments: argparse.Namespace, variable: str) -> str | None:
    """The token of the file, or of the environment: on a command line, everyone on the machine could read it."""
    if arguments.token_file is None:
        return os.environ.get(variable)
    with arguments.token_file.open(encoding="utf-8", errors="replace") as file:
        return str(file.read(4096)).strip()


def require(module: str, what: str, remedy: str) -> None:
    """Says what to install where a module is not there.

    Raises:
        MissingLibraryError: it is not.
    """
    if importlib.util.find_spec(module) is None:
        raise MissingLibraryError(f"this needs {what}: {remedy}")


def opened_backend(arguments: argparse.Namespace, program: str) -> AbstractContextManager[Future[MemoryBackend]]:
    """What the arguments of `add_backend_arguments` name, opened in the background, and closed after the block.

    Args:
        arguments: parsed.
        program: the command, before what is told on standard error.

    Raises:
        ValueError: both a node and something else are named.
        ReadableError, OSError: when it is entered: the source, the store or ROS 2 is not there.
    """
    local = arguments.source is not None or arguments.memory_dir is not None
    if local and arguments.node is not None:
        raise ValueError(
            "--node asks a running node, which has its own camera and store: leave SOURCE and --memory-dir out"
        )
    return _opened_later(arguments, program) if local else _opened_node(arguments)


@contextmanager
def _opened_node(arguments: argparse.Namespace) -> Iterator[Future[MemoryBackend]]:
    """The running node."""
    require("rclpy", "ROS 2", "source its distribution or env.sh, or name a SOURCE or a --memory-dir")
    from fvs_ros.backends.node_backend import NodeBackend

    opening: Future[MemoryBackend] = Future()
    with closing(NodeBackend(arguments.node or DEFAULT_NODE)) as backend:
        opening.set_result(backend)
        yield opening


@contextmanager
def _opened_later(arguments: argparse.Namespace, program: str) -> Iterator[Future[MemoryBackend]]:
    """A source, a store or both, opened on a thread: loading takes longer than anybody waits for a server."""
    # At once, so that a wrong path is told before anybody asks.
    source = None if arguments.source is None else open_source(arguments)
    if source is None and not arguments.memory_dir.is_dir():
        raise FileNotFoundError(f"{arguments.memory_dir} is no folder of an episode store; check --memory-dir")
    opening: Future[MemoryBackend] = Future()
    ending = threading.Event()

    def open_and_wait() -> None:
        try:
            with _opened(arguments, source) as backend:
                opening.set_result(backend)
                ending.wait()
        except Exception as error:
            print(f"{program}: {one_line(str(error))}", file=sys.stderr, flush=True)
            if not opening.done():
                opening.set_exception(error)

    thread = threading.Thread(target=open_and_wait, name="fvs-backend-open", daemon=True)
    thread.start()
    try:
        yield opening
    finally:
        ending.set()
        # A model that is still loading is not waited for: nothing was opened yet, and the thread ends with the process.
        if opening.done():
            thread.join()
        if source is not None:
            source.close()


@contextmanager
def _opened(arguments: argparse.Namespace, source: FrameSource | LiveSource | None) -> Iterator[MemoryBackend]:
    """An engine that plays the source, or restores what the store holds."""
    from fvs_ros.backends.engine_backend import EngineBackend
    from fvs_ros.chat.player import Player
    from fvs_ros.sources.cameras import LiveSource
    from fvs_ros.stream.config import StreamConfig
    from fvs_ros.stream.engine import StreamEngine
    from fvs_ros.stream.recording import SILENCE_S

    model = load_model(arguments)
    config = StreamConfig()
    if arguments.fps is not None:
        config = replace(config, fps=arguments.fps)
    live = isinstance(source, LiveSource)
    camera = "" if source is None else source.name
    whole = not live and arguments.rate is None
    with ExitStack() as stack:
        episodes = stack.enter_context(
            opened_episodes(
                arguments, model, camera, SILENCE_S if live else math.inf, in_ram=True, read_only=source is None
            )
        )
        assert episodes is not None
        engine = stack.enter_context(StreamEngine(model, config, episodes=episodes))
        player = None
        if source is not None:
            player = Player(source, engine, (), lambda _: None, arguments.rate or _AT_ONCE, patient=whole)
            stack.enter_context(closing(player))
            player.start()
        backend = EngineBackend(engine, episodes.store, model.memory_config, model.name, player, whole=whole)
        yield stack.enter_context(closing(backend))
