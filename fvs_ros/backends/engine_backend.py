"""A recording, a camera or an episode store, through an engine of the server's own. No ROS."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from dataclasses import replace

from fvs_ros.backends.backend import BackendError, MemoryReport, Timeline, WatchReport
from fvs_ros.chat.player import Player
from fvs_ros.episodic.segment import StoredSegment
from fvs_ros.episodic.store import EpisodeStore
from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.sources.frame import Area, Frame
from fvs_ros.sources.stamps import stamp_text
from fvs_ros.stream.engine import StreamEngine
from fvs_ros.stream.outcomes import done, fail
from fvs_ros.stream.pictures import shown_jpeg
from fvs_ros.stream.questions import PendingAnswer
from fvs_ros.stream.recording import RecordingError
from fvs_ros.stream.types import Answer, AskError, AskOptions, Moment, Picture
from fvs_ros.stream.watch import Watch, WatchEvent, WatchOptions

# The end of a recording waits for the frames before it.
_SAVING_S = 60.0


class EngineBackend:
    """Asks an engine, and looks into its episode store.

    Args:
        engine: running; the caller's, who closes it after this.
        store: where its stream is kept; the caller's, too.
        capacity: slots of the memory.
        model: name of the model.
        player: what feeds the engine, started; None where a store is all that there is.
        whole: questions wait until all that `player` plays is in memory.
    """

    def __init__(
        self,
        engine: StreamEngine,
        store: EpisodeStore,
        capacity: FlashMemoryConfig,
        model: str,
        player: Player | None = None,
        *,
        whole: bool = False,
    ) -> None:
        self._engine = engine
        self._store = store
        self._capacity = capacity
        self._model = model
        self._player = player
        self._whole = whole
        self._end_is_stored = False
        # A read waits while the store forgets or opens, as no event loop should.
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="fvs-backend-read")

    def progress(self) -> str:
        """See `MemoryBackend`."""
        recording, player = self._engine.recording, self._player
        if recording is not None and recording.restoring:
            return f"the memory is made of what is stored: {recording.restoring}"
        if self._whole and player is not None and not player.ended:
            return f"the recording is read: {player.clock_s:.0f} of {player.duration_s:.0f} s"
        return ""

    def ask(self, question: str, options: AskOptions, on_token: Callable[[str], None]) -> Future[Answer]:
        """See `MemoryBackend`."""
        answer: Future[Answer] = Future()
        # The last frames of a recording may be held back until the next ones, which never come.
        options = replace(options, fresh=options.fresh or (self._whole and not options.ranged))
        pending = self._engine.ask(question, options, on_token)
        answer.add_done_callback(lambda ended: pending.cancel() if ended.cancelled() else None)
        pending.add_done_callback(lambda ended: _settle(answer, ended))
        return answer

    def moments(self, since_ns: int | None, until_ns: int | None, near: Area | None) -> Future[Sequence[Moment]]:
        """See `MemoryBackend`: those of all stored segments."""
        return self._reader.submit(self._moments, since_ns, until_ns, near)

    def _moments(self, since_ns: int | None, until_ns: int | None, near: Area | None) -> list[Moment]:
        self._store_the_end()
        return [moment_of_segment(stored) for stored in self._store.segments(since_ns, until_ns, area=near)]

    def keyframe(self, stamp_ns: int) -> Future[Picture]:
        """See `MemoryBackend`."""
        picture: Future[Picture] = Future()

        def settle(found: Future[Picture | None]) -> None:
            error = found.exception()
            kept = None if error is not None else found.result()
            if kept is None:
                fail(picture, error or BackendError(f"no picture is kept near {stamp_text(stamp_ns)} s"))
            else:
                with contextlib.suppress(InvalidStateError):
                    picture.set_result(kept)

        try:
            self._engine.keyframe(stamp_ns).add_done_callback(settle)
        except RecordingError as error:
            fail(picture, error)
        return picture

    def camera(self) -> Future[Picture]:
        """See `MemoryBackend`; where nothing plays, the newest picture that is kept."""
        if self._player is not None:
            return self._reader.submit(self._camera, self._player.newest)
        return self.keyframe(self._engine.status.end_ns)

    def _camera(self, frame: Frame | None) -> Picture:
        if frame is None:
            raise BackendError("no picture has come yet")
        try:
            return Picture(frame.stamp_ns, shown_jpeg(frame.image()), frame.frame_id)
        except ValueError as error:
            raise BackendError(f"the newest picture cannot be shown: {error}") from error

    def timeline(self) -> Future[Timeline]:
        """See `MemoryBackend`."""
        return self._reader.submit(self._timeline)

    def _timeline(self) -> Timeline:
        moments = self._engine.shown().moments
        return Timeline(moments, max((moment.end_ns for moment in moments), default=0), live=True)

    def _store_the_end(self) -> None:
        """Has the last scene of a recording that is over stored, like those before it."""
        if self._whole and not self._end_is_stored and not self.progress():
            self._end_is_stored = True
            self._engine.save_memory(_SAVING_S)

    def memory(self) -> Future[MemoryReport]:
        """See `MemoryBackend`."""
        recording = self._engine.recording
        player_error = "" if self._player is None else self._player.error
        report = MemoryReport(
            self._engine.status,
            self._capacity.csm_slots,
            self._capacity.dam_slots,
            self._model,
            0 if recording is None else recording.segments,
            player_error or ("" if recording is None else recording.problem),
            self._engine.statistics,
        )
        return done(report)

    def watch(
        self, condition: str, options: WatchOptions, on_event: Callable[[WatchEvent], None]
    ) -> Future[WatchEvent]:
        """See `MemoryBackend`."""
        found: Future[WatchEvent] = Future()
        try:
            watch = self._engine.watches.add(condition, replace(options, once=True), on_event)
        except AskError as error:
            fail(found, error)
            return found
        found.add_done_callback(lambda ended: watch.cancel() if ended.cancelled() else None)
        watch.add_done_callback(lambda ended: _settle_watch(found, ended))
        return found

    def watches(self) -> Future[Sequence[WatchReport]]:
        """See `MemoryBackend`."""
        episode = self._engine.status.episode
        return done([_report(watch, watch.last(episode)) for watch in self._engine.watches.open()])

    def close(self) -> None:
        """See `MemoryBackend`."""
        self._reader.shutdown(cancel_futures=True)


def moment_of_segment(stored: StoredSegment) -> Moment:
    """A stored segment as the moment that an answer from it would rest on."""
    segment = stored.segment
    return Moment(segment.keyframe_ns, segment.start_ns, segment.end_ns, segment.weight, segment.frame_id, segment.pose)


def _settle(answer: Future[Answer], ended: PendingAnswer) -> None:
    """Gives a future the outcome of a question that has ended, unless it was cancelled."""
    try:
        with contextlib.suppress(InvalidStateError):
            answer.set_result(ended.result(timeout=0))
    except AskError as error:
        fail(answer, error)


def _settle_watch(found: Future[WatchEvent], ended: Watch) -> None:
    """Gives a future how a watch has ended, unless it was cancelled."""
    outcome = ended.result(timeout=0)
    if outcome.error is not None or outcome.became_true is None:
        fail(found, outcome.error or BackendError("the watch ended"))
        return
    with contextlib.suppress(InvalidStateError):
        found.set_result(outcome.became_true)


def _report(watch: Watch, last: WatchEvent | None) -> WatchReport:
    report = WatchReport(watch.condition, watch.asked.questions[0], watch.options.name)
    if last is None:
        return report
    return replace(report, is_true=last.is_true, since_ns=last.since_ns, probability=last.probability)
