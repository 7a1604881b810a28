"""A replay as a Rerun recording: what was seen, where, how the memory grew, and what was asked and answered from it.

Needs `rerun-sdk` (extra `rerun`), which is imported only when a recording is begun. All times are the stream's own, on
one timeline, `stamp`, and Rerun's viewer shows what holds at its cursor.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fvs_ros.evaluation.answers import AnswerRow
from fvs_ros.evaluation.questions import TimedQuestion
from fvs_ros.sources.frame import SECOND_NS, Frame, Pose
from fvs_ros.stream.pictures import shown_jpeg
from fvs_ros.stream.types import MemoryStatus, Moment
from fvs_ros.stream.words import age_text

if TYPE_CHECKING:
    from rerun import AsComponents
    from rerun.blueprint import Blueprint

TIMELINE = "stamp"
CAMERA, ROBOT, PATH = "camera", "world/robot", "world/path"
MOMENTS, MEMORY, QUESTIONS, RESTS_ON = "world/moments", "memory", "questions", "rests_on"
# Of the memory.
COUNTS = ("steps", "csm_slots", "dam_slots")
# Metres, of the arrows that are the axes of a pose.
_AXIS_M = 0.3
# From the most relevant moment to the least: orange and grey, apart for colour-blind eyes too (Okabe and Ito 2008).
_FIRST, _OTHERS = (213, 94, 0), (150, 150, 150)


def require_rerun() -> None:
    """Refuses to begin what would end without its recording.

    Raises:
        ValueError: the Rerun SDK is not installed.
    """
    if importlib.util.find_spec("rerun") is None:
        raise ValueError("--rerun needs the Rerun SDK: pip install rerun-sdk, or fvs_ros with its extra 'rerun'")


class RerunLog:
    """Writes a recording while a replay runs; its methods are called from the replay's and the engine's threads.

    Frames are logged as the engine decodes them, so those that it keeps: as JPEG, at the size of pictures given out.

    Args:
        path: the `.rrd` file, which is overwritten.
        name: of what is replayed.

    Raises:
        ValueError: the file cannot be written.
    """

    def __init__(self, path: Path, name: str) -> None:
        import rerun as rr

        self._rr = rr
        self._recording = rr.RecordingStream("fvs_ros")
        try:
            path.touch()
            self._recording.save(path, default_blueprint=_blueprint())
        except (OSError, RuntimeError) as error:
            raise ValueError(f"--rerun cannot write {path}: {error}") from error
        self._recording.send_recording_name(name)
        self._recording.log("world", rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
        axes = np.eye(3) * _AXIS_M
        self._recording.log(f"{ROBOT}/axes", rr.Arrows3D(vectors=axes, colors=np.eye(3)), static=True)

    def close(self) -> None:
        """Writes what is left, and the end of the file."""
        self._recording.flush()
        self._recording.disconnect()

    def frames(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """The same frames, which log their picture and pose when the engine asks for these."""
        for frame in frames:
            yield replace(
                frame,
                image=lambda frame=frame: self._decoded(frame),  # type: ignore[misc]
                pose=lambda frame=frame: self._located(frame),  # type: ignore[misc]
            )

    def _decoded(self, frame: Frame) -> np.ndarray:
        image = frame.image()
        # What cannot be a JPEG can still be seen by the model.
        with suppress(ValueError):
            jpeg = shown_jpeg(image)
            self._log(frame.stamp_ns, CAMERA, self._rr.EncodedImage(contents=jpeg, media_type="image/jpeg"))
        return image

    def _located(self, frame: Frame) -> Pose | None:
        pose = frame.pose()
        if pose is not None:
            rr = self._rr
            rotation = rr.Quaternion(xyzw=pose.orientation)
            self._log(frame.stamp_ns, ROBOT, rr.Transform3D(translation=pose.position, quaternion=rotation))
            self._log(frame.stamp_ns, PATH, rr.Points3D([pose.position], radii=0.03))
        return pose

    def memory(self, status: MemoryStatus) -> None:
        """A new memory, at the stamp of its newest frame."""
        for name in (*COUNTS, "bytes"):
            self._log(status.end_ns, f"{MEMORY}/{name}", self._rr.Scalars(getattr(status, name)))

    def answer(self, question: TimedQuestion, condition: str, row: AnswerRow, moments: Iterable[Moment]) -> None:
        """A question under a condition, with its answer and what that rests on.

        Args:
            question: with its stamp on the recording's clock.
            condition: name of what the model was shown.
            row: the answer.
            moments: what it rests on, the most relevant first; with poses where they are known.
        """
        rr, shown = self._rr, list(moments)
        said = row.error if row.response is None else row.response
        text = f"{question.question} - {said}"
        level = rr.TextLogLevel.WARN if row.response is None else rr.TextLogLevel.INFO
        self._log(question.time_ns, f"{QUESTIONS}/{condition}", rr.TextLog(text, level=level))
        placed = [(rank, moment) for rank, moment in enumerate(shown, 1) if moment.pose is not None]
        self._log(
            question.time_ns,
            f"{MOMENTS}/{condition}",
            rr.Points3D(
                [moment.pose.position for _, moment in placed if moment.pose is not None],
                labels=[f"{rank}: {_of(moment)}{_age(question, moment)}" for rank, moment in placed],
                colors=[_FIRST if rank == 1 else _OTHERS for rank, _ in placed],
                radii=0.1,
            ),
        )
        # At its own time, so that a click shows what the camera saw then.
        for rank, moment in enumerate(shown, 1):
            about = f"{rank}: {_of(moment)}{_age(question, moment)} {text}"
            self._log(moment.stamp_ns, f"{RESTS_ON}/{condition}", rr.TextLog(about))

    def _log(self, stamp_ns: int, entity: str, what: AsComponents) -> None:
        # Of the calling thread alone.
        self._recording.set_time(TIMELINE, timestamp=np.datetime64(stamp_ns, "ns"))
        self._recording.log(entity, what)


def _of(moment: Moment) -> str:
    return "" if moment.relevance is None else f"{moment.relevance:.0%}, "


def _age(question: TimedQuestion, moment: Moment) -> str:
    return age_text((question.time_ns - moment.stamp_ns) / SECOND_NS)


def _blueprint() -> Blueprint:
    """The camera beside the places, and below them the memory, the questions and what their answers rest on."""
    import rerun.blueprint as rrb

    return rrb.Blueprint(
        rrb.Vertical(
            rrb.Horizontal(
                rrb.Spatial2DView(origin=CAMERA, name="Camera"),
                rrb.Spatial3DView(origin="world", name="Places"),
            ),
            rrb.Horizontal(
                rrb.TextLogView(origin=QUESTIONS, name="Questions"),
                rrb.TextLogView(origin=RESTS_ON, name="What answers rest on"),
                rrb.TimeSeriesView(origin=MEMORY, contents=[f"{MEMORY}/{name}" for name in COUNTS], name="Memory"),
            ),
            row_shares=[3, 2],
        )
    )
