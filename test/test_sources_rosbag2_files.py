"""Rosbag2 recordings whose metadata.yaml is wrong, incomplete or absent: the files are what is read."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from backports import zstd
from recordings import (
    COMPRESSED_TOPIC,
    IMAGE_TOPIC,
    PERIOD_NS,
    read_metadata,
    rgb_image,
    stamp_ns,
    write_bag,
    write_metadata,
    write_split_bag,
)
from rosbags.rosbag2 import CompressionMode, StoragePlugin

from fvs_ros.sources import rosbag2_files, storage
from fvs_ros.sources.bags import Bag, SourceError
from fvs_ros.sources.recordings import open_source

STORAGES = list(StoragePlugin)
HALVES = (range(10), range(10, 20))
DELAY_NS = 1_000_000
QOS = {
    "history": 1,
    "depth": 10,
    "reliability": 1,
    "durability": 2,
    **{name: {"sec": 9223372036, "nsec": 854775807} for name in ("deadline", "lifespan", "liveliness_lease_duration")},
    "liveliness": 1,
    "avoid_ros_namespace_conventions": False,
}


def check_whole(path: Path, frames: int = 20, first: int = 0) -> None:
    source = open_source(path)
    found = list(source.frames())
    assert [frame.stamp_ns for frame in found] == [stamp_ns(index) for index in range(first, first + frames)]
    np.testing.assert_array_equal(found[-1].image(), rgb_image(first + frames - 1))
    assert source.start_ns == stamp_ns(first) + DELAY_NS
    assert source.duration_ns == (frames - 1) * PERIOD_NS
    assert source.frame_count == frames
    source.close()


def change_metadata(bag: Path, **changes: Any) -> None:
    write_metadata(bag, {**read_metadata(bag), **changes})


@pytest.mark.parametrize("storage", STORAGES)
def test_quality_of_service_that_differs_between_metadata_and_files(tmp_path: Path, storage: StoragePlugin) -> None:
    bag = write_split_bag(tmp_path / "bag", HALVES, storage)
    information = read_metadata(bag)
    information["topics_with_message_count"][0]["topic_metadata"]["offered_qos_profiles"] = [QOS]
    write_metadata(bag, information)
    check_whole(bag)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("start", [0, stamp_ns(10) + DELAY_NS, 2**62])
def test_a_wrong_start_and_duration_of_a_split_bag(tmp_path: Path, storage: StoragePlugin, start: int) -> None:
    bag = write_split_bag(tmp_path / "bag", HALVES, storage)
    change_metadata(bag, starting_time={"nanoseconds_since_epoch": start}, duration={"nanoseconds": 7})
    check_whole(bag)


def test_parts_that_are_listed_in_a_wrong_order_or_overlap(tmp_path: Path) -> None:
    bag = write_split_bag(tmp_path / "bag", (range(5, 15), range(5), range(15, 20)))
    change_metadata(bag, relative_file_paths=["bag/bag_2.mcap", "bag/bag_0.mcap", "bag_1.mcap"])
    check_whole(bag)


@pytest.mark.parametrize(
    "change",
    [
        {"storage_identifier": ""},
        {"storage_identifier": "rosbag_v9"},
        {"version": 99},
        {"compression_format": "", "compression_mode": "FILE"},
        {"compression_format": "zstd", "compression_mode": "MESSAGE"},
        {"topics_with_message_count": []},
        {"topics_with_message_count": None, "files": None},
        {"files": [], "message_count": 3},
        {"relative_file_paths": []},
        {"relative_file_paths": None},
        {"topics_with_message_count": "none"},
    ],
)
def test_metadata_that_says_little_or_nonsense(tmp_path: Path, change: dict[str, Any]) -> None:
    bag = write_split_bag(tmp_path / "bag", HALVES)
    change_metadata(bag, **change)
    check_whole(bag)


@pytest.mark.parametrize(
    "text", ["", "rosbag2_bagfile_information: [", "rosbag2_bagfile_information: {version: 5}", "\xff\xfe", "[1, 2]"]
)
def test_metadata_that_cannot_be_read(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    bag = write_split_bag(tmp_path / "bag", HALVES)
    (bag / "metadata.yaml").write_bytes(text.encode("latin-1"))
    check_whole(bag)
    assert "metadata.yaml cannot be used" in caplog.text


@pytest.mark.parametrize("storage", STORAGES)
def test_a_recording_without_metadata(tmp_path: Path, storage: StoragePlugin, caplog: pytest.LogCaptureFixture) -> None:
    bag = write_split_bag(tmp_path / "bag", [range(index, index + 2) for index in range(0, 24, 2)], storage)
    (bag / "metadata.yaml").unlink()
    check_whole(bag, 24)
    assert "has no metadata.yaml; read as parts of one recording" in caplog.text


def test_a_part_that_is_missing_in_a_recording_without_metadata(tmp_path: Path) -> None:
    bag = write_split_bag(tmp_path / "bag", [range(index, index + 2) for index in range(8)])
    (bag / "metadata.yaml").unlink()
    (bag / "bag_3.mcap").unlink()
    (bag / "bag_5.mcap").unlink()
    with pytest.raises(SourceError, match=r"of its parts 3, 5 is missing"):
        open_source(bag)


def test_several_recordings_in_one_folder(tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copy(write_bag(tmp_path / name, 3) / f"{name}.mcap", tmp_path)
        shutil.rmtree(tmp_path / name)
    with pytest.raises(SourceError, match=r"several recordings; give one of its files: one\.mcap, two\.mcap"):
        open_source(tmp_path)


def test_a_listed_file_that_is_missing(tmp_path: Path) -> None:
    bag = write_split_bag(tmp_path / "bag", HALVES)
    (bag / "bag_1.mcap").unlink()
    with pytest.raises(SourceError, match=r"bag_1\.mcap, listed in metadata\.yaml, is missing.*there: bag_0\.mcap"):
        open_source(bag)
    (bag / "bag_0.mcap").unlink()
    with pytest.raises(SourceError, match=r"no \.mcap or \.db3 file, although metadata\.yaml lists bag_0\.mcap"):
        open_source(bag)


def test_a_part_that_metadata_forgets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bag = write_split_bag(tmp_path / "bag", HALVES)
    change_metadata(bag, relative_file_paths=["bag_0.mcap"])
    shutil.copy(bag / "bag_0.mcap", bag / "copy of bag_0.mcap")
    check_whole(bag)
    assert "does not list bag_1.mcap of the same recording" in caplog.text


@pytest.mark.parametrize("storage", STORAGES)
def test_fewer_messages_than_announced_are_refused(tmp_path: Path, storage: StoragePlugin) -> None:
    bag = write_split_bag(tmp_path / "bag", HALVES, storage)
    information = read_metadata(bag)
    information["topics_with_message_count"][0]["message_count"] = 35
    information["files"][1]["message_count"] = 25
    write_metadata(bag, information)
    error = rf"announces 35 messages on {IMAGE_TOPIC}, but its files hold 20 .*10 of 25"
    with pytest.raises(SourceError, match=error):
        open_source(bag)
    # Message by message, as for the replay, they are read first.
    with Bag(bag) as opened:
        messages = opened.messages([IMAGE_TOPIC])
        assert [next(messages).received_ns for _ in range(20)] == [stamp_ns(index) + DELAY_NS for index in range(20)]
        with pytest.raises(SourceError, match=error):
            next(messages)
    (bag / "metadata.yaml").unlink()
    check_whole(bag)


def test_an_announced_topic_that_no_file_holds(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", 3)
    information = read_metadata(bag)
    information["topics_with_message_count"].append(
        {"topic_metadata": {"name": COMPRESSED_TOPIC, "type": "sensor_msgs/msg/CompressedImage"}, "message_count": 4}
    )
    write_metadata(bag, information)
    with pytest.raises(SourceError, match=rf"announces 4 messages on {COMPRESSED_TOPIC}, but its files hold 0"):
        open_source(bag, COMPRESSED_TOPIC)
    assert len(list(open_source(bag, IMAGE_TOPIC).frames())) == 3


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("mode", [CompressionMode.FILE, CompressionMode.MESSAGE])
def test_compressed_recordings_with_and_without_metadata(
    tmp_path: Path, storage: StoragePlugin, mode: CompressionMode
) -> None:
    bag = write_bag(tmp_path / "bag", 20, storage, compression=mode)
    check_whole(bag)
    (bag / "metadata.yaml").unlink()
    check_whole(bag)
    check_whole(next(bag.iterdir()))


def test_a_compressed_file_that_was_decompressed_beside_or_instead(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", 20, compression=CompressionMode.FILE)
    (bag / "bag.mcap").write_bytes(zstd.decompress((bag / "bag.mcap.zstd").read_bytes()))
    check_whole(bag)
    (bag / "bag.mcap.zstd").unlink()
    check_whole(bag)
    (bag / "metadata.yaml").unlink()
    check_whole(bag)


def test_a_compressed_file_that_is_cut_off(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", 20, compression=CompressionMode.FILE)
    content = (bag / "bag.mcap.zstd").read_bytes()
    (bag / "bag.mcap.zstd").write_bytes(content[: len(content) // 2])
    with pytest.raises(SourceError, match=r"bag\.mcap\.zstd: it cannot be decompressed .*cut off"):
        open_source(bag)


def leave_log(bag: Path, moved: int) -> Path:
    """Leaves the messages after the first `moved` in a log, as a recorder that was killed does."""
    (file,) = bag.glob("*.db3")
    database = sqlite3.connect(file)
    rows = database.execute("SELECT topic_id, timestamp, data FROM messages ORDER BY timestamp").fetchall()
    database.execute("DELETE FROM messages WHERE id > ?", (moved,))
    database.commit()
    database.execute("VACUUM")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA wal_autocheckpoint = 0")
    database.executemany("INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)", rows[moved:])
    database.commit()
    killed = bag.with_name("killed")
    shutil.copytree(bag, killed)
    database.close()
    return killed


@pytest.mark.parametrize("metadata", [True, False])
@pytest.mark.parametrize("moved", [0, 5])
def test_a_log_that_was_not_moved_into_the_database(tmp_path: Path, moved: int, metadata: bool) -> None:
    bag = leave_log(write_bag(tmp_path / "bag", 20, StoragePlugin.SQLITE3), moved)
    if not metadata:
        (bag / "metadata.yaml").unlink()
    before = {entry.name: entry.read_bytes() for entry in bag.iterdir()}
    check_whole(bag)
    check_whole(bag / "bag.db3")
    (tmp_path / "link.db3").symlink_to(bag / "bag.db3")
    check_whole(tmp_path / "link.db3")
    assert {entry.name: entry.read_bytes() for entry in bag.iterdir()} == before


def test_a_log_that_was_left_behind_on_the_robot(tmp_path: Path) -> None:
    bag = leave_log(write_bag(tmp_path / "bag", 20, StoragePlugin.SQLITE3), 5)
    (bag / "bag.db3-wal").unlink()
    with pytest.raises(SourceError, match=rf"announces 20 messages on {IMAGE_TOPIC}, but its files hold 5"):
        open_source(bag)


def test_a_transaction_that_was_not_finished_is_undone(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", 20, StoragePlugin.SQLITE3)
    database = sqlite3.connect(bag / "bag.db3")
    database.execute("PRAGMA cache_size = 1")
    database.execute("DELETE FROM messages WHERE id > 3")
    killed = shutil.copytree(bag, tmp_path / "killed")
    database.close()
    assert (killed / "bag.db3-journal").exists()
    check_whole(killed)


def test_private_copies_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bag = leave_log(write_bag(tmp_path / "bag", 20, StoragePlugin.SQLITE3), 5)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with Bag(bag):
        assert len(list(scratch.rglob("bag.db3"))) == 1
    assert not list(scratch.iterdir())
    shutil.rmtree(scratch)
    with pytest.raises(SourceError, match=r"cannot read .*bag\.db3"):
        Bag(bag)


def test_a_folder_without_files(tmp_path: Path) -> None:
    (tmp_path / "metadata.yaml").write_text("rosbag2_bagfile_information: {}")
    with pytest.raises(SourceError, match=r"is not a bag: it has no \.mcap or \.db3 file"):
        open_source(tmp_path)


def test_a_compressed_message_that_holds_more_than_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bag = write_bag(tmp_path / "bag", 3, compression=CompressionMode.MESSAGE)
    monkeypatch.setattr(storage, "MOST_MESSAGE_BYTES", 100)
    with pytest.raises(SourceError, match="compressed bytes hold more than 100, the most that is taken at once"):
        list(open_source(bag).frames())


def test_a_compressed_file_that_would_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bag = write_bag(tmp_path / "bag", 3, compression=CompressionMode.FILE)
    monkeypatch.setattr(rosbag2_files, "_LEAST_FREE_BYTES", 2**60)
    with pytest.raises(SourceError, match=rf"would have fewer than {2**60} left of \d+; set TMPDIR"):
        open_source(bag)


def test_metadata_that_is_too_large_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bag = write_bag(tmp_path / "bag", 20)
    monkeypatch.setattr(rosbag2_files, "_MOST_METADATA", 100)
    check_whole(bag)
    assert "bytes or more are there, and at most 100 are read" in caplog.text
