"""Files that somebody else wrote: whole up to the bound, refused with both numbers beyond it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from fvs_ros.files import read_bounded


@pytest.mark.parametrize("size", [0, 1, 2**20, 2**20 + 1])
def test_a_file_at_the_bound_is_read_whole(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(size))
    assert read_bounded(path, size) == path.read_bytes()


def test_a_byte_more_is_refused_with_both_numbers(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 101)
    with pytest.raises(ValueError, match="101 bytes or more are there, and at most 100 are read"):
        read_bounded(path, 100)


def test_a_file_of_a_terabyte_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    os.truncate(path, 2**40)
    with pytest.raises(ValueError, match=f"{2**40} bytes or more are there, and at most 100 are read"):
        read_bounded(path, 100)


def test_a_device_without_an_end_is_refused_at_the_bound() -> None:
    with pytest.raises(ValueError, match="at most 5000000 are read"):
        read_bounded(Path("/dev/zero"), 5_000_000)


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"lines\n",))
    writer.start()
    assert read_bounded(pipe, 100) == b"lines\n"
    writer.join()
