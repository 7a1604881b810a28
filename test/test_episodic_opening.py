"""Opening what another process, another version, another program or a failing disk left: never overwritten."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from episodic_data import LIMIT, MODEL, features, fill, folder_bytes, ids, picture, segment
from mounting import mount, unmount, unwritable

import fvs_ros
from fvs_ros.episodic import folder as folder_module
from fvs_ros.episodic.errors import Problem, StoreError
from fvs_ros.episodic.folder import DATABASE, LOCK
from fvs_ros.episodic.store import EpisodeStore

HOLD = """
import sys
from pathlib import Path
from fvs_ros.episodic.store import EpisodeStore
store = EpisodeStore.open(Path(sys.argv[1]), 2**20)
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A store of 100 segments, closed."""
    with EpisodeStore.open(tmp_path / "store", LIMIT) as store:
        store.append(segment(0, x=1.0), picture(0), features(0.1))
        fill(store, range(1, 100))
    return tmp_path / "store"


def refuse(folder: Path, problem: Problem, *words: str) -> None:
    """Opening must fail with the problem and these words, and change no byte of the database."""
    before = (folder / DATABASE).read_bytes()
    for read_only in (False, True):
        with pytest.raises(StoreError) as refused:
            EpisodeStore.open(folder, LIMIT, read_only=read_only)
        assert refused.value.problem is problem
        assert all(word in str(refused.value) for word in words), str(refused.value)
    assert (folder / DATABASE).read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"mine" * 1000, b"SQLite 2" + bytes(200)], ids=["empty", "text", "other"])
def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / DATABASE).write_bytes(content)
    refuse(tmp_path, Problem.FOREIGN if content else Problem.DAMAGED, DATABASE, "left as it is")


def test_the_database_of_another_application_is_left_alone(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / DATABASE)
    connection.execute("CREATE TABLE segments (mine)")
    connection.close()
    refuse(tmp_path, Problem.FOREIGN, "0x00000000", "0x46565345")


def test_a_store_of_a_newer_version_is_left_alone(made: Path) -> None:
    connection = sqlite3.connect(made / DATABASE)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    refuse(made, Problem.NEWER, "format 2", "reads up to 1")


def test_a_store_that_is_cut_off_is_left_alone(made: Path) -> None:
    whole = (made / DATABASE).read_bytes()
    cuts = random.Random(4)
    for size in [10, 99, 100, 4096, 4097, len(whole) - 1, *(cuts.randrange(1, len(whole)) for _ in range(20))]:
        (made / DATABASE).write_bytes(whole[:size])
        refuse(made, Problem.DAMAGED, f"{size} bytes")


def test_damaged_bytes_anywhere_cost_rows_never_a_wrong_answer(made: Path) -> None:
    whole = (made / DATABASE).read_bytes()
    places, left_out = random.Random(5), 0
    refused: list[Problem] = []
    with EpisodeStore.open(made) as store:
        segments = {stored.id: stored for stored in store.segments()}
    for _ in range(150):
        content = bytearray(whole)
        start = places.randrange(100, len(content))
        length = places.choice([1, 4, 100, 5000])
        content[start : start + length] = places.randbytes(len(content[start : start + length]))
        (made / DATABASE).write_bytes(content)
        try:
            store = EpisodeStore.open(made, read_only=True)
        except StoreError as error:
            refused.append(error.problem)
            continue
        with store:
            for stored in store.segments():
                assert stored == segments[stored.id]
                assert store.keyframe(stored.id) in (picture(stored.id - 1), None)
            store.features(MODEL, [1])
            lost = store.info().damaged
            notices = {notice.problem: notice.message for notice in store.notices()}
            assert (Problem.DAMAGED in notices) == bool(lost)
            left_out += bool(lost)
    assert left_out > 50
    assert set(refused) == {Problem.DAMAGED}
    assert len(refused) < 50


def test_a_damaged_picture_is_reported_and_the_others_are_given(made: Path) -> None:
    content = (made / DATABASE).read_bytes()
    place = content.rindex(picture(50)[:16])
    (made / DATABASE).write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with EpisodeStore.open(made) as store:
        pictures = {one: store.keyframe(one) for one in ids(store)}
        assert pictures == {one: None if one == 51 else picture(one - 1) for one in range(1, 101)}
        (notice,) = store.notices()
        assert notice.problem is Problem.DAMAGED
        assert "keyframes, segment 51: its checksum is wrong" in notice.message
        fill(store, range(200, 202))


def test_a_folder_without_a_store(tmp_path: Path) -> None:
    for create, read_only in ((False, False), (True, True)):
        with pytest.raises(StoreError, match="holds no episode store") as refused:
            EpisodeStore.open(tmp_path / "absent", LIMIT, create=create, read_only=read_only)
        assert refused.value.problem is Problem.MISSING
    assert not (tmp_path / "absent").exists()
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(StoreError, match="file is a file; name a folder for the episode store") as refused:
        EpisodeStore.open(tmp_path / "file", LIMIT)
    assert refused.value.problem is Problem.FOREIGN
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_a_half_made_store_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / f"{DATABASE}.partial").write_bytes(b"SQLite format 3\0 and no more")
    with EpisodeStore.open(tmp_path, LIMIT) as store:
        assert fill(store, range(1)) == [1]
    assert sorted(path.name for path in tmp_path.iterdir()) == [DATABASE, LOCK]


@pytest.fixture
def holder(made: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(made)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(fvs_ros.__file__).parents[1])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    yield process
    process.kill()
    process.communicate(timeout=30)


def test_a_second_process_is_refused_by_name_until_the_first_is_killed(
    made: Path, holder: subprocess.Popen[str]
) -> None:
    for read_only in (False, True):
        with pytest.raises(StoreError, match=rf"is open in process {holder.pid} on {os.uname().nodename}") as refused:
            EpisodeStore.open(made, LIMIT, read_only=read_only)
        assert refused.value.problem is Problem.HELD
    holder.send_signal(signal.SIGKILL)
    holder.wait(timeout=30)
    with EpisodeStore.open(made, LIMIT) as store:
        assert len(ids(store)) == 100
        with pytest.raises(StoreError, match=f"process {os.getpid()} on"):
            EpisodeStore.open(made, LIMIT)
    with EpisodeStore.open(made, LIMIT) as store:
        assert len(ids(store)) == 100


@pytest.mark.parametrize("left", ["closed", "killed"])
def test_a_folder_that_cannot_be_written_is_read(made: Path, left: str) -> None:
    """Root ignores the modes of files: there the folder is mounted read-only."""
    if left == "killed":
        copy = made.with_name("copy")
        with EpisodeStore.open(made) as store:
            fill(store, range(100, 103))
            shutil.copytree(made, copy)
        shutil.rmtree(made)
        copy.rename(made)
        assert (made / f"{DATABASE}-wal").stat().st_size > 0
    before = folder_bytes(made)
    with unwritable(made):
        with pytest.raises(OSError, match=r"Read-only|denied"):
            (made / "new").touch()
        with EpisodeStore.open(made, LIMIT) as store:
            assert [notice.problem for notice in store.notices()] == [Problem.READ_ONLY]
            assert store.keyframe(len(ids(store))) == picture(len(ids(store)) - 1)
            assert len(ids(store)) == (103 if left == "killed" else 100)
            changes: list[Callable[[], object]] = [
                lambda: fill(store, range(200, 201)),
                lambda: store.forget(),
                lambda: store.begin_episode(""),
            ]
            for change in changes:
                with pytest.raises(StoreError) as refused:
                    change()
                assert refused.value.problem is Problem.READ_ONLY
    assert folder_bytes(made) == before


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_lock_that_cannot_be_made(made: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same without mounting: read where that is all that is allowed, an error for anything else."""

    def refuse_to_open(path: Path, *_: object) -> int:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(folder_module.os, "open", refuse_to_open)
    if code == errno.ENOSPC:
        with pytest.raises(OSError, match="No space left"):
            EpisodeStore.open(made, LIMIT)
        return
    with EpisodeStore.open(made, LIMIT) as store:
        assert [notice.problem for notice in store.notices()] == [Problem.READ_ONLY]


def until_it_fails(store: EpisodeStore) -> StoreError:
    for second in range(1000, 2000):
        try:
            store.append(segment(second), picture(second))
        except StoreError as error:
            return error
    raise AssertionError("the disk never was full")


def check_full_disk(folder: Path, make_space: Callable[[], object], problem: Problem) -> None:
    """Fills the store until the disk is full, reads all of it, and goes on once there is space."""
    store = EpisodeStore.open(folder, 64 * LIMIT)
    error = until_it_fails(store)
    assert error.problem is problem
    assert str(folder / DATABASE) in str(error)
    assert [notice.problem for notice in store.notices()] == [problem]
    kept = ids(store)
    assert [store.keyframe(one) for one in kept] == [picture(999 + one) for one in kept]
    make_space()
    assert store.append(segment(3000), picture(3000)).id == kept[-1] + 1
    assert store.notices() == ()
    store.close()
    with EpisodeStore.open(folder, 64 * LIMIT) as store:
        assert ids(store) == [*kept, kept[-1] + 1]
        assert store.info().damaged == 0


def test_a_full_disk_costs_new_segments_only(tmp_path: Path) -> None:
    """On a small disk in RAM, where one may be mounted."""
    mount("-t", "tmpfs", "-o", "size=1m", "none", str(tmp_path))
    try:
        (tmp_path / "ballast").write_bytes(bytes(200_000))
        check_full_disk(tmp_path / "store", (tmp_path / "ballast").unlink, Problem.DISK_FULL)
    finally:
        unmount(tmp_path)


def test_files_that_may_not_grow_cost_new_segments_only(tmp_path: Path) -> None:
    """The same for everyone: a limit on the size of the process's files, which SQLite takes for a failing disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, before[1]))
    try:
        check_full_disk(
            tmp_path / "store", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before), Problem.DISK_FAILS
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_store_is_not_made_on_a_full_disk(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, before[1]))
    try:
        with pytest.raises(StoreError):
            EpisodeStore.open(tmp_path, LIMIT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with EpisodeStore.open(tmp_path, LIMIT) as store:
        assert fill(store, range(1)) == [1]
