"""Checkpoints from the Hugging Face Hub: the local cache first and whole, the network only for what is missing.

Downloads run in a process of their own, `python -m fvs_ros.model.hub_download`. The hub's client retries and waits for
minutes on threads that cannot be interrupted; a process can be ended at once, whatever the server does.
"""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.file_download import repo_folder_name

from fvs_ros.model.checkpoint_errors import CheckpointError, HubError

# From a whole download's first question to the hub to its first answer.
ANSWER_S = 7.0
# Importing the hub's client takes 1 s, or many on a machine that is starting up.
START_S = 60.0
# Longest pause in a download that has begun.
STALL_S = 60.0
REPORT_S = 1.0
# How long an ended download may take to delete its partial files.
CLEAN_UP_S = 2.0

Progress = Callable[[str], None]
"""Called with one line about what is being done now."""


def cached_snapshot(name: str) -> Path | None:
    """The folder of the hub's local cache that holds `name`, whole or not; None where it has no config.json."""
    found = try_to_load_from_cache(name, "config.json")
    return Path(found).parent if isinstance(found, str) else None


def download(name: str, missing: str, on_progress: Progress) -> None:
    """Downloads what the cache lacks of a model.

    Args:
        name: OWNER/MODEL.
        missing: what is missing, for the message where it cannot be had.
        on_progress: called about once a second.

    Raises:
        HubError: the hub does not answer within `ANSWER_S`, or stops in between; another try may succeed.
        CheckpointError: there is no such model, it has no safetensors, or the disk is too small.
    """
    lacks = f"{name} is not whole in the cache {constants.HF_HUB_CACHE}, which lacks {missing}"
    if constants.HF_HUB_OFFLINE:
        raise CheckpointError(f"{lacks}; HF_HUB_OFFLINE forbids to download it, so unset it or set model to a folder")
    on_progress(f"asking {constants.ENDPOINT} for {name}")
    with _child(name) as messages:
        try:
            blobs = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model") / "blobs"
            _follow(messages, blobs, on_progress)
        except HubError as error:
            raise HubError(
                f"{lacks}; {error}. Check the network, or copy a whole folder here and set model to it"
            ) from error


def _follow(messages: queue.Queue[dict[str, Any]], blobs: Path, on_progress: Progress) -> None:
    """Returns at the download's end, and raises where it fails, is silent or stalls."""
    total = 0
    limit_s, since, done = START_S, time.monotonic(), 0
    while True:
        try:
            message = messages.get(timeout=REPORT_S)
        except queue.Empty:
            message = {}
        if "failed" in message:
            raise (HubError if message["again"] else CheckpointError)(message["failed"])
        if "finished" in message:
            return
        if "asking" in message:
            limit_s, since = ANSWER_S, time.monotonic()
        if "bytes" in message:
            total, limit_s, since = message["bytes"], STALL_S, time.monotonic()
            _check_room(blobs, total)
        if total:
            before, done = done, min(total, _size(blobs))
            since = time.monotonic() if done > before else since
            on_progress(f"downloading: {done / 1e9:.2f} of {total / 1e9:.2f} GB")
        if time.monotonic() - since > limit_s:
            what = f"stopped at {done / 1e9:.2f} of {total / 1e9:.2f} GB" if total else "does not answer"
            raise HubError(f"{constants.ENDPOINT} {what} for {limit_s:.0f} s")


@contextmanager
def _child(name: str) -> Iterator[queue.Queue[dict[str, Any]]]:
    """A download's process and its messages; it ends with the block, or with this process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fvs_ros.model.hub_download", name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    messages: queue.Queue[dict[str, Any]] = queue.Queue()
    lines = process.stdout

    def read() -> None:
        for line in lines:
            messages.put(json.loads(line))
        messages.put({"failed": f"the download ended with status {process.wait()}", "again": True})

    reader = threading.Thread(target=read, name="fvs-download", daemon=True)
    reader.start()
    try:
        yield messages
    finally:
        process.stdin.close()
        try:
            process.wait(CLEAN_UP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join()
        process.stdout.close()


def _size(blobs: Path) -> int:
    """Bytes of the model on this disk, unfinished files included."""
    total = 0
    for path in blobs.glob("*"):
        with suppress(OSError):  # An unfinished file has just been renamed.
            total += path.stat().st_size
    return total


def _check_room(blobs: Path, total: int) -> None:
    folder = next(parent for parent in blobs.parents if parent.is_dir())
    needed, free = total - _size(blobs), shutil.disk_usage(folder).free
    if needed > free:
        raise CheckpointError(
            f"{needed / 1e9:.1f} GB are to be downloaded to {folder}, which has {free / 1e9:.1f} GB free; make room, "
            "or set HF_HOME to another disk"
        )
