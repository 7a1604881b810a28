"""The tables of a store, and segments and arrays as checksummed rows of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from fvs_ros.episodic.segment import PoseSpread, Segment, StoredSegment
from fvs_ros.sources.frame import Pose

Row = Sequence[Any]
"""What SQLite gives for a row: integers, floats, text, bytes or None, in a damaged one anything for anything."""

SEGMENT_COLUMNS = (
    "id, episode, start_ns, end_ns, weight, keyframe_ns, camera, width, height, frame_id, map_id, "
    "pose_frame, x, y, z, qx, qy, qz, qw, spread_metres, spread_radians, checksum"
)
ARRAY_COLUMNS = "segment, model, shape, data, checksum"
# `model` is a number of the table `models`; a sketch has one row a segment, of the newest model that made features.
SCHEMA = f"""
CREATE TABLE settings (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE episodes (number INTEGER PRIMARY KEY AUTOINCREMENT, reason TEXT NOT NULL);
CREATE TABLE gaps (episode INTEGER NOT NULL, start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL);
CREATE TABLE segments ({SEGMENT_COLUMNS.replace("id,", "id INTEGER PRIMARY KEY AUTOINCREMENT,", 1)});
CREATE TABLE keyframes (segment INTEGER PRIMARY KEY, jpeg BLOB NOT NULL, checksum BLOB NOT NULL);
CREATE TABLE models (number INTEGER PRIMARY KEY AUTOINCREMENT, fingerprint TEXT NOT NULL UNIQUE);
CREATE TABLE means ({ARRAY_COLUMNS}, PRIMARY KEY (segment, model));
CREATE TABLE retrieval_keys ({ARRAY_COLUMNS}, PRIMARY KEY (segment, model));
CREATE TABLE sketches (segment INTEGER PRIMARY KEY, model INTEGER NOT NULL, data BLOB NOT NULL, checksum BLOB NOT NULL);
CREATE TABLE forgetting (segment INTEGER PRIMARY KEY);
"""
BLOB_TABLES = ("keyframes", "means", "retrieval_keys", "sketches")
"""Tables with a column `segment`, whose rows go with their segment."""


class RowDamageError(Exception):
    """A row whose bytes are not those that were written."""


def checksum(*values: object) -> bytes:
    """8 bytes over the values of a row, in their order; the row's key among them, so that rows cannot be swapped."""
    blobs = [value for value in values if isinstance(value, bytes)]
    others = [len(value) if isinstance(value, bytes) else value for value in values]
    digest = hashlib.blake2b(repr(others).encode("utf-8", "surrogatepass"), digest_size=8)
    for blob in blobs:
        digest.update(blob)
    return digest.digest()


def verify(row: Row) -> None:
    """Compares the last value of a row with the checksum of those before.

    Raises:
        RowDamageError: they differ.
    """
    if row[-1] != checksum(*row[:-1]):
        raise RowDamageError("its checksum is wrong")


def segment_row(identifier: int, episode: int, segment: Segment) -> Row:
    """The row of a segment in the order of `SEGMENT_COLUMNS`."""
    pose: Row = (None,) * 8
    if segment.pose is not None:
        numbers = map(float, (*segment.pose.position, *segment.pose.orientation))
        pose = (segment.pose.frame_id, *numbers)
    spread: Row = (None, None)
    if segment.spread is not None:
        spread = (float(segment.spread.metres), float(segment.spread.radians))
    values = (
        identifier,
        episode,
        segment.start_ns,
        segment.end_ns,
        segment.weight,
        segment.keyframe_ns,
        segment.camera,
        segment.width,
        segment.height,
        segment.frame_id,
        segment.map_id,
        *pose,
        *spread,
    )
    return *values, checksum(*values)


def read_segment(row: Row) -> StoredSegment:
    """The segment of a row.

    Raises:
        RowDamageError: the row is not as it was written.
    """
    verify(row)
    pose_frame, x, y, z, qx, qy, qz, qw = row[11:19]
    metres, radians = row[19:21]
    segment = Segment(
        start_ns=row[2],
        end_ns=row[3],
        weight=row[4],
        keyframe_ns=row[5],
        camera=row[6],
        width=row[7],
        height=row[8],
        frame_id=row[9],
        pose=None if pose_frame is None else Pose(pose_frame, (x, y, z), (qx, qy, qz, qw)),
        map_id=row[10],
        spread=None if metres is None else PoseSpread(metres, radians),
    )
    return StoredSegment(row[0], row[1], segment)


def array_row(segment: int, model: int, array: np.ndarray) -> Row:
    """The row of a float16 array in the order of `ARRAY_COLUMNS`."""
    values = (segment, model, " ".join(map(str, array.shape)), np.ascontiguousarray(array, "<f2").tobytes())
    return *values, checksum(*values)


def read_array(row: Row) -> np.ndarray:
    """The float16 array of a row; read-only.

    Raises:
        RowDamageError: the row is not as it was written.
    """
    verify(row)
    return np.frombuffer(row[3], "<f2").reshape([int(size) for size in row[2].split()])
