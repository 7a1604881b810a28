"""Cameras and network streams through OpenCV, where there is no ROS driver for them."""

from __future__ import annotations

import re
import stat
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import cv2

from fvs_ros.sources.bags import SourceError
from fvs_ros.sources.frame import Frame
from fvs_ros.sources.videos import check_picture_size

SCHEMES = frozenset({"rtsp", "rtsps", "rtmp", "srt", "udp", "tcp", "http", "https"})
# OpenCV's own half a minute would look like a hang.
OPEN_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 5.0


def is_live(address: str) -> bool:
    """Whether an address names a camera (a number, or a video device) or a network stream, not a recording."""
    scheme, separator, _ = address.partition("://")
    return _device_number(address) is not None or bool(separator and scheme.lower() in SCHEMES)


def _device_number(address: str) -> int | None:
    path = Path(address)
    if found := re.fullmatch(r"/dev/video(\d+)", address):
        return int(found[1])
    if address.isdecimal() and not path.exists():
        return int(address)
    return None


def without_password(address: str) -> str:
    """An address without its user and password, safe to show."""
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else address


class LiveSource:
    """The frames of a camera or a network stream, stamped with the system's time as they arrive.

    Args:
        address: a camera's number, `/dev/videoN`, or an address such as `rtsp://host/path`.

    Attributes:
        name: what is read, for messages; without a password.

    Raises:
        SourceError: if it cannot be opened; the message says what to do.
    """

    def __init__(self, address: str) -> None:
        self.name = without_password(address)
        number = _device_number(address)
        if number is None:
            timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, round(OPEN_TIMEOUT_S * 1e3)]
            timeouts += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(READ_TIMEOUT_S * 1e3)]
            self._capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG, timeouts)
            advice = f"check that the address answers within {OPEN_TIMEOUT_S:g} s, for instance with ffplay"
        else:
            device = Path(f"/dev/video{number}")
            if not device.exists() or not stat.S_ISCHR(device.stat().st_mode):
                others = ", ".join(sorted(str(path) for path in Path("/dev").glob("video*"))) or "none"
                raise SourceError(f"there is no camera {device}; video devices here: {others}")
            self._capture = cv2.VideoCapture(number)
            # Of what waits in the driver, the newest picture is the one that counts.
            self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
            advice = "check that no other program uses it and that this user may read it"
        if not self._capture.isOpened():
            self._capture.release()
            raise SourceError(f"{self.name} cannot be opened; {advice}")
        check_picture_size(self._capture, self.name)
        if number is None and urlsplit(address).scheme in ("http", "https"):
            self._refuse_file()

    def _refuse_file(self) -> None:
        if self._capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0:
            self._capture.release()
            raise SourceError(f"{self.name} is a file, no live stream; download it and give its path")

    def frames(self) -> Iterator[Frame]:
        """Frames as they arrive, until `close`.

        Raises:
            SourceError: when no more come.
        """
        while self._capture.isOpened():
            decoded, image = self._capture.read()
            if not decoded:
                break
            decode = partial(cv2.cvtColor, image, cv2.COLOR_BGR2RGB)
            yield Frame(time.time_ns(), decode, received_ns=time.monotonic_ns(), held_bytes=image.nbytes)
        raise SourceError(f"{self.name} gives no more frames: it was unplugged, ended, or the network is down")

    def close(self) -> None:
        """Releases the camera; call it on the thread that reads, or after that has ended."""
        self._capture.release()
