"""Video files, one frame in memory at a time, and whether a file is whole."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

import cv2

from fvs_ros.sources import HIGHEST_RATE, LOWEST_RATE, MAX_PIXELS
from fvs_ros.sources.bags import BAG_SUFFIXES, SourceError
from fvs_ros.sources.frame import SECOND_NS, Frame

# OpenCV gives up after 4096 packets of sound without a picture, which are 87 s of AAC. It reads this on first use.
os.environ.setdefault("OPENCV_FFMPEG_READ_ATTEMPTS", "1000000")

# For the rare container that tells neither a frame rate nor positions.
_FALLBACK_FPS = 30.0
# OpenCV reports a packet that cannot be decoded just as it reports the end. More comes after the one, nothing after
# the other.
_RETRIES = 50
# What an ISO base media file (MP4, MOV) holds at its top; anything else is not a part of it.
_BOXES = frozenset(b"ftyp styp moov mdat moof mfra sidx ssix prft emsg free skip wide pnot udta uuid meta".split())


class VideoSource:
    """The frames of a video file, stamped `start_ns` plus their position in it.

    Args:
        path: any file that OpenCV can open.
        fps: average frames per second to stamp with, None for the video's own; lower plays it as slow motion.
        start_ns: stamp of the beginning.

    Raises:
        SourceError: if the file cannot be opened, holds no frame, or `fps` is out of range.
    """

    notes: Sequence[str] = ()

    def __init__(self, path: Path, fps: float | None = None, start_ns: int = 0) -> None:
        check_fps(fps)
        self._path = path
        self.name = str(path)
        self.start_ns = start_ns
        capture = self._open()
        try:
            told = capture.get(cv2.CAP_PROP_FPS)
            own_fps = told if 0.0 < told < 1_000.0 else _FALLBACK_FPS
            self._fps = fps or own_fps
            # Stamp seconds per second of the video.
            self._stretch = own_fps / self._fps
            # Many containers give no count: then it follows from the duration, sound included.
            self.frame_count = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
            self.duration_ns = round(self.frame_count / self._fps * SECOND_NS)
            if _failures_before_frame(capture) is None:
                raise SourceError(f"{path} has no frame that can be decoded; re-encode it, for instance with ffmpeg")
        finally:
            capture.release()

    def _open(self) -> cv2.VideoCapture:
        # FFmpeg takes what stands before a colon for a protocol, unless a slash comes first.
        capture = cv2.VideoCapture(str(self._path.absolute()))
        if not capture.isOpened():
            capture.release()
            known = ", ".join(sorted(BAG_SUFFIXES))
            raise SourceError(
                f"{self._path} is neither a bag ({known}) nor a video that OpenCV can open: the file is truncated, or "
                "its format is unknown; copy it again, or re-encode it with ffmpeg"
            )
        check_picture_size(capture, str(self._path))
        return capture

    def frames(self, start_offset_s: float = 0.0, duration_s: float | None = None) -> Iterator[Frame]:
        """See `FrameSource.frames`. Each call reads through its own decoder, and goes on behind damage."""
        stop_s = float("inf") if duration_s is None else start_offset_s + duration_s
        capture = self._open()
        damaged_s: list[float] = []
        try:
            if start_offset_s > 0:
                capture.set(cv2.CAP_PROP_POS_MSEC, start_offset_s / self._stretch * 1e3)
            position_s = -1.0
            while (failures := _failures_before_frame(capture)) is not None:
                damaged_s += [max(0.0, position_s)] * failures
                told_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3 * self._stretch
                # Some containers have no positions, and broken ones step back: then the nominal rate counts on.
                position_s = told_s if told_s > position_s else position_s + 1.0 / self._fps
                if position_s >= stop_s:
                    break
                # Half a frame of tolerance: positions are rounded to the container's time base.
                if position_s < start_offset_s - 0.5 / self._fps:
                    continue
                decoded, image = capture.retrieve()
                if decoded:
                    stamp_ns = self.start_ns + round(position_s * SECOND_NS)
                    decode = partial(cv2.cvtColor, image, cv2.COLOR_BGR2RGB)
                    yield Frame(stamp_ns, decode, held_bytes=image.nbytes)
            else:
                self._check_whole(max(0.0, position_s))
        finally:
            capture.release()
        if damaged_s:
            raise SourceError(
                f"{self._path} is damaged: {len(damaged_s)} of its pictures cannot be decoded, the first after "
                f"{damaged_s[0]:.1f} s; all others were read; copy it again, or re-encode it with ffmpeg"
            )

    def _check_whole(self, end_s: float) -> None:
        """Compare the file's size with what its outermost elements claim.

        Its frame count is no measure: OpenCV estimates it where the container gives none.
        """
        held, claimed = self._path.stat().st_size, claimed_bytes(self._path)
        if held < claimed:
            raise SourceError(
                f"{self._path} ends at {end_s:.1f} s, after {held} of {claimed} bytes: the file is truncated; copy it "
                "again, or re-encode what is left with ffmpeg"
            )

    def close(self) -> None:
        """See `FrameSource.close`; nothing stays open between reads."""


def _failures_before_frame(capture: cv2.VideoCapture) -> int | None:
    """Decodes the next frame; how many tries failed before it, None at the end."""
    return next((failures for failures in range(_RETRIES + 1) if capture.grab()), None)


def claimed_bytes(path: Path) -> int:
    """Where a container's outermost elements end, as they say themselves: MP4, MOV, AVI, Matroska and WebM.

    Less than that in the file is a sure sign that its end is missing. 0 where nothing is said, as by a writer that
    could not go back, and for other formats.
    """
    with path.open("rb") as file:
        begin = file.read(4)
        if begin == b"\x1a\x45\xdf\xa3":
            return _matroska_end(file)
        element_size = _riff_size if begin == b"RIFF" else _box_size
        end = 0
        while True:
            file.seek(end)
            size = element_size(file.read(16))
            if not size:
                return end
            end += size


def _box_size(head: bytes) -> int:
    """ISO/IEC 14496-12, 4.2: size and type; a size of 1 for 64 bits behind them, of 0 for the rest of the file."""
    if len(head) < 8 or head[4:8] not in _BOXES:
        return 0
    (size,) = struct.unpack_from(">I", head)
    if size == 1 and len(head) == 16:
        (size,) = struct.unpack_from(">Q", head, 8)
    return size if size >= 8 else 0


def _riff_size(head: bytes) -> int:
    """Large AVI files are several RIFF chunks in a row (OpenDML)."""
    if len(head) < 8 or head[:4] != b"RIFF":
        return 0
    (size,) = struct.unpack_from("<I", head, 4)
    return 0 if size in (0, 0xFFFFFFFF) else 8 + size


def _matroska_end(file: BinaryIO) -> int:
    """RFC 8794: the EBML header, then one segment."""
    file.seek(4)
    header = _ebml_size(file)
    if header is None:
        return 0
    file.seek(header, os.SEEK_CUR)
    if file.read(4) != b"\x18\x53\x80\x67":
        return 0
    size = _ebml_size(file)
    return 0 if size is None else file.tell() + size


def _ebml_size(file: BinaryIO) -> int | None:
    """A number whose first set bit tells its length; None if all its bits are set: the size is not known."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    bits = 7 * length
    value = int.from_bytes(first + file.read(length - 1), "big") & ((1 << bits) - 1)
    return None if value == (1 << bits) - 1 else value


def check_picture_size(capture: cv2.VideoCapture, name: str) -> None:
    """Refuses a video whose pictures would take too much memory, and releases it.

    Raises:
        SourceError: if they have more than `MAX_PIXELS`.
    """
    width, height = (int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    if width * height > MAX_PIXELS:
        capture.release()
        raise SourceError(
            f"{name} has pictures of {width} x {height} pixels; at most {MAX_PIXELS} are taken, so scale it down"
        )


def check_fps(fps: float | None) -> None:
    """Refuses a rate with which times, or the number of frames, would have no bound.

    Raises:
        SourceError: if it is not.
    """
    if fps is not None and not LOWEST_RATE <= fps <= HIGHEST_RATE:
        raise SourceError(f"fps is {fps}; it must be from {LOWEST_RATE:g} to {HIGHEST_RATE:g}")
