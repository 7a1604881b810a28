"""The node and its episode store over DDS: where it lies, who may open it, and what is said where it cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import require_ros
from mounting import unwritable
from node_harness import PATIENCE_S, Client, write_talkative_checkpoint
from store_nodes import node_on, wait_for_episodes

require_ros()
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.logging import get_logger

from fvs_ros.episodic.errors import StoreError
from fvs_ros.episodic.store import EpisodeStore
from fvs_ros.nodes.episode_store import map_id_of, open_episode_store
from fvs_ros.nodes.parameters import NodeSettings
from fvs_ros.ros_tools.client import RefusedError
from fvs_ros.stream.types import ErrorCode


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_talkative_checkpoint(folder)
    return folder


def wait_for_status(client: Client, part: str, level: bytes, text: str) -> None:
    def said() -> bool:
        status = client.status(part)
        return status.level == level and text in status.message

    client.wait_for(said, f"{part}: {text!r}")


def is_free(folder: Path) -> bool:
    """Whether nobody holds the store; raises where it is damaged."""
    with EpisodeStore.open(folder, create=False) as store:
        return store.info().damaged == 0


def test_a_home_folder_and_a_name_that_looks_like_a_number_are_folders(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with node_on(model, "~/2026") as (process, client):
        client.wait_until_active(PATIENCE_S)
        process.wait_for_log(f"Opened the episode store in {tmp_path}/2026: 0 segments")
        client.wait_diagnostic("episodes", "store", f"{tmp_path}/2026")
        # Each image differs from the last one, so that every step ends a segment.
        client.feed(*range(100, 112))
        wait_for_episodes(client, segments=2)
        assert client.diagnostic("episodes")["problem"] == ""
    assert is_free(tmp_path / "2026")


def test_without_a_folder_the_store_is_in_ram(model: Path) -> None:
    with node_on(model, None) as (_, client):
        client.wait_until_active(PATIENCE_S)
        client.feed(*range(100, 112))
        wait_for_episodes(client, segments=2)
        client.wait_diagnostic("episodes", "store", "in RAM")


def test_a_store_that_is_held_is_refused_by_its_holders_name(model: Path, tmp_path: Path) -> None:
    """And taken once it is free."""
    with node_on(model, tmp_path) as (holder, first):
        first.wait_until_active(PATIENCE_S)
        with node_on(model, tmp_path) as (process, second):
            reason = f"{tmp_path} is open in process {holder.pid} on "
            wait_for_status(second, "stream", DiagnosticStatus.ERROR, f"unconfigured: {reason}")
            refusal = second.refusal()
            assert refusal.code == ErrorCode.NOT_ACTIVE
            assert reason in str(refusal)
            assert "end that, or choose another folder" in process.log
            first.feed(*range(100, 112))
            assert holder.stop() == 0
            assert second.change_state("configure")
            assert second.change_state("activate")
            wait_for_status(second, "stream", DiagnosticStatus.OK, "receiving")


def test_a_file_that_is_no_store_is_named_and_left_alone(model: Path, tmp_path: Path) -> None:
    """Until somebody has moved it away."""
    database = tmp_path / "episodes.sqlite"
    newer = b"SQLite format 3\0".ljust(60, b"\0") + (99).to_bytes(4, "big") + bytes(4) + b"FVSE" + bytes(100)
    database.write_bytes(b"not a database")
    with node_on(model, tmp_path) as (process, client):
        for content, reason in (
            (b"not a database", "is not a SQLite database; it is left as it is"),
            (b"SQLite format 3\0", "is cut off: it has 16 bytes"),
            (newer, "has format 99, and this version reads up to 1; update the package"),
        ):
            if database.read_bytes() != content:
                database.write_bytes(content)
                assert not client.change_state("configure")
            wait_for_status(client, "stream", DiagnosticStatus.ERROR, reason)
            assert client.state == "unconfigured"
            assert reason in str(client.refusal())
            assert "configure, then activate" in str(client.refusal())
            assert database.read_bytes() == content
        assert "again in" not in process.log, "another try would fail as well"
        database.unlink()
        assert client.change_state("configure")
    assert is_free(tmp_path)


def test_a_folder_that_cannot_be_made_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = NodeSettings(memory_dir=str(tmp_path / "file" / "store"))
    with pytest.raises(StoreError, match=rf"in {tmp_path}/file/store: Not a directory; set memory_dir to a folder"):
        open_episode_store(settings, "/image", "weights", "", get_logger("tested"))


def test_a_folder_that_can_only_be_read_answers_and_keeps_nothing_new(model: Path, tmp_path: Path) -> None:
    with node_on(model, tmp_path) as (_, client):
        client.wait_until_active(PATIENCE_S)
        client.feed(*range(100, 112))
        client.save_memory()
    with unwritable(tmp_path), node_on(model, tmp_path) as (process, client):
        client.wait_until_active(PATIENCE_S)
        memory = client.wait_for_memory(lambda memory: memory.steps > 0)
        assert client.ask_anything().memory_end == memory.end
        wait_for_status(client, "episodes", DiagnosticStatus.WARN, "make its folder writable")
        client.wait_diagnostic("episodes", "store", f"{tmp_path} (read only)")
        stored = client.next_statistics().segments
        client.feed(*range(120, 130))
        wait_for_episodes(client, unrecorded_steps=1)
        wait_for_status(client, "episodes", DiagnosticStatus.WARN, "reading only")
        assert client.next_statistics().segments == stored
        with pytest.raises(RefusedError, match="reading only"):
            client.forget(everything=True)
        assert process.stop() == 0


def test_cycles_of_configure_and_cleanup_leave_no_lock_and_no_thread(model: Path, tmp_path: Path) -> None:
    with node_on(model, tmp_path, autostart="false") as (process, client):
        threads = []
        for cycle in range(3):
            assert client.change_state("configure")
            assert client.change_state("activate")
            client.feed(*range(100 + 20 * cycle, 108 + 20 * cycle))
            assert client.change_state("deactivate")
            assert client.change_state("cleanup")
            assert is_free(tmp_path)
            threads.append(sorted(process.threads))
        assert threads[1] == threads[2]
        assert client.change_state("configure")
        assert client.change_state("shutdown")
        assert is_free(tmp_path)
    with EpisodeStore.open(tmp_path) as store:
        assert store.info().segments >= 6


def test_odometry_has_a_map_of_its_own_in_each_run_unless_one_is_named() -> None:
    assert map_id_of(NodeSettings()) == map_id_of(NodeSettings(pose_source="tf")) == ""
    first, second = (map_id_of(NodeSettings(pose_source="odometry")) for _ in range(2))
    assert first != second
    assert map_id_of(NodeSettings(pose_source="odometry", map_id="lab")) == "lab"
