"""Pictures at the size that the model sees, as they are stored: JPEG."""

from __future__ import annotations

import cv2
import numpy as np

from fvs_ros.memory.snapshot import PatchGrid
from fvs_ros.stream.model_protocol import StreamModel

# A patrol's 112 x 112 pixels take 4 kB, a camera's 448 x 448 about 50.
_QUALITY = 90
LONGEST_SIDE = 640
"""Pixels of the longer side of a picture that is given out, at most."""


def at_model_size(image: np.ndarray, grid: PatchGrid) -> np.ndarray:
    """An RGB image, uint8 [H, W, 3], at the size to which the model's frames are resized; the same one if it has it."""
    height, width = grid.frame_size
    if image.shape[:2] == (height, width):
        return image
    shrinks = height < image.shape[0] and width < image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def grid_of_picture(model: StreamModel, width: int, height: int) -> PatchGrid:
    """The patch grid at which a model sees a picture of `width` x `height` pixels: of its own pictures, as they are.

    Raises:
        ValueError: one side is 200 times the other or more.
    """
    return model.frame_grid(height, width, width * height, width * height)


def sharpness(image: np.ndarray) -> float:
    """How sharp an RGB image is: the variance of its Laplacian, which blur lowers."""
    return float(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_32F).var())


def encode_jpeg(image: np.ndarray) -> bytes:
    """An RGB image as JPEG.

    Raises:
        ValueError: the encoder refuses it.
    """
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not done:
        raise ValueError(f"an image of {image.shape[1]} x {image.shape[0]} pixels cannot be encoded as JPEG")
    return data.tobytes()


def shown_jpeg(picture: np.ndarray, longest_side: int = LONGEST_SIDE) -> bytes:
    """An RGB image as JPEG, made smaller where a side has more pixels than `longest_side`.

    Raises:
        ValueError: the encoder refuses it.
    """
    height, width = picture.shape[:2]
    scale = longest_side / max(height, width)
    if scale < 1:
        size = (max(1, round(scale * width)), max(1, round(scale * height)))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return encode_jpeg(picture)


def decode_jpeg(data: bytes) -> np.ndarray | None:
    """The RGB image, uint8 [H, W, 3], of a JPEG; None where it is none."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
