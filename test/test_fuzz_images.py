"""Camera messages with any field wrong: an RGB image, or an `ImageError` with a documented reason."""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from fuzzing import TEXTS, bounded_memory, check_message, damaged, edits, fuzz
from hypothesis import given
from hypothesis import strategies as st

from fvs_ros.sources.frame import ImageError
from fvs_ros.sources.images import ENCODINGS, MAX_PIXELS, decode_compressed_image, decode_image


@dataclass
class Image:
    height: int
    width: int
    encoding: str
    step: int
    data: bytes
    is_bigendian: int = 0


@dataclass
class CompressedImage:
    format: str
    data: bytes


UINT32 = st.one_of(st.integers(0, 20), st.sampled_from([2**13, 2**26, 2**26 + 1, 2**31, 2**32 - 1]))


@st.composite
def raw_images(draw: st.DrawFn) -> Image:
    """An image whose fields fit each other, but for up to two of them."""
    encoding = draw(st.sampled_from(sorted(ENCODINGS)))
    layout = ENCODINGS[encoding]
    height, width = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    step = width * layout.channels * np.dtype(layout.dtype).itemsize + draw(st.sampled_from([0, 0, 4]))
    rows = height * 3 // 2 if layout.planar else height
    image = Image(height, width, encoding, step, draw(st.binary(min_size=rows * step, max_size=rows * step)))
    wrong = {
        "height": UINT32,
        "width": UINT32,
        "step": UINT32,
        "encoding": st.one_of(st.sampled_from(sorted(ENCODINGS)), TEXTS),
        "data": st.binary(max_size=64),
        "is_bigendian": st.integers(0, 255),
    }
    for name in draw(st.lists(st.sampled_from(sorted(wrong)), max_size=2)):
        setattr(image, name, draw(wrong[name]))
    return image


def _encoded(extension: str, pixels: np.ndarray) -> bytes:
    return cv2.imencode(extension, pixels)[1].tobytes()


COLOURS = np.arange(7 * 9 * 3, dtype=np.uint8).reshape(7, 9, 3)
DEPTH = np.arange(7 * 9, dtype=np.uint16).reshape(7, 9)
JPEG, PNG, PNG16 = _encoded(".jpg", COLOURS), _encoded(".png", COLOURS), _encoded(".png", DEPTH)
# One number a nibble: no zeros, then eight measured pixels, each 0.
RVL = struct.pack("<ii", 8, 1) + struct.pack("<I", 0x08100000) + bytes(4)
QUANTISED = struct.pack("<iff", 0, 100.0, 0.5)
FORMATS = (
    "jpeg",
    "png",
    "rgb8; jpeg compressed bgr8",
    "mono16; png",
    "16UC1; compressedDepth png",
    "32FC1; compressedDepth png",
    "16UC1; compressedDepth rvl",
    "32FC1; compressedDepth rvl",
)
FILES = (JPEG, PNG, PNG16, QUANTISED + PNG16, QUANTISED + RVL)


def _header(*values: float) -> bytes:
    return struct.pack("<iff", 0, *values)


compressed_images = st.builds(
    CompressedImage,
    st.one_of(st.sampled_from(FORMATS), TEXTS),
    st.builds(damaged, st.sampled_from(FILES), edits),
)


def _documented(decode: Callable[..., Any]) -> set[str]:
    return set(re.findall(r"``(\w+)``", (decode.__doc__ or "").partition("Raises:")[2]))


def _decode(decode: Callable[[Any], np.ndarray], message: Image | CompressedImage) -> np.ndarray | None:
    """The image, or None if it was refused as documented."""
    try:
        with bounded_memory(), warnings.catch_warnings():
            warnings.simplefilter("error")
            image = decode(message)
    except ImageError as error:
        assert error.reason in _documented(decode)  # noqa: PT017 - it may also succeed
        check_message(error)
        return None
    assert image.dtype == np.uint8
    assert image.shape == (*image.shape[:2], 3)
    assert 0 < image.size <= 3 * MAX_PIXELS
    return image


@given(raw_images())
@fuzz(400)
def test_an_image(message: Image) -> None:
    image = _decode(decode_image, message)
    assert image is None or image.shape[:2] == (message.height, message.width)


@given(compressed_images)
@fuzz(400)
def test_a_compressed_image(message: CompressedImage) -> None:
    _decode(decode_compressed_image, message)


@given(st.sampled_from(FILES), st.sampled_from(FORMATS))
@fuzz(40)
def test_a_whole_file_under_any_name(data: bytes, described: str) -> None:
    _decode(decode_compressed_image, CompressedImage(described, data))


@given(st.binary(max_size=200), UINT32, UINT32, st.floats(width=32), st.floats(width=32), st.sampled_from(FORMATS[4:]))
@fuzz(200)
def test_any_rvl(numbers: bytes, columns: int, rows: int, a: float, b: float, described: str) -> None:
    data = _header(a, b) + struct.pack("<II", columns, rows) + numbers
    _decode(decode_compressed_image, CompressedImage(described, data))


def test_the_whole_files_are_decoded() -> None:
    """The corpus that is damaged above is not refused for another reason."""
    for data, described in zip(FILES, ("jpeg", "png", "mono16; png", FORMATS[4], FORMATS[6]), strict=True):
        assert _decode(decode_compressed_image, CompressedImage(described, data)) is not None, described
