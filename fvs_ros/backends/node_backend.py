"""A running stream node over DDS, through the public client, which one thread of its own spins for all who ask."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from typing import TypeVar

from fvs_ros.backends.backend import BackendError, MemoryReport, Timeline, WatchReport
from fvs_ros.backends.node_fields import request_fields, stamp_message
from fvs_ros.errors import ReadableError
from fvs_ros.nodes.messages import (
    answer_of,
    memory_status,
    picture_of,
    pose_of,
    stamp_nanoseconds,
    stream_statistics,
)
from fvs_ros.nodes.watch_messages import watch_event_of
from fvs_ros.ros_tools.camera_view import CameraView, ImageLike, decoded
from fvs_ros.ros_tools.client import FlashVStreamClient, RefusedError
from fvs_ros.ros_tools.requests import longest_wait
from fvs_ros.ros_tools.watch_stream import WatchRequest
from fvs_ros.sources.frame import Area
from fvs_ros.stream.outcomes import done, fail
from fvs_ros.stream.pictures import shown_jpeg
from fvs_ros.stream.types import Answer, AskOptions, Moment, Picture
from fvs_ros.stream.watch import WatchEvent, WatchOptions

logger = logging.getLogger(__name__)

# Discovery takes seconds, on a busy machine tens of them.
DISCOVERY_S = 20.0
# One spin of the client, between two looks at what came in.
_TICK_S = 0.02
# What the node does at once.
_REPLY_S = 10.0
# A node is gone once DDS has not known it for so long.
_GONE_S = 3.0
_ANY_QUESTION = "What do you see?"

Result = TypeVar("Result")
# Work on the client's thread: it goes on at each tick, and what it waits for is between two of them.
Work = Generator[None, None, Result]


class _GivenUpError(Exception):
    """Ends a wait of the client for what nobody needs any more, or what does not come."""


class NodeBackend:
    """Asks a stream node. Any number may ask at once; the node bounds how many it answers.

    Args:
        node: its full name.
        domain: ROS domain; None takes ROS_DOMAIN_ID.
        discovery_s: seconds to look for a node that is not there.
    """

    def __init__(self, node: str, domain: int | None = None, discovery_s: float = DISCOVERY_S) -> None:
        self._node = node
        self._domain = domain
        self._discovery_s = discovery_s
        self._begun: queue.SimpleQueue[tuple[Future, Callable[[FlashVStreamClient], Work]]] = queue.SimpleQueue()
        self._closed = threading.Event()
        # When DDS last knew the node.
        self._seen_s = -_GONE_S
        # Whether the client's present wait is to end.
        self._give_up: Callable[[], bool] = lambda: False
        # Of the last answer that was given, to whom ever.
        self._timeline = Timeline((), 0, live=False)
        # Decoding would hold up the tokens of all answers.
        self._decoder = ThreadPoolExecutor(1, thread_name_prefix="fvs-backend-decode")
        self._thread = threading.Thread(target=self._run, name="fvs-backend-node", daemon=True)
        self._thread.start()

    def progress(self) -> str:
        """See `MemoryBackend`: the node answers from what it has."""
        return ""

    def ask(self, question: str, options: AskOptions, on_token: Callable[[str], None]) -> Future[Answer]:
        """See `MemoryBackend`."""
        answer: Future[Answer] = Future()
        return self._begin(answer, lambda client: self._answer(client, answer, question, options, on_token))

    def moments(self, since_ns: int | None, until_ns: int | None, near: Area | None) -> Future[Sequence[Moment]]:
        """See `MemoryBackend`: what the model has in front of it, which comes with an answer of one token."""
        moments: Future[Sequence[Moment]] = Future()
        options = AskOptions(max_new_tokens=1, since_ns=since_ns, until_ns=until_ns, near=near)

        def work(client: FlashVStreamClient) -> Work[Sequence[Moment]]:
            answer = yield from self._answer(client, moments, _ANY_QUESTION, options, lambda _: None)
            return answer.all_moments

        return self._begin(moments, work)

    def keyframe(self, stamp_ns: int) -> Future[Picture]:
        """See `MemoryBackend`."""
        picture: Future[Picture] = Future()
        return self._begin(picture, lambda client: self._picture(client, picture, stamp_ns))

    def camera(self) -> Future[Picture]:
        """See `MemoryBackend`: of the topic that the node subscribes to."""
        picture: Future[Picture] = Future()
        return self._begin(picture, lambda client: self._camera_picture(client, picture))

    def timeline(self) -> Future[Timeline]:
        """See `MemoryBackend`: what the model had in front of it for the last answer."""
        return done(self._timeline)

    def memory(self) -> Future[MemoryReport]:
        """See `MemoryBackend`."""
        report: Future[MemoryReport] = Future()
        return self._begin(report, lambda client: self._report(client, report))

    def watch(
        self, condition: str, options: WatchOptions, on_event: Callable[[WatchEvent], None]
    ) -> Future[WatchEvent]:
        """See `MemoryBackend`."""
        found: Future[WatchEvent] = Future()
        return self._begin(found, lambda client: self._watched(client, found, condition, options, on_event))

    def watches(self) -> Future[Sequence[WatchReport]]:
        """See `MemoryBackend`."""
        reports: Future[Sequence[WatchReport]] = Future()
        return self._begin(reports, lambda client: self._watch_reports(client, reports))

    def close(self) -> None:
        """See `MemoryBackend`."""
        self._closed.set()
        self._thread.join()
        self._decoder.shutdown(cancel_futures=True)

    def _begin(self, outcome: Future[Result], work: Callable[[FlashVStreamClient], Work[Result]]) -> Future[Result]:
        self._begun.put((outcome, work))
        if not self._thread.is_alive():
            self._refuse_all()
        return outcome

    def _refuse_all(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                fail(self._begun.get_nowait()[0], BackendError("the connection to ROS has ended; restart the server"))

    # On the client's thread

    def _run(self) -> None:
        running: list[tuple[Future, Work]] = []
        try:
            with FlashVStreamClient(self._node, domain=self._domain, on_wait=self._on_wait) as client:
                self._camera = CameraView(client.ros_node, self._node)
                while not self._closed.is_set():
                    with contextlib.suppress(queue.Empty):
                        while True:
                            outcome, work = self._begun.get_nowait()
                            running.append((outcome, work(client)))
                    if client.ros_node.count_publishers(f"{self._node}/statistics"):
                        self._seen_s = time.monotonic()
                    self._camera.tend()
                    running = [one for one in running if not _step(*one)]
                    with contextlib.suppress(_GivenUpError):
                        client.spin_for(_TICK_S)
        except Exception:
            logger.exception("the client of %s failed", self._node)
        finally:
            for outcome, unfinished in running:
                unfinished.close()
                fail(outcome, BackendError("the server ended before the answer was complete"))
            self._refuse_all()

    def _on_wait(self) -> None:
        if self._closed.is_set() or self._give_up():
            raise _GivenUpError

    @contextlib.contextmanager
    def _bounded(self, outcome: Future, what: str) -> Iterator[None]:
        """A block in which the client may wait, until nobody needs the outcome any more or the time is over."""
        ends_s = time.monotonic() + _REPLY_S
        self._give_up = lambda: outcome.cancelled() or time.monotonic() > ends_s
        try:
            yield
        except (_GivenUpError, TimeoutError):
            raise BackendError(f"{self._node} did not {what} within {_REPLY_S:g} s") from None
        except RefusedError as error:
            raise BackendError(str(error)) from None
        finally:
            self._give_up = lambda: False

    @property
    def _gone(self) -> bool:
        return time.monotonic() - self._seen_s > _GONE_S

    def _found(self, outcome: Future) -> Work[None]:
        """Waits for the node to be there."""
        ends_s = time.monotonic() + self._discovery_s
        while self._gone:
            if outcome.cancelled():
                raise _GivenUpError
            if time.monotonic() > ends_s:
                domain = "this ROS domain" if self._domain is None else f"ROS domain {self._domain}"
                raise BackendError(
                    f"no stream node {self._node} in {domain} after {self._discovery_s:g} s; start it, or name yours "
                    "with --node (`ros2 node list`) and its domain with ROS_DOMAIN_ID"
                )
            yield

    def _answer(
        self,
        client: FlashVStreamClient,
        outcome: Future,
        question: str,
        options: AskOptions,
        on_token: Callable[[str], None],
    ) -> Work[Answer]:
        """Asks through the action, and ends the question where nobody needs it any more."""
        fields = request_fields(options)
        yield from self._found(outcome)
        with self._bounded(outcome, "take the question"):
            stream = client.ask_stream(question, on_token, **fields)
        ends_s = time.monotonic() + longest_wait(fields["timeout_s"])
        try:
            while not stream.done():
                if outcome.cancelled():
                    raise _GivenUpError
                if self._gone or time.monotonic() > ends_s:
                    raise BackendError(f"{self._node} ended, or hangs, before it answered; start it again")
                yield
            answer = answer_of(stream.result())
            self._timeline = Timeline(answer.all_moments, answer.end_ns, live=False)
            return answer
        finally:
            if not stream.done():
                # Sent at once; nobody waits for the reply.
                stream.goal.cancel_goal_async()

    def _watched(
        self,
        client: FlashVStreamClient,
        outcome: Future,
        condition: str,
        options: WatchOptions,
        on_event: Callable[[WatchEvent], None],
    ) -> Work[WatchEvent]:
        """Watches through the action, and ends the watch where nobody needs it any more."""
        fields: WatchRequest = {
            "period_s": options.period_s,
            "hold_s": options.hold_s,
            "timeout_s": options.timeout_s,
            "with_images": options.with_images,
            "once": True,
        }
        yield from self._found(outcome)
        with self._bounded(outcome, "take the watch"):
            watch = client.watch(condition, lambda message: on_event(watch_event_of(message)), **fields)
        try:
            while not watch.done():
                if outcome.cancelled():
                    raise _GivenUpError
                if self._gone:
                    raise BackendError(f"{self._node} ended, or hangs; start it again, and watch again")
                yield
            return watch_event_of(watch.result().event)
        finally:
            if not watch.done():
                # Sent at once; nobody waits for the reply.
                watch.goal.cancel_goal_async()

    def _watch_reports(self, client: FlashVStreamClient, outcome: Future) -> Work[Sequence[WatchReport]]:
        yield from self._found(outcome)
        ends_s = time.monotonic() + _REPLY_S
        while client.watches is None:
            if outcome.cancelled():
                raise _GivenUpError
            if time.monotonic() > ends_s:
                raise BackendError(f"{self._node} does not tell what it watches")
            yield
        return [
            WatchReport(
                one.condition,
                one.question,
                one.name,
                one.is_true if one.looked_at else None,
                stamp_nanoseconds(one.since),
                one.probability,
            )
            for one in client.watches.watches
        ]

    def _picture(self, client: FlashVStreamClient, outcome: Future, stamp_ns: int) -> Work[Picture]:
        stamp = stamp_message("stamp", stamp_ns)
        yield from self._found(outcome)
        with self._bounded(outcome, "give a picture"):
            found = client.keyframe(stamp)
        at = found.pose
        pose = pose_of(at.header.frame_id, at.pose.position, at.pose.orientation) if found.pose_valid else None
        return picture_of(found.image, pose)

    def _camera_picture(self, client: FlashVStreamClient, outcome: Future) -> Work[Picture]:
        yield from self._found(outcome)
        ends_s = time.monotonic() + _REPLY_S
        while (message := self._camera.look()) is None:
            if outcome.cancelled():
                raise _GivenUpError
            if time.monotonic() > ends_s:
                raise BackendError(f"no image of {self._node}'s camera came within {_REPLY_S:g} s")
            yield
        shown = self._decoder.submit(_shown, message)
        while not shown.done():
            yield
        return shown.result()

    def _report(self, client: FlashVStreamClient, outcome: Future) -> Work[MemoryReport]:
        yield from self._found(outcome)
        ends_s = time.monotonic() + _REPLY_S
        # Counters come once a second; the memory is latched, and there once the node is configured.
        known = client.statistics
        while client.memory is None or client.statistics is known:
            if outcome.cancelled():
                raise _GivenUpError
            if time.monotonic() > ends_s:
                raise BackendError(f"{self._node} tells of no memory; is it configured (`ros2 lifecycle get`)?")
            yield
        memory, statistics = client.memory, client.statistics
        assert statistics is not None
        return MemoryReport(
            memory_status(memory),
            memory.csm_capacity,
            memory.dam_capacity,
            memory.model,
            statistics.segments,
            statistics.ingest_error or statistics.wrong_stamp,
            stream_statistics(statistics),
        )


def _shown(message: ImageLike) -> Picture:
    try:
        jpeg = shown_jpeg(decoded(message))
    except ValueError as error:
        raise BackendError(f"the newest image cannot be shown: {error}") from error
    return Picture(stamp_nanoseconds(message.header.stamp), jpeg, message.header.frame_id)


def _step(outcome: Future[Result], work: Work[Result]) -> bool:
    """Goes on with some work, and returns whether it has ended; its outcome is then in the future."""
    try:
        next(work)
    except StopIteration as ended:
        with contextlib.suppress(InvalidStateError):
            outcome.set_result(ended.value)
    except _GivenUpError:
        outcome.cancel()
    except ReadableError as error:
        fail(outcome, error)
    except Exception as error:
        logger.exception("a request to the node failed")
        fail(outcome, BackendError(f"the request failed: {type(error).__name__}"))
    else:
        return False
    return True
