"""Where recorded frames come from: a bag, a video file, a folder of images. Read one at a time, no ROS needed."""

from __future__ import annotations

import heapq
import math
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_typestore

from fvs_ros.sources import MAX_BYTES, MAX_PIXELS
from fvs_ros.sources.bags import BAG_SUFFIXES, Bag, BagMessage, BagTopic, SourceError, is_bag
from fvs_ros.sources.frame import SECOND_NS, Frame, ImageError, refused
from fvs_ros.sources.images import check_message, decode_compressed_image, decode_image
from fvs_ros.sources.stamp_guard import RUN_FRAMES, StampGuard, Verdict, describe_wrong_stamps
from fvs_ros.sources.videos import VideoSource, check_fps

IMAGE_TYPE = "sensor_msgs/msg/Image"
COMPRESSED_TYPE = "sensor_msgs/msg/CompressedImage"
_DECODERS: dict[str, Callable[[Any], np.ndarray]] = {
    IMAGE_TYPE: decode_image,
    COMPRESSED_TYPE: decode_compressed_image,
}
# The most common first: annotations without a suffix try them in turn.
VIDEO_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".flv", ".mpg", ".mpeg", ".wmv", ".ts", ".gif")
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"})

# A recorder writes messages as they arrive; across one camera they swap by a few at most.
_REORDER_FRAMES = 8
# Further back than this is no swap but a recording that was looped or whose clock was set; as in
# `StreamConfig.late_tolerance_s`.
_JUMP_NS = SECOND_NS


class FrameSource(Protocol):
    """A recording of one camera.

    Attributes:
        name: what is read, for messages.
        start_ns: stamp of the beginning, nanoseconds.
        duration_ns: length of the recording, for progress; 0 where unknown.
        frame_count: frames in all, for progress; 0 where unknown.
    """

    name: str
    start_ns: int
    duration_ns: int
    frame_count: int

    @property
    def notes(self) -> Sequence[str]:
        """What was left out of the frames read last, one line each; complete once all are read."""

    def frames(self, start_offset_s: float = 0.0, duration_s: float | None = None) -> Iterator[Frame]:
        """Read from `start_offset_s` after the beginning, for `duration_s` (None: to the end).

        Frames come in stamp order, their images not decoded yet. May be called again to read again.

        Raises:
            SourceError: where the recording turns out to be damaged, after all frames before that place.
        """

    def close(self) -> None:
        """Close the files; harmless to repeat."""


def open_source(path: str | Path, topic: str = "", fps: float | None = None, start_ns: int = 0) -> FrameSource:
    """Open a recording by what it is: a bag, a folder of images, or else a video file.

    Args:
        path: the recording.
        topic: the bag's image topic; may be left out where there is only one.
        fps: frames per second where the recording has no stamps of its own; the default is a video's own rate, and
            1 for images.
        start_ns: stamp of the first frame where the recording has no stamps of its own (video, images).

    Raises:
        SourceError: if it cannot be read; the message says what to do.
    """
    path = recording_path(path)
    if not path.exists():
        raise SourceError(f"{path} does not exist; give a bag, a video file or a folder of images")
    if is_bag(path):
        return BagSource(Bag(path), topic)
    if topic:
        raise SourceError(f"{path} is no bag, so it has no topic {topic}; leave the topic out")
    if path.is_dir():
        return ImageFolderSource(path, 1.0 if fps is None else fps, start_ns)
    return VideoSource(path, fps, start_ns)


def recording_path(text: str | Path) -> Path:
    """The path that a user gives: ``~`` is his home, unless something of that name is here."""
    path = Path(text)
    try:
        return path if path.exists() else path.expanduser()
    except RuntimeError:  # ``~name``, of which nobody is known.
        return path


def image_topics(bag: Bag) -> list[BagTopic]:
    """The bag's image topics that can be read, raw and compressed, by name."""
    return [topic for topic in bag.topics.values() if topic.type in _DECODERS and not topic.problem]


def _described(topic: BagTopic) -> str:
    if topic.type in _DECODERS or "image" in topic.type.lower():
        return f"{topic.name} ({topic.type}: {topic.problem or 'not an image of ROS'})"
    return topic.name


def select_image_topic(bag: Bag, name: str = "") -> BagTopic:
    """The image topic of that name, or the only one.

    Raises:
        SourceError: if there is no such topic, none at all, or several to choose from. All are named.
    """
    candidates = image_topics(bag)
    listing = ", ".join(f"{topic.name} ({topic.type.rpartition('/')[2]}, {topic.count})" for topic in candidates)
    for topic in bag.topics.values():
        if topic.name.strip("/") == name.strip("/") and topic.problem:
            raise SourceError(
                f"{bag.path}: {topic.name} cannot be read: {topic.problem}; choose or record another topic"
            )
    if not candidates:
        others = ", ".join(_described(topic) for topic in bag.topics.values()) or "nothing at all"
        raise SourceError(
            f"{bag.path} has no image topic; it holds {others}; record a camera topic, as {IMAGE_TYPE} or "
            f"{COMPRESSED_TYPE}"
        )
    if name:
        for topic in candidates:
            if topic.name.strip("/") == name.strip("/"):
                return topic
        raise SourceError(f"{bag.path} has no image topic {name}; choose one of: {listing}")
    if len(candidates) > 1:
        raise SourceError(f"{bag.path} has {len(candidates)} image topics; choose one of: {listing}")
    return candidates[0]


class BagSource:
    """The frames of one image topic of a bag.

    A frame's stamp is its header's, or the time of its recording where the header was never stamped. The offset
    and duration of `frames` count in recording time from the bag's beginning.

    Raises:
        SourceError: if there is no such topic, or the files hold fewer of its messages than metadata.yaml announces.
    """

    def __init__(self, bag: Bag, topic: str = "") -> None:
        self._bag = bag
        try:
            self.topic = select_image_topic(bag, topic)
            # Before hours of work, and for those who stop before the end.
            if shortage := bag.shortage(self.topic.name):
                raise SourceError(shortage)
        except SourceError:
            bag.close()
            raise
        self.name = f"{bag.path} {self.topic.name}"
        self.start_ns = bag.start_ns
        self.duration_ns = bag.duration_ns
        self.frame_count = self.topic.count
        self._notes: list[str] = []

    def frames(self, start_offset_s: float = 0.0, duration_s: float | None = None) -> Iterator[Frame]:
        """See `FrameSource.frames`."""
        offset_ns = round(start_offset_s * SECOND_NS)
        start = self.start_ns + offset_ns if offset_ns else None
        stop = None if duration_s is None else self.start_ns + offset_ns + round(duration_s * SECOND_NS)
        failures: list[SourceError] = []
        messages = _until_failure(self._bag.messages([self.topic.name], start, stop), failures)
        yield from _in_stamp_order(self._with_right_stamps(map(bag_frame, messages)))
        for failure in failures:
            raise failure

    def _with_right_stamps(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Leaves out the frames whose stamps are wrong, and says so in `notes`."""
        # What a recorder swapped is put in order later, so nothing is late here.
        guard = StampGuard(_JUMP_NS)
        self._notes = []
        # Held until there are as many as are believed: a driver may start before its clock was set.
        first: list[Frame] | None = []
        for frame in frames:
            verdict = guard.offer(frame)
            if verdict.moved and first:
                verdict = Verdict(verdict.accepted, tuple(first))
                first = None
            right = self._judged(verdict)
            if verdict.late:
                right.append(replace(frame, received_ns=None))
            if first is None:
                yield from right
            elif len(first) + len(right) < RUN_FRAMES:
                first += right
            else:
                yield from first + right
                first = None
        yield from (first or []) + self._judged(guard.finish())

    def _judged(self, verdict: Verdict) -> list[Frame]:
        """Notes what a verdict leaves out, and gives what it accepts."""
        if verdict.rejected:
            self._notes.append(describe_wrong_stamps(verdict))
        if verdict.moved:
            back = verdict.moved.after_ns < verdict.moved.before_ns
            self._notes.append(f"{verdict.moved}: {'a new memory begins' if back else 'the memory goes on'} there")
        # Judged here, where all are seen: the engine need not doubt them again.
        return [replace(one, received_ns=None) for one in verdict.accepted]

    @property
    def notes(self) -> Sequence[str]:
        """See `FrameSource.notes`."""
        return tuple(self._notes)

    def close(self) -> None:
        """See `FrameSource.close`."""
        self._bag.close()


def bag_frame(message: BagMessage) -> Frame:
    """The frame in a recorded image message; its image is deserialised and decoded when it is asked for."""
    stamp_ns, frame_id = _header(message.data) or (0, "")
    stamp_ns = stamp_ns or message.received_ns
    try:
        check_message(len(message.data), frame_id)
    except ImageError as error:
        return refused(stamp_ns, error, message.received_ns)
    decode = partial(_decode_message, message.topic.type, message.data)
    return Frame(stamp_ns, decode, frame_id, received_ns=message.received_ns, held_bytes=len(message.data))


def _header(data: bytes) -> tuple[int, str] | None:
    """Stamp (ns) and frame_id of a CDR message that begins with a `std_msgs/Header`; None if it is too short."""
    # Bytes 0 to 3 are the encapsulation, whose second byte is odd for little endian (DDS-XTypes 7.4.3).
    order = "<" if data[1:2] and data[1] & 1 else ">"
    try:
        seconds, nanoseconds, length = struct.unpack_from(f"{order}iII", data, 4)
    except struct.error:
        return None
    text = data[16 : 16 + length].rstrip(b"\0").decode("utf-8", errors="replace")
    return seconds * SECOND_NS + nanoseconds, text


def _decode_message(message_type: str, data: bytes) -> np.ndarray:
    try:
        message = _IMAGE_TYPES.deserialize_cdr(data, message_type)
    except (SerdeError, ValueError, struct.error) as error:
        raise ImageError("malformed_message", f"a recorded {message_type} cannot be deserialised: {error}") from error
    return _DECODERS[message_type](message)


# Both image types have had the same fields in every ROS 2 release, so bags without definitions need no choice.
_IMAGE_TYPES = get_typestore(Stores.ROS2_HUMBLE)


def _until_failure(messages: Iterator[BagMessage], failures: list[SourceError]) -> Iterator[BagMessage]:
    """The messages before a failure, which is put aside until all of them have been handed out."""
    try:
        yield from messages
    except SourceError as error:
        failures.append(error)


def _in_stamp_order(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Sort by stamp within a short look-ahead; a jump far back starts a new run, behind all that came before."""
    waiting: list[tuple[int, int, Frame]] = []
    newest = -math.inf
    for order, frame in enumerate(frames):
        if frame.stamp_ns < newest - _JUMP_NS:
            while waiting:
                yield heapq.heappop(waiting)[2]
            newest = -math.inf
        newest = max(newest, frame.stamp_ns)
        heapq.heappush(waiting, (frame.stamp_ns, order, frame))
        if len(waiting) > _REORDER_FRAMES:
            yield heapq.heappop(waiting)[2]
    while waiting:
        yield heapq.heappop(waiting)[2]


class ImageFolderSource:
    """The images of a folder in the order of their names (numbers count as numbers), `fps` a second.

    Raises:
        SourceError: if there is no image, or `fps` is out of range.
    """

    notes: Sequence[str] = ()

    def __init__(self, path: Path, fps: float = 1.0, start_ns: int = 0) -> None:
        check_fps(fps)
        self._files = sorted(
            (entry for entry in path.iterdir() if entry.suffix.lower() in IMAGE_SUFFIXES), key=_natural_key
        )
        if not self._files:
            raise SourceError(
                f"{path} holds no bag ({', '.join(sorted(BAG_SUFFIXES))}) and no image "
                f"({', '.join(sorted(IMAGE_SUFFIXES))}); give another folder or a file"
            )
        self._fps = fps
        self.name = str(path)
        self.start_ns = start_ns
        self.frame_count = len(self._files)
        self.duration_ns = round(self.frame_count / fps * SECOND_NS)

    def frames(self, start_offset_s: float = 0.0, duration_s: float | None = None) -> Iterator[Frame]:
        """See `FrameSource.frames`."""
        stop_s = float("inf") if duration_s is None else start_offset_s + duration_s
        for index, file in enumerate(self._files):
            position_s = index / self._fps
            if start_offset_s <= position_s < stop_s:
                yield Frame(self.start_ns + round(position_s * SECOND_NS), partial(read_image, file))

    def close(self) -> None:
        """See `FrameSource.close`; nothing stays open between reads."""


def _natural_key(path: Path) -> list[tuple[int, str]]:
    """Sorts ``2.jpg`` before ``10.jpg``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def read_image(path: Path) -> np.ndarray:
    """An image file as RGB, uint8 [height, width, 3].

    Raises:
        ImageError: if it is too large, or cannot be decoded.
    """
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise ImageError(
                "too_large", f"{path} is {size} bytes long; at most {MAX_BYTES} are taken, so scale it down"
            )
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    except OSError:
        image = None
    except cv2.error as error:
        # Raised for what a header claims; anything else that is wrong gives None.
        raise ImageError("too_large", f"{path} has more than {MAX_PIXELS} pixels; scale it down") from error
    if image is None:
        raise ImageError("undecodable", f"{path} is no image that can be decoded; remove it or write it again")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
