"""Decoding of camera messages: every encoding to the same picture, every bad message to its own reason."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from fvs_ros.sources import images
from fvs_ros.sources.frame import ImageError
from fvs_ros.sources.images import ENCODINGS, check_message, decode_compressed_image, decode_image


@dataclass
class Image:
    height: int
    width: int
    encoding: str
    step: int
    data: object
    is_bigendian: int = 0


@dataclass
class CompressedImage:
    format: str
    data: object


def picture(height: int = 8, width: int = 12) -> np.ndarray:
    """RGB with a red left half and a blue right half, so that swapped channels or columns show."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2] = (200, 40, 20)
    image[:, width // 2 :] = (10, 60, 220)
    return image


def bayer(rgb: np.ndarray, order: str) -> np.ndarray:
    mosaic = np.empty(rgb.shape[:2], np.uint8)
    for index, colour in enumerate(order):
        rows, columns = slice(index // 2, None, 2), slice(index % 2, None, 2)
        mosaic[rows, columns] = rgb[rows, columns, "rgb".index(colour)]
    return mosaic


def ycbcr(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Luma [height, width] and chroma (Cb, Cr) [height / 2, width / 2, 2] in the range of ITU-R BT.601."""
    height, width = rgb.shape[:2]
    planes = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420)
    return planes[:height], np.moveaxis(planes[height:].reshape(2, height // 2, width // 2), 0, 2)


def yuv422(rgb: np.ndarray, luma_first: bool) -> np.ndarray:
    luma, chroma = ycbcr(rgb)
    alternating = np.repeat(chroma.reshape(chroma.shape[0], -1), 2, axis=0)
    return np.stack([luma, alternating] if luma_first else [alternating, luma], axis=2)


def planar(rgb: np.ndarray, blue_first: bool) -> np.ndarray:
    luma, chroma = ycbcr(rgb)
    interleaved = chroma if blue_first else chroma[..., ::-1]
    return np.concatenate([luma, interleaved.reshape(chroma.shape[0], -1)])


def encode(rgb: np.ndarray, encoding: str) -> np.ndarray:
    """The values that a camera would publish of `rgb` in a colour encoding."""
    alpha = np.full((*rgb.shape[:2], 1), 255, np.uint8)
    if encoding.startswith("bayer"):
        values = bayer(rgb, encoding[6:10])
    elif encoding in ("yuv422", "uyvy"):
        values = yuv422(rgb, luma_first=False)
    elif encoding in ("yuv422_yuy2", "yuyv"):
        values = yuv422(rgb, luma_first=True)
    elif encoding in ("nv12", "nv21"):
        values = planar(rgb, blue_first=encoding == "nv12")
    else:
        ordered = rgb if encoding.startswith("rgb") else rgb[..., ::-1]
        wide = encoding.startswith(("rgba", "bgra")) or encoding == "8UC4"
        values = np.concatenate([ordered, alpha], axis=2) if wide else ordered
    return values.astype(np.uint16) * 257 if encoding.endswith("16") else values


def message(values: np.ndarray, encoding: str, padding: int = 0, big_endian: bool = False, rows: int = 0) -> Image:
    values = values.byteswap() if big_endian != (sys.byteorder == "big") else values
    lines = np.ascontiguousarray(values).view(np.uint8).reshape(values.shape[0], -1)
    padded = np.pad(lines, ((0, 0), (0, padding)), constant_values=170)
    data = array("B", padded.tobytes())
    return Image(rows or values.shape[0], values.shape[1], encoding, padded.shape[1], data, int(big_endian))


GREY = ("mono8", "mono16", "8UC1", "16UC1", "32FC1")
COLOUR = sorted(set(ENCODINGS) - set(GREY))


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("encoding", COLOUR)
def test_every_colour_encoding_gives_the_picture(encoding: str, padding: int, big_endian: bool) -> None:
    rgb = picture()
    decoded = decode_image(message(encode(rgb, encoding), encoding, padding, big_endian, rows=rgb.shape[0]))
    assert decoded.shape == rgb.shape
    assert decoded.dtype == np.uint8
    # Interpolated colours bleed over the edge in the middle; two columns on each side of it are left out.
    edge = rgb.shape[1] // 2
    away = [column for column in range(rgb.shape[1]) if not edge - 2 <= column < edge + 2]
    # Integer YUV coefficients cost a few levels; the other encodings cost none.
    tolerance = 0 if encoding.startswith(("rgb", "bgr", "8UC", "bayer")) else 5
    assert np.abs(decoded[:, away].astype(int) - rgb[:, away]).max() <= tolerance


@pytest.mark.parametrize("encoding", ["mono8", "mono16", "8UC1"])
def test_grey_intensities_are_kept(encoding: str) -> None:
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    values = grey.astype(np.uint16) * 257 if encoding == "mono16" else grey
    decoded = decode_image(message(values, encoding, padding=2))
    assert np.array_equal(decoded, np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize(("encoding", "dtype"), [("16UC1", np.uint16), ("32FC1", np.float32)])
@pytest.mark.parametrize("big_endian", [False, True])
def test_depth_is_drawn_from_nearest_to_farthest(encoding: str, dtype: type, big_endian: bool) -> None:
    depth: np.ndarray = np.array([[1000, 2000], [3000, 6000]], dtype)
    decoded = decode_image(message(depth, encoding, padding=4, big_endian=big_endian))
    assert decoded[..., 0].tolist() == [[0, 51], [102, 255]]
    assert np.array_equal(decoded[..., 0], decoded[..., 2])


def test_depth_of_one_distance_is_black_and_of_the_widest_range_does_not_overflow() -> None:
    assert decode_image(message(np.full((2, 2), 7, np.uint16), "16UC1")).max() == 0
    widest = np.array([[np.finfo(np.float32).min, np.finfo(np.float32).max]], np.float32)
    assert decode_image(message(widest, "32FC1"))[0, :, 0].tolist() == [0, 255]


GOOD = message(picture(), "rgb8")


@pytest.mark.parametrize(
    ("bad", "reason", "numbers"),
    [
        (replace(GOOD, height=0), "empty", ["12 x 0"]),
        (replace(GOOD, width=0), "empty", ["0 x 8"]),
        (replace(GOOD, height=60_000, width=60_000, step=180_000), "too_large", ["60000 x 60000", "67108864"]),
        (replace(GOOD, encoding="jpeg2000"), "unknown_encoding", ["'jpeg2000'"]),
        (replace(GOOD, encoding=""), "unknown_encoding", ["''"]),
        (replace(GOOD, step=35), "step", ["35", "36"]),
        (replace(GOOD, step=0), "step", ["0", "36"]),
        (replace(message(np.ones((2, 2), np.uint16), "mono16"), step=5), "step", ["5", "4"]),
        (replace(GOOD, data=array("B", bytes(287))), "data_length", ["287", "288"]),
        (replace(GOOD, data=array("B", bytes(289))), "data_length", ["289", "288"]),
        (replace(GOOD, data=array("B")), "data_length", ["0 bytes", "288"]),
        (replace(GOOD, encoding="yuv422", width=11), "odd_size", ["11 x 8"]),
        (replace(GOOD, encoding="nv12", height=7), "odd_size", ["12 x 7"]),
        (message(np.array([[1, np.nan], [2, 3]], np.float32), "32FC1"), "not_finite", ["1 of 4"]),
        (message(np.array([[1, np.inf], [-np.inf, 3]], np.float32), "32FC1"), "not_finite", ["2 of 4"]),
    ],
)
def test_a_bad_image_names_its_reason_and_both_numbers(bad: Image, reason: str, numbers: list[str]) -> None:
    with pytest.raises(ImageError) as caught:
        decode_image(bad)
    assert caught.value.reason == reason
    assert all(number in str(caught.value) for number in numbers), str(caught.value)


@pytest.mark.parametrize(
    ("data_bytes", "frame_id", "reason", "words"),
    [
        (2**29 + 1, "camera", "too_large", "is 536870913 bytes long; at most 536870912 are taken"),
        (2**40, "x" * 256, "too_large", f"is {2**40} bytes long"),
        (0, "x" * 256, "frame_id", "frame_id has 256 characters; at most 255 are taken"),
    ],
)
def test_a_message_that_nothing_should_keep(data_bytes: int, frame_id: str, reason: str, words: str) -> None:
    with pytest.raises(ImageError, match=words) as caught:
        check_message(data_bytes, frame_id)
    assert caught.value.reason == reason


def test_the_largest_message_is_taken() -> None:
    check_message(2**29, "x" * 255)


def encoded(extension: str, image: np.ndarray | None = None) -> bytes:
    rgb = cv2.resize(picture(), (96, 64), interpolation=cv2.INTER_NEAREST) if image is None else image
    return cv2.imencode(extension, rgb[..., ::-1] if rgb.ndim == 3 else rgb)[1].tobytes()


@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_compressed_images_give_the_picture(extension: str) -> None:
    decoded = decode_compressed_image(CompressedImage("rgb8; compressed", array("B", encoded(extension))))
    assert decoded.shape == (64, 96, 3)
    assert np.abs(decoded[8:56, 8:40].astype(int) - (200, 40, 20)).max() <= 6
    assert np.abs(decoded[8:56, 56:88].astype(int) - (10, 60, 220)).max() <= 6


@pytest.mark.parametrize(("extension", "dtype"), [(".jpg", np.uint8), (".png", np.uint8), (".png", np.uint16)])
def test_compressed_grey_is_decoded_too(extension: str, dtype: type) -> None:
    grey: np.ndarray = np.full((16, 16), 128 * (257 if dtype is np.uint16 else 1), dtype)
    assert (
        np.abs(decode_compressed_image(CompressedImage("mono", encoded(extension, grey))).astype(int) - 128).max() < 2
    )


def test_a_jpeg_may_be_followed_by_padding() -> None:
    padded = encoded(".jpg") + bytes(64)
    assert decode_compressed_image(CompressedImage("jpeg", padded)).shape == (64, 96, 3)


def bomb(kind: str) -> bytes:
    """A small file whose header claims 60,000 x 60,000 pixels: 10.8 GB once decoded."""
    data = bytearray(encoded(kind))
    size = (60_000).to_bytes(2, "big") * 2
    if kind == ".jpg":
        frame = data.find(b"\xff\xc0")
        data[frame + 5 : frame + 9] = size
    else:
        data[16:24] = (60_000).to_bytes(4, "big") * 2
    return bytes(data)


NOISE = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"GIF89a", "unknown_format"),
        (b"\xff\xd8", "truncated"),
        (b"\xff\xd8\xff\xe0\x00", "truncated"),
        (encoded(".jpg", NOISE)[:-500], "truncated"),
        (encoded(".jpg", NOISE)[:100], "truncated"),
        (encoded(".png", NOISE)[:-500], "truncated"),
        (encoded(".png", NOISE)[:20], "truncated"),
        (encoded(".jpg")[:2] + bytes(200), "undecodable"),
        (encoded(".png", NOISE)[:60] + bytes(400) + encoded(".png", NOISE)[460:], "undecodable"),
        (bomb(".jpg"), "too_large"),
        (bomb(".png"), "too_large"),
    ],
)
def test_a_bad_compressed_image_names_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode_compressed_image(CompressedImage("jpeg", array("B", data)))
    assert caught.value.reason == reason


def test_decoding_survives_any_corruption_of_a_compressed_image() -> None:
    """Whatever bytes are flipped, there is a picture or an ImageError, nothing else."""
    random = np.random.default_rng(1)
    for kind in (".jpg", ".png"):
        whole = encoded(kind, NOISE)
        for _ in range(100):
            data = bytearray(whole)
            for position in random.integers(0, len(data), 8):
                data[position] = random.integers(0, 256)
            try:
                decoded = decode_compressed_image(CompressedImage(kind, bytes(data)))
            except ImageError:
                continue
            assert decoded.dtype == np.uint8
            assert decoded.ndim == 3


@pytest.fixture
def fresh_converter() -> Iterator[None]:
    images.image_converter.cache_clear()
    yield
    images.image_converter.cache_clear()


CV_BRIDGE = """
import numpy as np
{before}
class CvBridge:
    def imgmsg_to_cv2(self, image, encoding):
        assert encoding == "rgb8"
        return np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, 3)[..., ::-1].copy()
"""


@pytest.mark.parametrize(
    ("before", "works"),
    [
        ("", True),
        ("raise ImportError('numpy.core.multiarray failed to import')", False),
        ("import os; os.abort()", False),
    ],
)
def test_cv_bridge_is_used_only_where_it_works(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fresh_converter: None,
    caplog: pytest.LogCaptureFixture,
    before: str,
    works: bool,
) -> None:
    (tmp_path / "cv_bridge.py").write_text(CV_BRIDGE.format(before=before))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    rgb = picture()
    assert np.array_equal(decode_image(message(rgb[..., ::-1], "bgr8")), rgb)
    assert (images.image_converter() is images._cv_bridge_to_rgb) == works
    assert ("cv_bridge does not work here" in caplog.text) == (not works)
    sys.modules.pop("cv_bridge", None)
