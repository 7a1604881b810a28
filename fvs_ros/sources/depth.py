"""Depth images as grey pictures, and image_transport's `compressedDepth` in both of its forms, PNG and RVL."""

from __future__ import annotations

import struct

import cv2
import numpy as np

from fvs_ros.sources.frame import ImageError

# `compressed_depth_image_transport` puts its configuration first: the form, and two parameters of the quantisation.
_CONFIGURATION = struct.Struct("<iff")
_RVL_SIZE = struct.Struct("<ii")  # Columns and rows.
_RVL_NIBBLES = 11  # Of a number of 32 bits.
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def draw_depth(depth: np.ndarray) -> np.ndarray:
    """Depth in grey from its nearest value, black, to its farthest, white.

    Args:
        depth: [height, width] of any number type.

    Returns:
        RGB, uint8 [height, width, 3].

    Raises:
        ImageError: ``not_finite``, a value is NaN or infinite.
    """
    if depth.dtype.kind == "f":
        finite = int(np.count_nonzero(np.isfinite(depth)))
        if finite < depth.size:
            raise ImageError(
                "not_finite",
                f"{depth.size - finite} of {depth.size} values are NaN or infinite, as depth without a measurement is "
                "(REP 118); fill them in first, or subscribe to the camera's colour image",
            )
    # In float64, since the range of float32 depth may be larger than float32 can hold.
    values = depth.astype(np.float64)
    nearest, farthest = values.min(), values.max()
    span = farthest - nearest
    grey = (values - nearest) * (255.0 / span) if span > 0 else np.zeros_like(values)
    return np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, axis=2)


def is_compressed_depth(described: str) -> bool:
    """Whether a format field names the transport `compressedDepth`, as in ``16UC1; compressedDepth png``."""
    return "compressedDepth" in described


def is_depth_png(data: bytes, described: str) -> bool:
    """Whether a PNG holds depth: one channel of 16 bits, not called intensities as in ``mono16; png``."""
    # IHDR (ISO/IEC 15948, 11.2.2): bit depth and colour type, 0 for grey.
    return data.startswith(_PNG_SIGNATURE) and data[24:26] == b"\x10\x00" and "mono" not in described


class CompressedDepth:
    """The payload of a `compressedDepth` image.

    Attributes:
        rvl: whether it is coded as RVL; as PNG otherwise.
        data: without its configuration; with RVL also without the size.
        size: height and width of RVL, (0, 0) of PNG.

    Raises:
        ImageError: ``truncated``, the configuration or the size is not there.
    """

    def __init__(self, data: bytes, described: str) -> None:
        self._described = described
        try:
            _, self._a, self._b = _CONFIGURATION.unpack_from(data)
            self.data = data[_CONFIGURATION.size :]
            self.rvl = not self.data.startswith(_PNG_SIGNATURE)
            self.size = (0, 0)
            if self.rvl:
                columns, rows = _RVL_SIZE.unpack_from(self.data)
                self.size, self.data = (rows, columns), self.data[_RVL_SIZE.size :]
        except struct.error:
            raise ImageError("truncated", f"the {described!r} image ends at byte {len(data)}, in its header") from None

    def values(self) -> np.ndarray:
        """Depth [height, width], uint16 in the camera's unit or float32 in metres, NaN where nothing was measured.

        Raises:
            ImageError: ``truncated`` or ``undecodable``.
        """
        quantised = _decode_rvl(self.data, *self.size) if self.rvl else decode_png16(self.data, self._described)
        if not self._described.startswith("32FC1"):
            return quantised
        # Depth is stored as a + b / depth, and 0 where it is unknown.
        with np.errstate(divide="ignore", invalid="ignore"):
            metres = self._a / (quantised.astype(np.float32) - self._b)
        return np.where(quantised == 0, np.float32(np.nan), metres).astype(np.float32)


def decode_png16(data: bytes, described: str) -> np.ndarray:
    """The values of a PNG of one channel, uint16 [height, width].

    Raises:
        ImageError: ``undecodable``.
    """
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.ndim != 2 or values.dtype != np.uint16:
        raise ImageError("undecodable", f"the {len(data)} bytes of {described!r} image are no PNG of 16-bit depth")
    return values


def _decode_rvl(data: bytes, height: int, width: int) -> np.ndarray:
    """RVL (Wilson, Fast Lossless Depth Image Compression, ISS 2017): runs of zeros, and of steps from the last value.

    Numbers are chains of nibbles, three bits each with the lowest first and one that says whether more follow, packed
    from the high end of 32-bit words.
    """
    words = np.frombuffer(data[: len(data) // 4 * 4], "<u4")
    nibbles = ((words[:, None] >> np.arange(28, -4, -4, dtype=np.uint32)) & 15).reshape(-1).astype(np.int64)
    ends = np.flatnonzero(nibbles < 8)
    if not len(ends):
        raise ImageError("truncated", f"the RVL image ends after 0 of {height * width} pixels; see its transport")
    starts = np.concatenate(([0], ends[:-1] + 1))
    place = np.arange(ends[-1] + 1) - np.repeat(starts, ends - starts + 1)
    if place.max() >= _RVL_NIBBLES:
        raise ImageError("undecodable", f"a number in the RVL image takes more than {_RVL_NIBBLES} nibbles")
    numbers = np.add.reduceat((nibbles[: len(place)] & 7) << (3 * place), starts)
    pixels = height * width
    is_step, measured = np.zeros(len(numbers), bool), np.zeros(pixels, bool)
    at = filled = 0
    while filled < pixels:
        zeros, count = numbers[at : at + 2].tolist() if at + 1 < len(numbers) else (0, len(numbers))
        at += 2
        if at + count > len(numbers):
            raise ImageError("truncated", f"the RVL image ends after {filled} of {pixels} pixels; see its transport")
        is_step[at : at + count] = True
        measured[filled + zeros : filled + zeros + count] = True
        at, filled = at + count, filled + zeros + count
    if filled != pixels:
        raise ImageError("undecodable", f"the RVL image describes {filled} pixels, its header {width} x {height}")
    steps = numbers[is_step]
    image = np.zeros(pixels, np.uint16)
    image[measured] = np.cumsum((steps >> 1) ^ -(steps & 1)).astype(np.uint16)
    return image.reshape(height, width)
