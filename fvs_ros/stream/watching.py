"""Looks at what is watched: batches of questions to the prefilled memory, behind those of users."""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from fvs_ros.stream.config import StreamConfig
from fvs_ros.stream.device_memory import free_device_memory, is_out_of_memory
from fvs_ros.stream.evidence import most_relevant
from fvs_ros.stream.latest_memory import LatestMemory
from fvs_ros.stream.log import ThrottledLog
from fvs_ros.stream.model_protocol import StreamScoring
from fvs_ros.stream.prefill import LONGEST_PAUSE_S, PrefillScheduler, ReadyMemory
from fvs_ros.stream.scene_pictures import ScenePictures
from fvs_ros.stream.types import MemoryStatus, Moment
from fvs_ros.stream.watch import Watch, WatchEvent
from fvs_ros.stream.watch_condition import Change
from fvs_ros.stream.watchdog import ModelCalls
from fvs_ros.stream.watches import WatchRegister

logger = logging.getLogger(__name__)

# Questions in a round, but for those of a single watch. While one is under way its memory keeps a buffer, so the next
# memory but one waits for its end.
MOST_AT_ONCE = 16
# The longest sleep while something is watched: what becomes due during a pause is then seen.
LONGEST_SLEEP_S = 1.0


# A change is told without its pictures where the disk does not give them for so long.
LONGEST_PICTURES_S = 2.0


@dataclass(eq=False)
class _Pictured:
    """A change whose pictures are looked up."""

    watch: Watch
    event: WatchEvent
    moments: Future[tuple[Moment, ...]]
    until: float = field(default_factory=lambda: time.monotonic() + LONGEST_PICTURES_S)

    @property
    def is_due(self) -> bool:
        """Whether it is to be told."""
        return self.moments.done() or time.monotonic() >= self.until

    def tell(self) -> None:
        """Tells it, with the pictures if they are there."""
        moments = self.moments.result() if self.moments.done() else self.event.moments
        self.watch.tells = False
        self.watch.tell(replace(self.event, moments=moments))


@dataclass(eq=False)
class _Round:
    """Watches that are looked at together.

    Attributes:
        busy_s: seconds of the model's time that it took so far.
        changed: watches whose condition changed, with the looks that found that; what they rest on is to be found.
    """

    memory: ReadyMemory
    watches: Sequence[Watch]
    scoring: StreamScoring
    busy_s: float = 0.0
    changed: deque[tuple[Watch, WatchEvent]] = field(default_factory=deque)


class Watching:
    """Looks at conditions, those first whose look has been due longest. Used by one thread.

    It works in steps, each a batch of the model. Questions of users come first: while one waits or is answered, there
    is a step every `LONGEST_PAUSE_S` at most. After a round it pauses for as long as `watch_share` asks for, so more
    watches than that share suffices for are each looked at more rarely, in turn.

    Args:
        config: `watch_share` and `moments_limit`.
        register: what is watched.
        latest: the newest memory.
        prefill: the memories in the model.
        calls: the calls of the model by the worker that uses this.
        pictures: of moments; None where none are kept.
    """

    def __init__(
        self,
        config: StreamConfig,
        register: WatchRegister,
        latest: LatestMemory,
        prefill: PrefillScheduler,
        calls: ModelCalls,
        pictures: ScenePictures | None = None,
    ) -> None:
        self._config = config
        self._register = register
        self._latest = latest
        self._prefill = prefill
        self._calls = calls
        self._pictures = pictures
        self._round: _Round | None = None
        self._pictured: list[_Pictured] = []
        # Lowered where the device's memory does not suffice.
        self._at_once = MOST_AT_ONCE
        self._prefill_busy_s = 0.0
        self._pause_until = 0.0
        self._last_step = 0.0
        self._log = ThrottledLog(logger)

    def pause_s(self, answering: bool) -> float | None:
        """Seconds until the next step may be due; None while nothing is watched.

        Args:
            answering: whether questions wait or are answered, which have priority.
        """
        self._register.news = False
        if self._has_pictures:
            return 0.0
        if self._round is None and not self._register.open():
            return None
        now = time.monotonic()
        due = self._not_before(answering)
        if due <= now and not self._has_work():
            return LONGEST_SLEEP_S
        return min(max(0.0, due - now), LONGEST_SLEEP_S)

    def is_due(self, answering: bool) -> bool:
        """Whether `pause_s` is to be asked again, or a step is due."""
        if self._register.news or self._has_pictures:
            return True
        return self._not_before(answering) <= time.monotonic() and self._has_work()

    def advance(self, answering: bool) -> None:
        """Tells what has got its pictures, and takes the next step, if it is due."""
        self._tell_pictured()
        if self._not_before(answering) > time.monotonic() or not self._has_work():
            return
        begin = time.monotonic()
        try:
            if self._round is None:
                self._begin_round()
            else:
                self._step(self._round)
        except Exception as error:
            self._fail(error)
        self._last_step = time.monotonic()
        if self._round is not None:
            self._round.busy_s += self._last_step - begin
        else:
            # The memory's prefill, where nothing but watches asked for it.
            self._prefill_busy_s += self._last_step - begin

    def take_over(self, other: Watching) -> None:
        """Tells what another, whose thread hangs, found and did not tell."""
        self._at_once, self._pictured = other._at_once, other._pictured
        for watch, event in list(other._round.changed) if other._round is not None else ():
            watch.tell(event)

    def close(self) -> None:
        """Gives up the round under way."""
        if self._round is not None:
            self._round.memory.answers -= 1
            self._round = None

    def _not_before(self, answering: bool) -> float:
        pause_until = self._pause_until if self._round is None else 0.0
        return max(pause_until, self._last_step + LONGEST_PAUSE_S) if answering else pause_until

    def _has_work(self) -> bool:
        return self._round is not None or bool(self._due())

    def _target(self) -> MemoryStatus | None:
        """The memory to look at: the newest that is prefilled, or is to be for this."""
        if self._prefill.on_demand:
            newest = self._latest.current
            return None if newest is None else newest.status
        ready = self._prefill.current
        return None if ready is None else ready.status

    def _due(self) -> list[Watch]:
        target = self._target()
        # After a reset, what is prefilled is of the past.
        if target is None or target.episode != self._latest.status.episode:
            return []
        due, now = [watch for watch in self._register.open() if watch.is_due(target)], time.monotonic()
        for watch in due:
            watch.due_since = now if watch.due_since is None else watch.due_since
        return sorted(due, key=lambda watch: (watch.due_since or 0.0, watch.number))

    def _next(self) -> list[Watch]:
        """Those that are due, the first of them and as many more as a round has questions."""
        due = self._due()
        totals = itertools.accumulate(len(watch.asked.questions) for watch in due)
        return [watch for watch, total in zip(due, totals, strict=True) if total <= self._at_once] or due[:1]

    def _begin_round(self) -> None:
        target, ready = self._target(), self._prefill.current
        if target is None:
            return
        if ready is None or ready.status.version < target.version:
            self._prefill.advance(target.version, answering=False)
            return
        watches = self._next()
        questions = [question for watch in watches for question in watch.asked.questions]
        texts = [texts for watch in watches for texts in watch.asked.texts]
        with self._calls.call("look at what is watched"):
            scoring = ready.prefilled.score(questions, texts)
        ready.answers += 1
        self._round, self._prefill_busy_s = _Round(ready, watches, scoring, self._prefill_busy_s), 0.0

    def _step(self, round_: _Round) -> None:
        if round_.memory.status.episode != self._latest.status.episode:
            self._end_round(round_)
        elif not round_.scoring.done:
            with self._calls.call("look at what is watched"):
                done = round_.scoring.step()
            if done:
                self._judge(round_)
        elif round_.changed:
            watch, event = round_.changed[0]
            self._tell(watch, replace(event, moments=self._moments(round_.memory, watch)))
            round_.changed.popleft()
        if round_.scoring.done and not round_.changed:
            self._end_round(round_)

    def _judge(self, round_: _Round) -> None:
        """Gives each watch its probability; what changed nothing is told at once."""
        counters = self._register.counters
        left = iter(round_.scoring.log_probabilities)
        for watch in round_.watches:
            scores = list(itertools.islice(left, len(watch.asked.questions)))
            if watch.ended():
                continue
            event = watch.look(watch.asked.probability(scores), round_.memory.status)
            counters.looks += 1
            if event.change is Change.NOTHING:
                watch.tell(event)
            else:
                counters.changes += 1
                round_.changed.append((watch, event))

    def _tell(self, watch: Watch, event: WatchEvent) -> None:
        """Tells a change, at once or when its pictures are there."""
        if not watch.options.with_images or self._pictures is None:
            watch.tell(event)
            return
        watch.tells = True
        pictured = _Pictured(watch, event, self._pictures.add_to(event.moments, event.stamp_ns))
        self._pictured.append(pictured)
        pictured.moments.add_done_callback(lambda _: self._register.look_again())

    @property
    def _has_pictures(self) -> bool:
        return any(pictured.is_due for pictured in self._pictured)

    def _tell_pictured(self) -> None:
        for pictured in [pictured for pictured in self._pictured if pictured.is_due]:
            self._pictured.remove(pictured)
            pictured.tell()

    def _moments(self, memory: ReadyMemory, watch: Watch) -> tuple[Moment, ...]:
        """What a change rests on; nothing where the model fails on that, as the change is to be told all the same."""
        try:
            # One token: what the question attends to is known when it has been read.
            with self._calls.call("look at what is watched"):
                answer = memory.prefilled.start(watch.asked.questions[0], 1)
                answer.close()
        except Exception as error:
            self._count_failure(error, 1)
            return ()
        return most_relevant(memory.shown.weighed(answer.relevance), self._config.moments_limit)

    def _end_round(self, round_: _Round) -> None:
        if self._round is round_:
            self.close()
            pause_s = round_.busy_s * (1 / self._config.watch_share - 1)
            self._pause_until = time.monotonic() + pause_s

    def _fail(self, error: Exception) -> None:
        """Leaves out the memory on which the model failed."""
        round_ = self._round
        watches = self._next() if round_ is None else list(round_.watches)
        self._count_failure(error, len(watches))
        if is_out_of_memory(error):
            free_device_memory()
            self._at_once = max(1, self._at_once // 2)
        target = self._target() if round_ is None else round_.memory.status
        for watch in watches:
            if target is not None:
                watch.skip(target)
        self.close()
        self._pause_until = time.monotonic() + LONGEST_PAUSE_S

    def _count_failure(self, error: Exception, looks: int) -> None:
        self._register.counters.failed += looks
        self._register.counters.error = f"{type(error).__name__}: {error}"
        self._log.log(logging.ERROR, "watch", "the model failed on what is watched", exc_info=True)
