"""Bags with any byte or any line of metadata.yaml wrong: their frames, or a `SourceError` that names the bag."""

from __future__ import annotations

import datetime
import functools
import sqlite3
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fuzzing import TEXTS, Edit, bounded_memory, broken, check_message, damaged, edits, fuzz
from hypothesis import example, given
from hypothesis import strategies as st
from recordings import IMAGE_TOPIC, STATIC_TOPIC, write_bag, write_ros1_bag
from rosbags.rosbag2 import CompressionMode, StoragePlugin

from fvs_ros.sources.bags import SourceError
from fvs_ros.sources.frame import ImageError
from fvs_ros.sources.recordings import open_source
from fvs_ros.sources.ros1 import Ros1Types

FRAMES = 4
METADATA, ROOT = "metadata.yaml", "rosbag2_bagfile_information"


@functools.cache
def files(kind: str) -> dict[str, bytes]:
    """The files of a small recording by their names: `mcap`, `db3`, `zstd` (a compressed .db3) or `bag` (ROS 1)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if kind == "bag":
            return {"bag.bag": write_ros1_bag(folder / "bag.bag", FRAMES).read_bytes()}
        storage = StoragePlugin.MCAP if kind == "mcap" else StoragePlugin.SQLITE3
        compression = CompressionMode.FILE if kind == "zstd" else None
        bag = write_bag(folder / "bag", FRAMES, storage, (IMAGE_TOPIC, STATIC_TOPIC), compression=compression)
        return {path.name: path.read_bytes() for path in bag.iterdir()}


def storage_file(kind: str) -> str:
    """The name of the file that holds the messages."""
    (name,) = (name for name in files(kind) if name != METADATA)
    return name


@contextmanager
def written(content: dict[str, bytes]) -> Iterator[Path]:
    """A folder with these files, or the one file that it holds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, data in content.items():
            (folder / file).write_bytes(data)
        yield folder / file if len(content) == 1 else folder


def read(path: Path) -> list[int] | None:
    """The stamps of all frames, each of which was decoded; None if the bag was refused as documented."""
    stamps: list[int] = []
    try:
        with bounded_memory(), warnings.catch_warnings():
            warnings.simplefilter("error")
            source = open_source(path)
            try:
                for frame in source.frames():
                    stamps.append(frame.stamp_ns)
                    try:
                        assert frame.image().dtype == np.uint8
                    except ImageError as error:
                        check_message(error)
                for note in source.notes:
                    assert note
                    assert note.isprintable()
            finally:
                source.close()
    except SourceError as error:
        check_message(error, str(path))
        return None
    assert stamps == sorted(stamps)
    return stamps


KINDS = ("mcap", "db3", "zstd", "bag")


@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_bags_are_read(kind: str) -> None:
    """The corpus that is damaged below is not refused for another reason."""
    with written(files(kind)) as path:
        stamps = read(path)
        assert stamps is not None
        assert len(stamps) == FRAMES


@given(edits)
@fuzz(150)
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_bytes(kind: str, places: list[Edit]) -> None:
    name = storage_file(kind)
    with written({name: damaged(files(kind)[name], places)}) as path:
        read(path)


def write(values: Any) -> bytes:
    """YAML of it, half characters included."""
    return yaml.safe_dump(values, allow_unicode=True).encode("utf-8", "surrogatepass")


def information(**values: object) -> dict[str, Any]:
    """Valid metadata with other values."""
    return {ROOT: yaml.safe_load(files("mcap")[METADATA])[ROOT] | values}


def one_topic(name: object, kind: object, count: object) -> list[dict[str, Any]]:
    return [{"topic_metadata": {"name": name, "type": kind}, "message_count": count}]


@given(st.deferred(lambda: broken(information())))
@example(information(topics_with_message_count=one_topic(IMAGE_TOPIC, "", float("inf"))))
@example(information(topics_with_message_count=one_topic(None, None, 1)))
@example(information(topics_with_message_count=one_topic(IMAGE_TOPIC, "", 10**400)))
@example(information(relative_file_paths=["\0.mcap"]))
@example(information(relative_file_paths=["x" * 5000 + ".mcap"]))
@example(information(relative_file_paths="bag.mcap"))
@example(information(relative_file_paths=[None]))
@example({ROOT: datetime.date(2024, 2, 29)})
@fuzz(150)
def test_metadata_of_other_values(values: Any) -> None:
    with written({**files("mcap"), METADATA: write(values)}) as path:
        read(path)


# Lists of lists by aliases, as text more than any memory holds.
BOMB = "a: &a [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1 or ''}, *a{n - 1 or ''}]\n" for n in range(1, 60))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 20_000,
        "a: {" * 3_000,
        f"{ROOT}: 2023-99-99",
        f"{ROOT}: &it {{relative_file_paths: [*it]}}",
        f"{ROOT}: &it\n  <<: *it",
        f"{BOMB}{ROOT}: {{relative_file_paths: *a59}}",
        f"{ROOT}: {{relative_file_paths: [], topics_with_message_count: [{{message_count: .inf}}]}}",
    ],
    ids=["lists", "maps", "no date", "itself", "merged", "bomb", "infinite"],
)
def test_metadata_that_cannot_be_used_costs_no_frame(text: str) -> None:
    with written({**files("mcap"), METADATA: text.encode()}) as path:
        stamps = read(path)
        assert stamps is not None
        assert len(stamps) == FRAMES


@given(edits)
@fuzz(150)
def test_damaged_metadata(places: list[Edit]) -> None:
    with written({**files("mcap"), METADATA: damaged(files("mcap")[METADATA], places)}) as path:
        read(path)


CELLS = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.floats(), TEXTS, st.binary(max_size=20))
COLUMNS = [("messages", name) for name in ("topic_id", "timestamp", "data")] + [
    ("topics", name) for name in ("id", "name", "type", "serialization_format", "offered_qos_profiles")
]


@given(st.sampled_from(COLUMNS), CELLS)
@example(("messages", "data"), "text")
@example(("messages", "timestamp"), "text")
@example(("messages", "timestamp"), 1.5)
@example(("topics", "name"), b"\xff")
@example(("topics", "name"), None)
@example(("topics", "name"), "/\x1b[2J\n")
@example(("topics", "type"), b"\xff")
@example(("topics", "offered_qos_profiles"), "[" * 20_000)
@example(("topics", "offered_qos_profiles"), "2023-99-99")
@fuzz(150)
def test_a_database_with_other_values(place: tuple[str, str], value: object) -> None:
    """SQLite holds anything in any column."""
    (table, column), name = place, storage_file("db3")
    with written({name: files("db3")[name]}) as path:
        with closing(sqlite3.connect(path)) as database:
            # Without what the schema requires.
            database.execute(f"CREATE TABLE free AS SELECT * FROM {table}")
            database.execute(f"DROP TABLE {table}")
            database.execute(f"ALTER TABLE free RENAME TO {table}")
            text = value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
            database.execute(f"UPDATE {table} SET {column} = ?", [text])
            database.commit()
        stamps = read(path)
        if column == "offered_qos_profiles":
            assert stamps is not None
            assert len(stamps) == FRAMES


@given(st.one_of(TEXTS, st.builds("{} {}".format, st.sampled_from(["uint8", "Log[]", "string<=9", "a/B"]), TEXTS)))
@example("\0")
@example("uint8 a b c")
@example("int32[99999999999999999999] x")
@example("rcl_interfaces/Log[] x")
@fuzz(100)
def test_a_ros1_definition_of_other_text(definition: str) -> None:
    """Of a type that only ROS 2 knows, so that the definition is read."""
    try:
        assert callable(Ros1Types().converter("rcl_interfaces/msg/Log", definition))
    except LookupError as error:
        check_message(error, "rcl_interfaces/msg/Log")
