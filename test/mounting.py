"""Folders that even root cannot write, and disks of a chosen size."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# What mount says of a kernel's EPERM and EACCES, as in a container without the right to mount.
_REFUSALS = ("permission denied", "operation not permitted", "must be superuser")


def mount(*arguments: str) -> None:
    """Mounts something, or skips the test where this process may not; any other failure is the test's."""
    if os.geteuid():
        pytest.skip("only root may mount")
    if shutil.which("mount") is None:
        pytest.skip("there is no mount command")
    english = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, timeout=30, env=english)
    said = done.stderr.strip().partition("\n")[0]
    if done.returncode and any(words in said.lower() for words in _REFUSALS):
        pytest.skip(f"this root may not mount: {said}")
    assert not done.returncode, f"mount {' '.join(arguments)}: {said}"


def unmount(folder: Path) -> None:
    subprocess.run(["umount", str(folder)], check=True, timeout=30)


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """A folder that cannot be written meanwhile. Root ignores the modes of files: there it is mounted read-only."""
    if os.geteuid() == 0:
        mount("-o", "bind,ro", str(folder), str(folder))
    else:
        folder.chmod(0o555)
        for path in folder.iterdir():
            path.chmod(0o444)
    try:
        yield
    finally:
        if os.geteuid() == 0:
            unmount(folder)
        folder.chmod(0o755)
