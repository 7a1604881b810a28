"""Depth over `compressed` and `compressedDepth`: the same picture as over raw, in every form."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from fvs_ros.sources.frame import ImageError
from fvs_ros.sources.images import decode_compressed_image, decode_image


def depth_image(height: int = 24, width: int = 32) -> np.ndarray:
    """A slope with a hole without measurements, in millimetres, uint16."""
    rows, columns = np.mgrid[:height, :width]
    depth = (500 + 90 * rows + 7 * columns).astype(np.uint16)
    depth[4:9, 10:20] = 0
    depth[-1, -3:] = 0
    return depth


def raw(depth: np.ndarray, encoding: str) -> np.ndarray:
    """The picture of the same values over the raw transport."""
    height, width = depth.shape
    message = SimpleNamespace(
        height=height, width=width, encoding=encoding, is_bigendian=0, step=depth.strides[0], data=depth.tobytes()
    )
    return decode_image(message)


def decode(data: bytes, described: str) -> np.ndarray:
    return decode_compressed_image(SimpleNamespace(format=described, data=data))


def png(values: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", values)[1].tobytes())


def rvl(depth: np.ndarray) -> bytes:
    """Encodes as the published code does: nibble by nibble into words of 32 bits, high end first."""
    nibbles: list[int] = []

    def put(value: int) -> None:
        while True:
            nibble, value = value & 7, value >> 3
            nibbles.append(nibble | (8 if value else 0))
            if not value:
                return

    pixels = depth.reshape(-1).tolist()
    at = previous = 0
    while at < len(pixels):
        begin = at
        while at < len(pixels) and not pixels[at]:
            at += 1
        put(at - begin)
        begin = at
        while at < len(pixels) and pixels[at]:
            at += 1
        put(at - begin)
        for value in pixels[begin:at]:
            step = value - previous
            put(2 * step if step >= 0 else -2 * step - 1)
            previous = value
    nibbles += [0] * (-len(nibbles) % 8)
    words = [
        sum(nibble << (28 - 4 * place) for place, nibble in enumerate(nibbles[i : i + 8]))
        for i in range(0, len(nibbles), 8)
    ]
    return struct.pack("<ii", depth.shape[1], depth.shape[0]) + struct.pack(f"<{len(words)}I", *words)


CONFIGURATION = struct.pack("<iff", 0, 0.0, 0.0)


@pytest.mark.parametrize("described", ["16UC1; png compressed ", "16UC1; png compressed 16UC1", "png", ""])
def test_a_png_of_depth_is_drawn_as_raw_depth_is(described: str) -> None:
    depth = depth_image()
    decoded = decode(png(depth), described)
    np.testing.assert_array_equal(decoded, raw(depth, "16UC1"))
    assert (decoded.min(), decoded.max()) == (0, 255)


def test_a_png_of_intensities_keeps_them() -> None:
    grey = (np.arange(64, dtype=np.uint16).reshape(8, 8) * 4) * 257
    decoded = decode(png(grey), "mono16; png compressed ")
    np.testing.assert_array_equal(decoded, raw(grey, "mono16"))
    assert decoded.max() == 252


@pytest.mark.parametrize("described", ["16UC1; compressedDepth png", "16UC1; compressedDepth"])
def test_compressed_depth_as_png(described: str) -> None:
    depth = depth_image()
    np.testing.assert_array_equal(decode(CONFIGURATION + png(depth), described), raw(depth, "16UC1"))


@pytest.mark.parametrize("depth", [depth_image(), np.zeros((3, 5), np.uint16), np.full((2, 9), 65535, np.uint16)])
def test_compressed_depth_as_rvl(depth: np.ndarray) -> None:
    decoded = decode(CONFIGURATION + rvl(depth), "16UC1; compressedDepth rvl")
    np.testing.assert_array_equal(decoded, raw(depth, "16UC1"))


def test_compressed_depth_as_rvl_of_noise() -> None:
    random = np.random.default_rng(0)
    depth = random.integers(0, 65536, (60, 80), np.uint16)
    depth[random.random((60, 80)) < 0.5] = 0
    decoded = decode(CONFIGURATION + rvl(depth), "16UC1; compressedDepth rvl")
    np.testing.assert_array_equal(decoded, raw(depth, "16UC1"))


@pytest.mark.parametrize("form", ["png", "rvl"])
def test_quantised_depth_in_metres(form: str) -> None:
    # compressed_depth_image_transport: a quantum of 100, depth up to 10 m.
    a, b = 100.0 * 101.0, 1.0 - 100.0 * 101.0 / 10.0
    metres = np.linspace(0.5, 9.5, 48, dtype=np.float32).reshape(6, 8)
    quantised = np.rint(a / metres + b).astype(np.uint16)
    quantised = quantised.clip(1)
    data = struct.pack("<iff", 0, a, b) + (png(quantised) if form == "png" else rvl(quantised))
    expected = raw((np.float32(a) / (quantised.astype(np.float32) - np.float32(b))).astype(np.float32), "32FC1")
    np.testing.assert_array_equal(decode(data, f"32FC1; compressedDepth {form}"), expected)
    hole = quantised.copy()
    hole[0, 0] = 0
    data = struct.pack("<iff", 0, a, b) + (png(hole) if form == "png" else rvl(hole))
    with pytest.raises(ImageError, match="1 of 48 values are NaN") as caught:
        decode(data, f"32FC1; compressedDepth {form}")
    assert caught.value.reason == "not_finite"


@pytest.mark.parametrize(
    ("data", "described", "reason"),
    [
        (b"\0" * 8, "16UC1; compressedDepth rvl", "truncated"),
        (CONFIGURATION + b"\0" * 4, "16UC1; compressedDepth rvl", "truncated"),
        (CONFIGURATION + rvl(depth_image())[:-40], "16UC1; compressedDepth rvl", "truncated"),
        (CONFIGURATION + struct.pack("<ii", 64, 48), "16UC1; compressedDepth rvl", "truncated"),
        (CONFIGURATION + struct.pack("<ii", 64, 48) + b"\xff" * 400, "16UC1; compressedDepth rvl", "truncated"),
        (
            CONFIGURATION + struct.pack("<ii", 5, 5) + rvl(depth_image())[8:],
            "16UC1; compressedDepth rvl",
            "undecodable",
        ),
        (CONFIGURATION + struct.pack("<ii", 0, 5) + b"\0" * 8, "16UC1; compressedDepth rvl", "empty"),
        (CONFIGURATION + struct.pack("<ii", -3, 5) + b"\0" * 8, "16UC1; compressedDepth rvl", "empty"),
        (CONFIGURATION + struct.pack("<ii", 2**20, 2**20) + b"\0" * 8, "16UC1; compressedDepth rvl", "too_large"),
        (CONFIGURATION + png(depth_image())[:200], "16UC1; compressedDepth png", "truncated"),
        (CONFIGURATION + png(np.zeros((4, 4, 3), np.uint8)), "16UC1; compressedDepth png", "undecodable"),
    ],
)
def test_what_is_no_depth_is_refused_by_name(data: bytes, described: str, reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode(data, described)
    assert caught.value.reason == reason
