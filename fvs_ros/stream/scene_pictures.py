"""Pictures of what was seen: of the moments that an answer rests on, and the one nearest to a stamp.

One picture is kept of each scene: a stored segment's keyframe, and of the scene in view a few that may become one. They
are found on the recorder's thread, on which pictures are stored and forgotten, too.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace

from fvs_ros.episodic.segment import Segment, StoredSegment
from fvs_ros.episodic.store import EpisodeStore
from fvs_ros.stream.pictures import LONGEST_SIDE, decode_jpeg, shown_jpeg
from fvs_ros.stream.recorder import Recorder
from fvs_ros.stream.segment_builder import OpenScene, SeenStep
from fvs_ros.stream.types import Answer, Moment, Picture

logger = logging.getLogger(__name__)


class ScenePictures:
    """Finds pictures. Any thread may call; nothing waits.

    Args:
        store: of the segments.
        recorder: has what is in no segment yet.
    """

    def __init__(self, store: EpisodeStore, recorder: Recorder) -> None:
        self._store = store
        self._recorder = recorder

    def add(self, answer: Answer) -> Future[Answer]:
        """An answer whose moments bring their pictures, as far as these are kept and can be read."""
        pictured: Future[Answer] = Future()
        moments = self.add_to(answer.moments, answer.end_ns if answer.memory_version else None)
        moments.add_done_callback(lambda found: pictured.set_result(replace(answer, moments=found.result())))
        return pictured

    def add_to(self, moments: Sequence[Moment], newest_ns: int | None) -> Future[tuple[Moment, ...]]:
        """Moments that bring their pictures, as far as these are kept and can be read. The future never fails.

        Args:
            moments: what is to be shown.
            newest_ns: stamp of the newest frame of the memory that they are of; None for one of stored segments.
        """
        pictured: Future[tuple[Moment, ...]] = Future()

        def find() -> tuple[Moment, ...]:
            # The newest frame may have no second one yet, and be in no step that is recorded.
            return tuple(
                replace(one, picture=self._of_scene(one.stamp_ns, is_newest=one.stamp_ns == newest_ns))
                for one in moments
            )

        def finish(found: Future[tuple[Moment, ...]]) -> None:
            error = found.exception()
            if error is not None:
                logger.warning("moments go out without pictures: %s", error)
            pictured.set_result(tuple(moments) if error is not None else found.result())

        self._recorder.call(find).add_done_callback(finish)
        return pictured

    def nearest(self, stamp_ns: int | None) -> Future[Picture | None]:
        """The picture of the scene in view at a stamp, or else of the nearest in time; None takes the newest one.

        Returns:
            None inside where no picture is kept; a `StoreError` where the store cannot be read.
        """
        return self._recorder.call(lambda: self._nearest(stamp_ns))

    def _of_scene(self, stamp_ns: int, is_newest: bool) -> Picture | None:
        """The picture of the scene that was in view at a stamp; None where none is kept of it."""
        opened = self._recorder.open_scene
        if opened is not None and (opened.start_ns <= stamp_ns <= opened.end_ns or is_newest):
            return _opened_picture(opened, stamp_ns)
        stored = self._store.nearest(stamp_ns)
        return self._stored_picture(stored) if stored is not None and not _gap_ns(stored.segment, stamp_ns) else None

    def _nearest(self, stamp_ns: int | None) -> Picture | None:
        opened, stored = self._recorder.open_scene, self._store.nearest(stamp_ns)
        if opened is not None and (
            stamp_ns is None or stored is None or _gap_ns(opened, stamp_ns) <= _gap_ns(stored.segment, stamp_ns)
        ):
            return _opened_picture(opened, opened.end_ns if stamp_ns is None else stamp_ns)
        return None if stored is None else self._stored_picture(stored)

    def _stored_picture(self, stored: StoredSegment) -> Picture | None:
        segment, jpeg = stored.segment, self._store.keyframe(stored.id)
        if jpeg is not None and max(segment.width, segment.height) > LONGEST_SIDE:
            image = decode_jpeg(jpeg)
            jpeg = None if image is None else shown_jpeg(image)
        return None if jpeg is None else Picture(segment.keyframe_ns, jpeg, segment.frame_id, segment.pose)


def _opened_picture(opened: OpenScene, stamp_ns: int) -> Picture:
    """The picture of the open scene whose step is the nearest to a stamp; the newer one of two."""
    nearest = min(reversed(opened.pictures), key=lambda one: _gap_ns(one.step, stamp_ns))
    return Picture(
        nearest.step.end_ns, shown_jpeg(nearest.image), nearest.step.origin.frame_id, nearest.step.origin.pose
    )


def _gap_ns(span: Segment | SeenStep | OpenScene, stamp_ns: int) -> int:
    """From a stamp to what was seen in a span of time; 0 within it."""
    return max(span.start_ns - stamp_ns, stamp_ns - span.end_ns, 0)
