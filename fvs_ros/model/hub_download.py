"""The process that downloads a model: `python -m fvs_ros.model.hub_download OWNER/MODEL`.

It writes a JSON object a line for `fvs_ros.model.hub`, which says what they mean, and ends with its standard input.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from pathlib import Path

WANTED = ["*.json", "*.safetensors", "merges.txt"]
NOT_WANTED = ["*/*"]
PICKLES = (".bin", ".pt", ".pth")
# The hub's client does not continue an unfinished file, so few are under way at a time.
FILES_AT_ONCE = 2


def main(name: str) -> int:
    """Downloads what the local cache lacks of a model; returns 0, or 1 after a message that says why not."""
    # Ctrl-C reaches the whole group; this process ends when its parent does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
    from huggingface_hub.utils import filter_repo_objects

    _say(asking=name)
    try:
        listed = HfApi().model_info(name, files_metadata=True).siblings or []
        files = {file.rfilename: file.size or 0 for file in listed}
        wanted = list(filter_repo_objects(files, allow_patterns=WANTED, ignore_patterns=NOT_WANTED))
        if not any(file.endswith(".safetensors") for file in wanted):
            pickles = [file for file in files if file.endswith(PICKLES)]
            return _fail(
                f"{name} has its weights as pickles ({pickles[0]}), which are never read; name one with safetensors"
                if pickles
                else f"{name} has no *.safetensors; name a Qwen2-VL or Flash-VStream checkpoint",
                again=False,
            )
        _say(bytes=sum(files[file] for file in wanted))
        snapshot_download(name, allow_patterns=WANTED, ignore_patterns=NOT_WANTED, max_workers=FILES_AT_ONCE)
    except GatedRepoError:
        return _fail(f"{name} is gated: accept its terms on the hub's page of it, then `hf auth login`", again=False)
    except RepositoryNotFoundError:
        return _fail(
            f"the hub knows no model {name}, or it is private: check the name, or `hf auth login`", again=False
        )
    except Exception as error:
        # Of many kinds: httpx, requests, the hub's own, the disk's.
        reason = str(error).strip().partition("\n")[0]
        return _fail(f"{HfApi().endpoint} cannot be used: {type(error).__name__}: {reason}", again=True)
    _say(finished=name)
    return 0


def _fail(reason: str, *, again: bool) -> int:
    _say(failed=reason, again=again)
    return 1


def _say(**message: object) -> None:
    print(json.dumps(message), flush=True)


def _end_with_parent() -> None:
    """Waits for the end of standard input, then ends this process and deletes the files that it has not finished.

    Their names are this process's own, so that nobody could continue them.
    """
    sys.stdin.buffer.read()
    for descriptor in Path("/proc/self/fd").glob("*"):
        with contextlib.suppress(OSError):
            path = os.readlink(descriptor)
            if path.endswith(".incomplete"):
                os.unlink(path)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
