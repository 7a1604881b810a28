"""A hub on this machine: a folder served as a model, or a server that says nothing or next to nothing."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

COMMIT = "0123456789" * 4
NAME = "someone/model"
# Names under .invalid resolve nowhere (RFC 2606).
NOWHERE = "http://hub.invalid"


def use_hub(monkeypatch: pytest.MonkeyPatch, cache: Path, endpoint: str) -> None:
    """Makes this process and those that it starts use that cache and that hub."""
    for name, value in (("HF_HUB_CACHE", str(cache)), ("HF_ENDPOINT", endpoint), ("HF_HUB_OFFLINE", "0")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HF_HOME", str(cache.parent))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def cached(cache: Path, name: str = NAME) -> Path:
    """The empty snapshot folder of a model in a cache, as the hub's client makes it."""
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return snapshot


@contextmanager
def silent_hub(feed: bytes = b"") -> Iterator[str]:
    """The address of a server that takes connections and says nothing, or `feed` once a second for ever."""
    ended = threading.Event()
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.1)
    connections: list[socket.socket] = []

    def serve() -> None:
        fed = time.monotonic()
        while not ended.is_set():
            try:
                connections.append(server.accept()[0])
                if feed:
                    connections[-1].sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            except TimeoutError:
                pass
            if feed and time.monotonic() > fed + 1:
                fed = time.monotonic()
                for connection in connections:
                    _send(connection, feed)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    finally:
        ended.set()
        thread.join()
        for connection in (server, *connections):
            connection.close()


def _send(connection: socket.socket, feed: bytes) -> None:
    try:
        connection.sendall(feed)
    except OSError:  # The client has gone.
        return


@contextmanager
def serving_hub(folder: Path, name: str = NAME, on_get: Callable[[str], None] = lambda file: None) -> Iterator[str]:
    """The address of a hub with one model, the files of `folder`; `on_get` is called before a file's bytes are sent."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._reply(b"", head=True)

        def do_GET(self) -> None:
            self._reply(b"")

        def _reply(self, body: bytes, head: bool = False) -> None:
            path = self.path.partition("?")[0]
            status, headers = 200, {}
            if path in (f"/api/models/{name}", f"/api/models/{name}/revision/main"):
                body = json.dumps({"id": name, "sha": COMMIT, "siblings": _siblings(folder)}).encode()
            elif path == f"/api/models/{name}/tree/{COMMIT}":
                body = json.dumps(
                    [
                        {"type": "file", "path": file["rfilename"], "size": file["size"], "oid": "0" * 40}
                        for file in _siblings(folder)
                    ]
                ).encode()
            elif path.startswith(f"/{name}/resolve/") and (file := folder / path.split("/", 5)[5]).is_file():
                body = file.read_bytes()
                headers = {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": COMMIT}
                if not head:
                    on_get(file.name)
            else:
                status, headers = 404, {"X-Error-Code": "RepoNotFound"}
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if not head:
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _siblings(folder: Path) -> list[dict[str, object]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [{"rfilename": str(path.relative_to(folder)), "size": path.stat().st_size} for path in files]
