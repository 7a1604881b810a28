"""A chat about a stream while it plays: questions from the input and from cues, answers to the screen."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from fvs_ros.chat.player import Cue, Player
from fvs_ros.chat.prompt import MOST_WAITING, EndOfInput, Line
from fvs_ros.chat.screen import Screen, StreamState, clock_text
from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.stream.choices import check_choices
from fvs_ros.stream.config import StreamConfig
from fvs_ros.stream.engine import StreamEngine
from fvs_ros.stream.history import ASSISTANT, USER, newest_turns
from fvs_ros.stream.questions import PendingAnswer
from fvs_ros.stream.types import AskError, AskOptions, ChatMessage

_REDRAW_S = 0.1
# A line that begins with it says what later answers are chosen from, such as `/choices yes | no`.
_CHOICES = "/choices"


@dataclass(eq=False)
class Asked:
    """A question on its way.

    Attributes:
        asked_s: the stream's clock when it was asked, seconds.
        choices: what the answer is chosen from; none for one in the model's own words.
        chunks: the answer's text so far.
    """

    question: str
    asked_s: float
    choices: tuple[str, ...] = ()
    chunks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Token:
    """The next chunk of an answer's text."""

    asked: Asked
    text: str


@dataclass(frozen=True)
class Finished:
    """The end of a question."""

    asked: Asked
    pending: PendingAnswer


Event = Asked | Token | Finished | Line | EndOfInput


class Chat:
    """Asks an engine and shows its answers. `run` is called once, on the main thread.

    Args:
        engine: running.
        memory: sizes of its memory, for the status line.
        max_new_tokens: an answer's longest length, None for the engine's.
        turns: so many of the newest questions and answers are read before the next question, which waits for them.
        with_images: have moments bring their pictures.

    Attributes:
        failed: questions without an answer.
        room: released whenever a question has ended; see `read_lines`.
    """

    def __init__(
        self,
        engine: StreamEngine,
        memory: FlashMemoryConfig,
        max_new_tokens: int | None = None,
        turns: int = 0,
        with_images: bool = False,
    ) -> None:
        self._engine = engine
        self._memory = memory
        self._max_new_tokens = max_new_tokens
        self._with_images = with_images
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._open: list[Asked] = []
        self._turns = turns
        self._history: tuple[ChatMessage, ...] = ()
        # Typed before there is a memory to ask about.
        self._held: list[tuple[str, tuple[str, ...]]] = []
        self._choices: tuple[str, ...] = ()
        self._input_ended = False
        self.failed = 0
        self.room = threading.Semaphore(MOST_WAITING)

    @property
    def post(self) -> Callable[[Event], None]:
        """Takes lines and the end of the input; callable from any thread."""
        return self._events.put

    def on_cue(self, cue: Cue) -> None:
        """Asks a question that is due, about every frame before it; called on the player's thread.

        The player waits until the answer has begun: no later frame can get into its memory, however busy the machine
        is, so that the answer is the same each time.
        """
        begun = threading.Event()
        self._ask(Asked(cue.question, cue.time_s), fresh=True, on_begun=begun.set)
        begun.wait()

    def _ask(self, asked: Asked, fresh: bool, on_begun: Callable[[], None] = lambda: None) -> None:
        self._events.put(asked)

        def on_token(text: str) -> None:
            on_begun()
            self._events.put(Token(asked, text))

        def on_done(pending: PendingAnswer) -> None:
            on_begun()
            self._events.put(Finished(asked, pending))

        options = AskOptions(
            max_new_tokens=self._max_new_tokens,
            fresh=fresh,
            with_images=self._with_images,
            choices=asked.choices,
            history=self._history,
        )
        self._engine.ask(asked.question, options, on_token).add_done_callback(on_done)

    def run(self, player: Player, screen: Screen, interactive: bool, typed: bool) -> None:
        """Runs until the last answer after the end of the input, or after the last cue.

        The end of typed input ends the chat at once.

        Args:
            player: started; its cues come to `on_cue`.
            screen: entered.
            interactive: whether questions come from the input.
            typed: whether a person types them.
        """
        end_shown = False
        while True:
            self._take_events(player, screen)
            if self._held and (self._engine.status.steps or player.ended) and not (self._turns and self._open):
                # One by one where each is to know the answer before it.
                count = 1 if self._turns else len(self._held)
                held, self._held = self._held[:count], self._held[count:]
                for question, choices in held:
                    # After the end all frames are awaited, also the first of a recording that was over at once.
                    self._ask(Asked(question, player.clock_s, choices), fresh=player.ended)
                continue
            # Not in the middle of an answer that is being printed.
            if player.ended and not end_shown and not (self._open and self._open[0].chunks):
                end_shown = True
                self._show_end(player, screen, interactive and not self._input_ended)
            running = self._open[0] if self._open else None
            screen.redraw(
                self._state(player),
                None if running is None else (running.asked_s, running.question, "".join(running.chunks)),
                [asked.question for asked in self._open[1:]] + [question for question, _ in self._held],
            )
            if self._input_ended and typed:
                return
            over = self._input_ended if interactive else (player.ended or not player.cues_left)
            if over and not self._open and not self._held and self._events.empty():
                return

    def _take_events(self, player: Player, screen: Screen) -> None:
        """Waits for an event, at most until the next redraw, and handles all that have come."""
        try:
            self._handle(self._events.get(timeout=_REDRAW_S), player, screen)
            while True:
                self._handle(self._events.get_nowait(), player, screen)
        except queue.Empty:
            return

    def _handle(self, event: Event, player: Player, screen: Screen) -> None:
        if isinstance(event, EndOfInput):
            self._input_ended = True
        elif isinstance(event, Line):
            self._take_line(event.text, screen)
        elif isinstance(event, Asked):
            self._open.append(event)
        elif isinstance(event, Token):
            if not event.asked.chunks:
                screen.begin_answer(event.asked.asked_s, event.asked.question)
            event.asked.chunks.append(event.text)
            screen.token(event.text)
        else:
            self._open.remove(event.asked)
            self.room.release()
            self._show(event, player, screen)

    def _take_line(self, text: str, screen: Screen) -> None:
        if text.split(maxsplit=1)[0] != _CHOICES:
            self._held.append((text, self._choices))
            return
        # It gets no answer, so that the next line may be read.
        self.room.release()
        given = text.removeprefix(_CHOICES).strip()
        choices = tuple(one.strip() for one in given.split("|")) if given else ()
        try:
            check_choices(choices)
        except AskError as error:
            screen.note(f"{error}; such as: {_CHOICES} yes | no", style="bold red")
            return
        self._choices = choices
        screen.note(f"answers are now one of: {', '.join(choices)}" if choices else "answers are in free words again")

    def _show(self, finished: Finished, player: Player, screen: Screen) -> None:
        asked = finished.asked
        try:
            answer = finished.pending.result(timeout=0)
        except AskError as error:
            self.failed += 1
            screen.failure(asked.asked_s, asked.question, f"{error.code.name}: {error}", begun=bool(asked.chunks))
            return
        if not asked.chunks:
            screen.begin_answer(asked.asked_s, asked.question)
        screen.answer(asked.asked_s, asked.question, answer, player.start_ns or 0, asked.choices)
        self._remember(asked.question, answer.text)

    def _remember(self, question: str, answer: str) -> None:
        said = (*self._history, ChatMessage(USER, question), ChatMessage(ASSISTANT, answer))
        self._history = newest_turns(said, self._turns, StreamConfig.question_characters)

    def _show_end(self, player: Player, screen: Screen, more: bool) -> None:
        if player.error:
            screen.note(player.error, style="bold red")
        else:
            screen.note(
                f"the recording ended at {clock_text(player.clock_s)}" + "; ask on, or leave with Ctrl-D" * more
            )
        for cue in player.unasked:
            self.failed += 1
            problem = f"the stream ended at {clock_text(player.clock_s)}, before {clock_text(cue.time_s)}"
            screen.failure(cue.time_s, cue.question, f"not asked: {problem}", begun=False)

    def note_left_out(self, player: Player, screen: Screen) -> bool:
        """Says at the end which frames are not in memory; whether there are any but those that a slow model dropped."""
        counted = self._engine.statistics
        for note in player.notes:
            screen.note(note, style="yellow")
        if counted.lost:
            screen.note(counted.describe_lost(), style="yellow")
        return bool(player.notes) or counted.lost > counted.dropped

    def _state(self, player: Player) -> StreamState:
        return StreamState(
            clock_s=player.clock_s,
            duration_s=player.duration_s,
            ended=player.ended,
            fps=player.arrival_fps(),
            frames=self._engine.statistics,
            memory=self._engine.status,
            capacity=self._memory,
        )
