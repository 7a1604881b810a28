"""Network streams, with a real one on this machine, and addresses."""

from __future__ import annotations

import http.server
import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from fvs_ros.sources.bags import SourceError
from fvs_ros.sources.cameras import LiveSource, is_live, without_password
from fvs_ros.sources.frame import Frame

COLORS = (40, 120, 200)


class Camera(http.server.BaseHTTPRequestHandler):
    """An IP camera: Motion JPEG over HTTP, `COLORS` in turn, for a while."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        try:
            for value in itertools.islice(itertools.cycle(COLORS), 60):
                _, data = cv2.imencode(".jpg", np.full((48, 64, 3), value, np.uint8))
                self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n")
                self.wfile.write(f"Content-Length: {len(data)}\r\n\r\n".encode() + data.tobytes() + b"\r\n")
                time.sleep(0.005)
        except OSError:
            return

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Camera) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/stream.mjpg"
        server.shutdown()
        thread.join()


def test_a_network_stream_is_read_until_it_ends(address: str) -> None:
    source = LiveSource(address)
    before = time.time_ns()
    frames: list[Frame] = []
    with pytest.raises(SourceError, match=r"/stream\.mjpg gives no more frames"):
        frames.extend(source.frames())
    source.close()
    stamps = [frame.stamp_ns for frame in frames]
    assert len(frames) > len(COLORS)
    assert stamps == sorted(stamps)
    assert before < stamps[0] <= stamps[-1] <= time.time_ns()
    assert {min(COLORS, key=lambda color: abs(color - frame.image().mean())) for frame in frames} == set(COLORS)


@pytest.mark.parametrize(
    ("text", "live"),
    [
        ("0", True),
        ("/dev/video2", True),
        ("rtsp://host/path", True),
        ("http://host:8080/video", True),
        ("video.mp4", False),
        ("/data/0", False),
        ("C:video.mp4", False),
        ("tcp:video.mp4", False),
        ("RTSP://host/path", True),
        ("", False),
    ],
)
def test_what_is_live(text: str, live: bool) -> None:
    assert is_live(text) is live


def test_a_folder_called_like_a_camera_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "0").mkdir()
    monkeypatch.chdir(tmp_path)
    assert not is_live("0")


def test_passwords_are_not_shown() -> None:
    assert without_password("rtsp://user:secret@host:554/a?b=c") == "rtsp://host:554/a?b=c"
    assert without_password("rtsp://host/a@b") == "rtsp://host/a@b"
    with pytest.raises(SourceError, match=r"^rtsp://127\.0\.0\.1:9/a cannot be opened") as error:
        LiveSource("rtsp://user:secret@127.0.0.1:9/a")
    assert "secret" not in str(error.value)


def test_a_camera_that_is_not_there_is_named() -> None:
    with pytest.raises(SourceError, match="there is no camera /dev/video97; video devices here"):
        LiveSource("97")
