"""Files of sqlite3: their paths, their schemas, and what is no recording."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from recordings import IMAGE_TOPIC, STATIC_TOPIC, stamp_ns, write_bag
from rosbags.rosbag2 import StoragePlugin

from fvs_ros.sources.bags import Bag, SourceError
from fvs_ros.sources.recordings import open_source
from fvs_ros.sources.storage import is_latched, ros2_type


@pytest.mark.parametrize(
    "name", ["run #3", "is it?", "is it?mode=rwc", "%41", "20%20b", "50%", "a&b=c", "file:x", "лаб", 'it\'s "it"']
)
def test_every_name_of_a_folder_or_a_file(tmp_path: Path, name: str) -> None:
    bag = write_bag(tmp_path / "made", 4, StoragePlugin.SQLITE3).rename(tmp_path / name)
    file = shutil.copy(bag / "made.db3", tmp_path / f"{name}.db3")
    for path in (bag, bag / "made.db3", file):
        assert [frame.stamp_ns for frame in open_source(path).frames()] == [stamp_ns(index) for index in range(4)]


def test_no_other_file_is_read_in_its_place(tmp_path: Path) -> None:
    other = write_bag(tmp_path / "other", 2, StoragePlugin.SQLITE3, first=50)
    shutil.copy(other / "other.db3", tmp_path / "run")
    wanted = write_bag(tmp_path / "wanted", 4, StoragePlugin.SQLITE3).rename(tmp_path / "run#2")
    frames = open_source(wanted / "wanted.db3").frames()
    assert [frame.stamp_ns for frame in frames] == [stamp_ns(index) for index in range(4)]


def test_the_oldest_schema(tmp_path: Path) -> None:
    """Dashing and Eloquent: no profiles of quality of service, no hashes, no definitions."""
    bag = write_bag(tmp_path / "bag", 4, StoragePlugin.SQLITE3, [IMAGE_TOPIC, STATIC_TOPIC])
    with Bag(bag) as opened:
        assert opened.topics[STATIC_TOPIC].latched
    with sqlite3.connect(bag / "bag.db3") as database:
        for table in ("schema", "metadata", "message_definitions"):
            database.execute(f"DROP TABLE {table}")
        for column in ("offered_qos_profiles", "type_description_hash"):
            database.execute(f"ALTER TABLE topics DROP COLUMN {column}")
    database.close()
    with Bag(bag) as opened:
        assert (opened.topics[IMAGE_TOPIC].count, opened.topics[STATIC_TOPIC].latched) == (4, False)
        received = [message.received_ns for message in opened.messages([IMAGE_TOPIC])]
    assert received == [stamp_ns(index) + 1_000_000 for index in range(4)]


def test_messages_that_are_not_of_ros(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", 4, StoragePlugin.SQLITE3)
    with sqlite3.connect(bag / "bag.db3") as database:
        database.execute("UPDATE topics SET serialization_format = 'protobuf'")
    database.close()
    with pytest.raises(SourceError, match=r"its messages are protobuf, not those of ROS"):
        open_source(bag)


def test_a_database_of_another_program(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "x.db3") as database:
        database.execute("CREATE TABLE songs (id INTEGER)")
    database.close()
    with pytest.raises(SourceError, match=r"x\.db3: it is a database without the tables topics and messages"):
        open_source(tmp_path / "x.db3")


@pytest.mark.parametrize(
    ("profiles", "latched"),
    [
        ("", False),
        ("- durability: 2\n- durability: 1", True),
        ("[{durability: transient_local}]", True),
        ("[{durability: volatile}]", False),
        ("durability: 1", False),
        ("[", False),
        ("- durability: 1 #" + "x" * 2**16, False),
    ],
)
def test_latched_publishers(profiles: str, latched: bool) -> None:
    assert is_latched(profiles) is latched


def test_names_of_types() -> None:
    for name in ("sensor_msgs/msg/Image", "sensor_msgs/Image", "sensor_msgs::msg::dds_::Image_"):
        assert ros2_type(name) == "sensor_msgs/msg/Image"
    assert ros2_type("foxglove.CompressedImage") == "foxglove.CompressedImage"
    assert ros2_type("tf/tfMessage") == "tf2_msgs/msg/TFMessage"
