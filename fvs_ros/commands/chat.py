"""`fvs chat`: questions about a video, a camera or a bag while it plays."""

from __future__ import annotations

import argparse
import math
import signal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from fvs_ros.commands.arguments import INCOMPLETE, positive
from fvs_ros.commands.episode_arguments import add_episode_arguments, opened_episodes
from fvs_ros.commands.model_arguments import add_checkpoint_arguments, load_model
from fvs_ros.commands.source_arguments import SOURCE_HELP, add_source_arguments, open_source
from fvs_ros.errors import ReadableError, one_line

if TYPE_CHECKING:
    from fvs_ros.chat.player import Cue
    from fvs_ros.sources.cameras import LiveSource
    from fvs_ros.sources.recordings import FrameSource


# As many as a question may have before it.
MOST_TURNS = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the source, the model and how the stream is played."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help=SOURCE_HELP,
    )
    add_checkpoint_arguments(parser)
    parser.add_argument(
        "--ask",
        metavar="SECONDS:QUESTION",
        action="append",
        default=[],
        type=parse_cue,
        help="ask at this time of the stream, print the answer, and end after the last; may be repeated",
    )
    add_source_arguments(parser)
    parser.add_argument("--rate", type=positive, default=1.0, help="speed of a recording (default 1)")
    add_episode_arguments(
        parser, "auto", "with --memory-dir, whether the stream goes on in the last episode: auto does if its stamps do"
    )
    parser.add_argument(
        "--turns",
        type=int,
        choices=range(MOST_TURNS + 1),
        metavar="N",
        default=0,
        help=f"read the newest N questions and answers, up to {MOST_TURNS}, before the next, which can then follow up "
        "on them (default 0; not with --ask)",
    )
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="an answer's longest length (default 128)")
    parser.add_argument(
        "--no-pictures",
        action="store_true",
        help="show none of the moments, also in a terminal that can (sixel, kitty), and do not ask it",
    )


def parse_cue(text: str) -> Cue:
    """The question and its time in a text such as `12.5:What do you see?`.

    Raises:
        argparse.ArgumentTypeError: the text is not of that form.
    """
    from fvs_ros.chat.player import Cue

    seconds, colon, question = text.partition(":")
    try:
        time_s = float(seconds)
    except ValueError:
        time_s = math.nan
    if not colon or not question.strip() or not 0 <= time_s < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no SECONDS:QUESTION, such as '12.5:What do you see?'")
    return Cue(time_s, question.strip())


def run(arguments: argparse.Namespace) -> int:
    """Plays and answers.

    Returns:
        0; 1 with a message where the source, the model or a question failed; INCOMPLETE where frames were left out. A
        person who types has seen both, and gets 0.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    if arguments.turns and arguments.ask:
        print("fvs chat: --turns is for questions that are typed or piped; leave it out, or --ask", file=sys.stderr)
        return 1
    try:
        source = open_source(arguments)
        try:
            return _chat(arguments, source)
        finally:
            source.close()
    except (ReadableError, ValueError, OSError) as error:
        print(f"fvs chat: {one_line(str(error))}", file=sys.stderr)
        return 1


def _interrupt(*_: object) -> None:
    """Ends through Python, which restores the mode of the terminal."""
    raise KeyboardInterrupt


def _chat(arguments: argparse.Namespace, source: FrameSource | LiveSource) -> int:
    from contextlib import ExitStack, closing

    from rich.console import Console

    from fvs_ros.chat.conversation import Chat
    from fvs_ros.chat.player import Player
    from fvs_ros.chat.prompt import prompt, read_lines
    from fvs_ros.chat.screen import Screen
    from fvs_ros.model.names import example_question
    from fvs_ros.sources.cameras import LiveSource
    from fvs_ros.stream.config import StreamConfig
    from fvs_ros.stream.engine import StreamEngine
    from fvs_ros.stream.recording import SILENCE_S
    from fvs_ros.terminal_pictures import drawn_by

    # One answer at a time, so that their tokens do not mingle on the screen.
    config = StreamConfig(parallel_questions=1)
    if arguments.fps is not None:
        config = replace(config, fps=arguments.fps)
    interactive = not arguments.ask
    console = Console(highlight=False)
    typed = interactive and console.is_terminal and sys.stdin is not None and sys.stdin.isatty()
    draw = None if arguments.no_pictures else drawn_by(console)
    model = load_model(arguments)
    with ExitStack() as stack:
        silence_s = SILENCE_S if isinstance(source, LiveSource) else math.inf
        # Pictures are those of stored scenes.
        kept = opened_episodes(arguments, model, source.name, silence_s, in_ram=draw is not None)
        episodes = stack.enter_context(kept)
        engine = stack.enter_context(StreamEngine(model, config, episodes=episodes))
        chat = Chat(engine, model.memory_config, arguments.max_new_tokens, arguments.turns, draw is not None)
        player = Player(source, engine, arguments.ask, chat.on_cue, arguments.rate, patient=not interactive)
        stack.enter_context(closing(player))
        show = stack.enter_context(prompt(chat.post if typed else None)) if console.is_terminal else None
        screen = Screen(console, show, draw)
        screen.note(f"{source.name}, answered by {model.name}")
        for notice in () if episodes is None else episodes.store.notices():
            screen.note(notice.message, style="yellow")
        if typed:
            screen.note("type a question at any time and press Enter; Ctrl-D or Ctrl-C ends")
            screen.note(f"such as: {example_question(arguments.model)}")
            screen.note("/choices yes | no has later answers chosen from these texts, /choices alone ends that")
        elif interactive:
            read_lines(chat.post, chat.room)
        player.start()
        chat.run(player, screen, interactive, typed)
        left_out = chat.note_left_out(player, screen)
        # What waits is stored before it is counted.
        engine.close()
        for note in () if engine.recording is None else engine.recording.notes():
            screen.note(note, style="yellow")
    if typed:
        return 0
    return 1 if chat.failed or player.error else INCOMPLETE if left_out else 0
