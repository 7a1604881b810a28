"""Camera messages to RGB arrays, from anything with the fields of `sensor_msgs/Image` or `CompressedImage`."""

from __future__ import annotations

import functools
import importlib.util
import logging
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

import cv2
import numpy as np
from rosbags.image import image_to_cvimage

from fvs_ros.sources import MAX_BYTES, MAX_PIXELS
from fvs_ros.sources.depth import CompressedDepth, decode_png16, draw_depth, is_compressed_depth, is_depth_png
from fvs_ros.sources.frame import ImageError

logger = logging.getLogger(__name__)

# Each slot of the memory keeps one, and each answer sends them.
MAX_FRAME_ID = 255

# `CompressedImage.format` of `encode_jpeg`, as image_transport's compressed publisher writes it.
JPEG_FORMAT = "rgb8; jpeg compressed bgr8"


class ImageMessage(Protocol):
    """The fields of `sensor_msgs/Image` that decoding reads; `data` is any buffer of bytes."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


class CompressedImageMessage(Protocol):
    """The fields of `sensor_msgs/CompressedImage` that decoding reads; `data` is any buffer of bytes."""

    format: str
    data: Any


@dataclass(frozen=True)
class Layout:
    """How the pixels of an encoding lie in memory.

    Attributes:
        dtype: of one value.
        channels: values per pixel of the first plane.
        name: what the converters call the encoding; empty for depth, which they do not turn into colours.
        even: pixels share chroma values in pairs, so that the width must be even.
        planar: a half-height chroma plane follows, so that the height must be even too.
    """

    dtype: str
    channels: int
    name: str
    even: bool = False
    planar: bool = False


# The names of sensor_msgs/image_encodings.hpp. OpenCV's generic 8UC3 and 8UC4 hold BGR(A), as OpenCV itself does.
ENCODINGS = {
    **{name: Layout("uint8", 3, name) for name in ("rgb8", "bgr8")},
    **{name: Layout("uint8", 4, name) for name in ("rgba8", "bgra8")},
    **{name: Layout("uint16", 3, name) for name in ("rgb16", "bgr16")},
    **{name: Layout("uint16", 4, name) for name in ("rgba16", "bgra16")},
    "mono8": Layout("uint8", 1, "mono8"),
    "mono16": Layout("uint16", 1, "mono16"),
    "8UC1": Layout("uint8", 1, "mono8"),
    "8UC3": Layout("uint8", 3, "bgr8"),
    "8UC4": Layout("uint8", 4, "bgra8"),
    "16UC1": Layout("uint16", 1, ""),
    "32FC1": Layout("float32", 1, ""),
    **{
        f"bayer_{order}{bits}": Layout(f"uint{bits}", 1, f"bayer_{order}{bits}")
        for order in ("rggb", "bggr", "gbrg", "grbg")
        for bits in (8, 16)
    },
    **{name: Layout("uint8", 2, "yuv422", even=True) for name in ("yuv422", "uyvy")},
    **{name: Layout("uint8", 2, "yuv422_yuy2", even=True) for name in ("yuv422_yuy2", "yuyv")},
    **{name: Layout("uint8", 1, name, even=True, planar=True) for name in ("nv12", "nv21")},
}


def check_message(data_bytes: int, frame_id: str) -> None:
    """Refuses an image message that nothing should keep, before it is kept.

    Args:
        data_bytes: length of the message's data.
        frame_id: of its header.

    Raises:
        ImageError: ``too_large`` or ``frame_id``.
    """
    if data_bytes > MAX_BYTES:
        raise ImageError(
            "too_large", f"the image is {data_bytes} bytes long; at most {MAX_BYTES} are taken, so scale it down"
        )
    if len(frame_id) > MAX_FRAME_ID:
        raise ImageError(
            "frame_id", f"the header's frame_id has {len(frame_id)} characters; at most {MAX_FRAME_ID} are taken"
        )


def decode_image(message: ImageMessage) -> np.ndarray:
    """Decodes a `sensor_msgs/Image`.

    Depth (16UC1 and 32FC1) is drawn in grey from its nearest value, black, to its farthest, white. 16-bit
    intensities keep their upper 8 bits' worth.

    Returns:
        RGB, uint8 [height, width, 3]. It may share memory with the message.

    Raises:
        ImageError: the fields do not fit each other, or the encoding is unknown; the reason is one of
            ``empty``, ``too_large``, ``unknown_encoding``, ``odd_size``, ``step``, ``data_length``, ``not_finite``
            and ``undecodable``.
    """
    layout = ENCODINGS.get(message.encoding)
    if layout is None:
        raise ImageError(
            "unknown_encoding", f"the encoding is {message.encoding!r}; convert the topic to one of {sorted(ENCODINGS)}"
        )
    _check_size(message.height, message.width)
    values = _values(message, layout)
    if not layout.name:
        return draw_depth(values)
    # cv_bridge knows no planar YUV.
    convert = _rosbags_to_rgb if layout.planar else image_converter()
    try:
        return convert(PlainImage.of(values, layout.name))
    except Exception as error:
        # OpenCV, cv_bridge and rosbags-image have no exception in common.
        raise ImageError(
            "undecodable", f"{message.encoding} of {message.width} x {message.height} cannot be converted: {error}"
        ) from error


def decode_compressed_image(message: CompressedImageMessage) -> np.ndarray:
    """Decodes a `sensor_msgs/CompressedImage` that holds a JPEG or a PNG, whatever its format field says.

    Depth, a PNG of one channel of 16 bits that is not called mono16, or `compressedDepth` as PNG or RVL, is drawn as in
    `decode_image`.

    Returns:
        RGB, uint8 [height, width, 3].

    Raises:
        ImageError: the reason is one of ``empty``, ``too_large``, ``unknown_format``, ``truncated``, ``not_finite`` and
            ``undecodable``.
    """
    data = bytes(message.data)
    if not data:
        raise ImageError("empty", "the compressed image has no data; see whether the camera delivers images")
    if is_compressed_depth(message.format):
        depth = CompressedDepth(data, message.format)
        _check_size(*(depth.size if depth.rvl else _compressed_size(depth.data, message.format)))
        return draw_depth(depth.values())
    _check_size(*_compressed_size(data, message.format))
    if is_depth_png(data, message.format):
        return draw_depth(decode_png16(data, message.format))
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise ImageError("undecodable", f"the {message.format!r} image cannot be decoded: {error}") from error
    if image is None:
        raise ImageError(
            "undecodable",
            f"the {len(data)} bytes of {message.format!r} image are corrupt; see how they are transported",
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _check_size(height: int, width: int) -> None:
    """Refuses what is empty, and what would take too much memory, before it is decoded."""
    if height < 1 or width < 1:
        raise ImageError("empty", f"the image is {width} x {height} pixels; see whether the camera delivers images")
    if height * width > MAX_PIXELS:
        raise ImageError(
            "too_large", f"the image is {width} x {height} pixels; at most {MAX_PIXELS} are taken, so scale it down"
        )


def _values(message: ImageMessage, layout: Layout) -> np.ndarray:
    """The pixel values, [rows, width] or [rows, width, channels], in this machine's byte order, rows unpadded."""
    height, width, step = message.height, message.width, message.step
    if (layout.even and width % 2) or (layout.planar and height % 2):
        raise ImageError(
            "odd_size", f"{message.encoding} of {width} x {height} pixels halves its chroma; crop it to even sizes"
        )
    dtype = np.dtype(layout.dtype)
    row_bytes = width * layout.channels * dtype.itemsize
    if step < row_bytes or step % dtype.itemsize:
        raise ImageError(
            "step",
            f"step is {step} bytes, but a row of {width} {message.encoding} pixels takes {row_bytes}, in whole values; "
            "correct the driver's step or encoding",
        )
    rows = height * 3 // 2 if layout.planar else height
    data = np.frombuffer(message.data, np.uint8)
    if data.size != rows * step:
        raise ImageError(
            "data_length",
            f"there are {data.size} bytes, but {rows} rows of step {step} take {rows * step}; "
            "correct the driver's height, step or data",
        )
    values = np.ascontiguousarray(data.reshape(rows, step)[:, :row_bytes]).view(dtype)
    if dtype.itemsize > 1 and bool(message.is_bigendian) != (sys.byteorder == "big"):
        values = values.byteswap()
    return values.reshape(rows, width, layout.channels) if layout.channels > 1 else values


def _compressed_size(data: bytes, described: str) -> tuple[int, int]:
    """Height and width that the file's header claims, without decoding it; checks that its end is there."""
    try:
        if data.startswith(b"\xff\xd8"):
            return _jpeg_size(data)
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return _png_size(data)
    except (struct.error, IndexError):
        raise _truncated(data) from None
    raise ImageError(
        "unknown_format",
        f"the {described!r} image begins with {data[:4].hex()}; JPEG, PNG and compressedDepth are decoded, so set the "
        "camera's image_transport to one of them, or use image_transport:=raw",
    )


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Reads the segments of ITU-T T.81, annex B, up to the first scan."""
    size = (0, 0)
    position = 2
    while True:
        if data[position] != 0xFF:
            raise ImageError("undecodable", f"the JPEG's segments are corrupt at byte {position} of {len(data)}")
        marker = data[position + 1]
        if marker == 0xFF:  # A fill byte.
            position += 1
            continue
        if marker == 0xDA:  # Start of scan.
            break
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # Start of frame.
            size = struct.unpack_from(">HH", data, position + 5)
        (length,) = struct.unpack_from(">H", data, position + 2)
        position += 2 + length
    # The end marker cannot occur within a scan, whose 0xFF bytes are all stuffed. libjpeg itself paints what is
    # missing grey and goes on.
    if data.find(b"\xff\xd9", position) < 0:
        raise _truncated(data)
    return size


def _png_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    if b"IEND" not in data[24:]:
        raise _truncated(data)
    return height, width


def _truncated(data: bytes) -> ImageError:
    return ImageError("truncated", f"the compressed image ends early, at byte {len(data)}; see how it is transported")


def encode_jpeg(rgb: np.ndarray, quality: int) -> bytes:
    """An image, RGB uint8 [height, width, 3], as a JPEG file of `quality` 1 to 100."""
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return encoded.tobytes()


@dataclass(frozen=True)
class PlainImage:
    """An image message without padding, in this machine's byte order: what every converter gets right."""

    height: int
    width: int
    encoding: str
    step: int
    data: np.ndarray
    is_bigendian: int = int(sys.byteorder == "big")

    @classmethod
    def of(cls, values: np.ndarray, encoding: str) -> PlainImage:
        """Wraps values of [rows, width] or [rows, width, channels]."""
        return cls(values.shape[0], values.shape[1], encoding, values.strides[0], values.reshape(-1).view(np.uint8))


Converter = Callable[[PlainImage], np.ndarray]


@functools.cache
def image_converter() -> Converter:
    """cv_bridge where the ROS distribution has one that works, rosbags-image otherwise; found out once."""
    if importlib.util.find_spec("cv_bridge") is None:
        return _rosbags_to_rgb
    # In a process of its own: a cv_bridge that was compiled for another NumPy may take the process down with it.
    probe = subprocess.run([sys.executable, "-c", _CV_BRIDGE_PROBE], capture_output=True, text=True, timeout=60)
    if probe.returncode != 0:
        reason = (probe.stderr.strip().splitlines() or [f"exit status {probe.returncode}"])[-1]
        logger.warning("cv_bridge does not work here (%s); images are converted by rosbags-image", reason)
        return _rosbags_to_rgb
    return _cv_bridge_to_rgb


_CV_BRIDGE_PROBE = """
from types import SimpleNamespace
import numpy as np
from cv_bridge import CvBridge
pixels = np.arange(12, dtype=np.uint8)
image = SimpleNamespace(height=2, width=2, encoding="bgr8", step=6, is_bigendian=0, data=pixels)
rgb = CvBridge().imgmsg_to_cv2(image, "rgb8")
assert np.array_equal(rgb, pixels.reshape(2, 2, 3)[..., ::-1]), rgb
"""


def _rosbags_to_rgb(image: PlainImage) -> np.ndarray:
    return image_to_cvimage(cast(Any, image), "rgb8")


def _cv_bridge_to_rgb(image: PlainImage) -> np.ndarray:
    from cv_bridge import CvBridge

    return CvBridge().imgmsg_to_cv2(image, "rgb8")
