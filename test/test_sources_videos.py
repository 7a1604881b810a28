"""Video files: their frames and stamps, and which of them are called damaged: those that are, and no others."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from needs import needed
from recordings import PERIOD_NS, START_NS, write_video

from fvs_ros.sources.bags import SourceError
from fvs_ros.sources.cameras import LiveSource
from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.sources.recordings import open_source
from fvs_ros.sources.videos import claimed_bytes


def test_video(tmp_path: Path) -> None:
    source = open_source(write_video(tmp_path / "clip.avi", 20, 20.0), start_ns=START_NS)
    frames = list(source.frames())
    assert [frame.stamp_ns for frame in frames] == [START_NS + i * PERIOD_NS for i in range(20)]
    assert (source.frame_count, source.duration_ns) == (20, 20 * PERIOD_NS)
    # Decoded only now, long after reading went on: each frame has kept its own picture.
    means = [frame.image().mean() for frame in frames]
    np.testing.assert_allclose(means, [10.0 * i for i in range(20)], atol=3.0)
    assert frames[0].image().shape == (48, 64, 3)
    assert frames[0].image().dtype == np.uint8


def test_video_offset_and_duration(tmp_path: Path) -> None:
    source = open_source(write_video(tmp_path / "clip.avi", 20, 20.0))
    frames = list(source.frames(0.25, 0.5))
    assert [frame.stamp_ns for frame in frames] == [i * PERIOD_NS for i in range(5, 15)]
    assert frames[0].image().mean() == pytest.approx(50.0, abs=3.0)


def test_video_in_slow_motion(tmp_path: Path) -> None:
    source = open_source(write_video(tmp_path / "clip.avi", 20, 20.0), fps=5.0)
    frames = list(source.frames(2.0, 1.0))
    assert [frame.stamp_ns for frame in frames] == [i * 200_000_000 for i in range(10, 15)]
    assert source.duration_ns == 4_000_000_000
    assert frames[0].image().mean() == pytest.approx(100.0, abs=3.0)


def test_video_is_rgb(tmp_path: Path) -> None:
    path = tmp_path / "red.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(3):
        writer.write(np.full((48, 64, 3), (0, 0, 255), np.uint8))
    writer.release()
    pixel = next(open_source(path).frames()).image().mean(axis=(0, 1))
    np.testing.assert_allclose(pixel, (255, 0, 0), atol=20)


def write_mp4(path: Path, frames: int = 40, fps: float = 10.0) -> Path:
    """Noise, of which no picture looks like another, as MPEG-4 part 2; the index stands at the end."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (64, 48))
    assert writer.isOpened(), "this OpenCV cannot write MPEG-4"
    random = np.random.default_rng(0)
    for _ in range(frames):
        writer.write(np.kron(random.integers(0, 256, (6, 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8)))
    writer.release()
    return path


def box(data: bytes | bytearray, *names: str) -> tuple[int, int]:
    """Where the content of a box begins and ends, by the names of those around it and its own."""
    begin, end = 0, len(data)
    for name in names:
        at = begin
        while data[at + 4 : at + 8] != name.encode():
            at += struct.unpack_from(">I", data, at)[0]
            assert at < end, f"there is no box {name}"
        begin, end = at + 8, at + struct.unpack_from(">I", data, at)[0]
    return begin, end


def index_first(data: bytes) -> bytes:
    """The same file with its index in front, as `-movflags faststart` writes it."""
    (moov, end), (mdat, _) = box(data, "moov"), box(data, "mdat")
    index = bytearray(data[moov - 8 : end])
    table = index.find(b"stco")
    for entry in range(struct.unpack_from(">I", index, table + 8)[0]):
        at = table + 12 + 4 * entry
        struct.pack_into(">I", index, at, struct.unpack_from(">I", index, at)[0] + len(index))
    return data[: mdat - 8] + bytes(index) + data[mdat - 8 : moov - 8] + data[end:]


def read_all(path: Path) -> list[float]:
    """Stamps in seconds of all frames; raises what reading raises."""
    return [frame.stamp_ns / SECOND_NS for frame in open_source(path).frames()]


def stamps_and_error(path: Path) -> tuple[list[float], str]:
    stamps = []
    frames = open_source(path).frames()
    while True:
        try:
            stamps.append(next(frames).stamp_ns / SECOND_NS)
        except StopIteration:
            return stamps, ""
        except SourceError as error:
            return stamps, str(error)


@pytest.mark.parametrize("fps", [1 / 30, 0.5, 1.0, 240.0])
@pytest.mark.parametrize("frames", [1, 6])
def test_every_rate_is_whole(tmp_path: Path, fps: float, frames: int) -> None:
    # The container rounds a rate of 1/30 to 0.033.
    path = write_mp4(tmp_path / "x.mp4", frames, fps)
    np.testing.assert_allclose(read_all(path), np.arange(frames) / fps, rtol=0.02, atol=1e-3)


def test_a_long_last_picture_is_whole(tmp_path: Path) -> None:
    """The last of 40 pictures stays for a minute: the duration says nothing about where the pictures end."""
    data = bytearray(write_mp4(tmp_path / "x.mp4").read_bytes())
    begin, end = box(data, "moov", "trak", "mdia", "minf", "stbl", "stts")
    scale = struct.unpack_from(">I", data, box(data, "moov", "trak", "mdia", "mdhd")[0] + 12)[0]
    table = struct.pack(">6I", 0, 2, 39, scale // 10, 1, scale * 60)
    entry = struct.pack(">I4s", 8 + len(table), b"stts") + table
    for depth in range(1, 6):
        at = box(data, *("moov", "trak", "mdia", "minf", "stbl")[:depth])[0] - 8
        struct.pack_into(">I", data, at, struct.unpack_from(">I", data, at)[0] + len(entry) - (end - begin + 8))
    for place, unit in (
        (("moov", "trak", "mdia", "mdhd"), scale),
        (("moov", "mvhd"), struct.unpack_from(">I", data, box(data, "moov", "mvhd")[0] + 12)[0]),
    ):
        struct.pack_into(">I", data, box(data, *place)[0] + 16, round(unit * 63.9))
    data[begin - 8 : end] = entry
    (tmp_path / "long.mp4").write_bytes(data)
    np.testing.assert_allclose(read_all(tmp_path / "long.mp4"), np.arange(40) / 10, atol=1e-3)


def write_with_sound(path: Path, stamps_s: Sequence[float], sound_s: float) -> Path:
    """Pictures at those times beside sound of that length."""
    av: Any = needed("av", "needs PyAV: pip install 'fvs_ros[eval]'")
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        sound = container.add_stream("mp3" if path.suffix != ".mov" else "aac", rate=16000)
        silence = np.zeros((1, 1600), np.float32)
        pictures = list(enumerate(stamps_s))
        for tick in range(round(max(sound_s, stamps_s[-1]) * 10) + 1):
            while pictures and pictures[0][1] < (tick + 0.5) / 10:
                index, stamp_s = pictures.pop(0)
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 4 * index, np.uint8), "rgb24")
                frame.pts, frame.time_base = round(stamp_s * 1000), Fraction(1, 1000)
                container.mux(video.encode(frame))
            if tick < sound_s * 10:
                frame = av.AudioFrame.from_ndarray(silence, "fltp", "mono")
                frame.sample_rate, frame.pts, frame.time_base = 16000, 1600 * tick, Fraction(1, 16000)
                container.mux(sound.encode(frame))
        container.mux(video.encode())
        container.mux(sound.encode())
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".mov"])
def test_sound_that_outlasts_the_pictures(tmp_path: Path, suffix: str) -> None:
    path = write_with_sound(tmp_path / f"x{suffix}", [index / 10 for index in range(20)], sound_s=30.0)
    # An AVI file begins with the 72 ms that MP3 takes to start.
    np.testing.assert_allclose(read_all(path), np.arange(20) / 10, atol=0.08 if suffix == ".avi" else 0.01)


def test_minutes_of_sound_between_two_pictures(tmp_path: Path) -> None:
    stamps = [0.0, 0.1, 300.0, 300.1]
    path = write_with_sound(tmp_path / "x.mkv", stamps, sound_s=310.0)
    np.testing.assert_allclose(read_all(path), stamps, atol=0.01)


@pytest.mark.parametrize("kept", [0.67, 0.98])
def test_a_truncated_mp4_gives_its_frames_and_then_says_so(tmp_path: Path, kept: float) -> None:
    data = index_first(write_mp4(tmp_path / "x.mp4").read_bytes())
    path = tmp_path / "cut.mp4"
    path.write_bytes(data)
    assert stamps_and_error(path)[1] == ""
    path.write_bytes(data[: round(len(data) * kept)])
    stamps, error = stamps_and_error(path)
    assert 0.5 * kept * 40 < len(stamps) <= 40
    np.testing.assert_allclose(stamps, np.arange(len(stamps)) / 10, atol=1e-3)
    assert f"after {round(len(data) * kept)} of {len(data)} bytes: the file is truncated" in error


def test_a_truncated_matroska_file(tmp_path: Path) -> None:
    path = write_with_sound(tmp_path / "x.mkv", [index / 10 for index in range(60)], sound_s=6.0)
    data = path.read_bytes()
    assert claimed_bytes(path) == len(data)
    assert stamps_and_error(path)[1] == ""
    path.write_bytes(data[: len(data) // 2])
    stamps, error = stamps_and_error(path)
    assert 10 < len(stamps) < 60
    assert f"after {len(data) // 2} of {len(data)} bytes: the file is truncated" in error


def test_a_truncated_avi_file(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi", 100, 20.0)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    stamps, error = stamps_and_error(path)
    assert 20 < len(stamps) < 90
    np.testing.assert_allclose(stamps, np.arange(len(stamps)) / 20, atol=1e-3)
    assert "the file is truncated" in error


def test_frames_behind_damage_are_read_too(tmp_path: Path) -> None:
    data = bytearray(index_first(write_mp4(tmp_path / "x.mp4").read_bytes()))
    noise = np.random.default_rng(1).bytes(len(data) // 4)
    middle = len(data) // 2
    data[middle : middle + len(noise)] = noise
    path = tmp_path / "noise.mp4"
    path.write_bytes(data)
    stamps, error = stamps_and_error(path)
    assert 25 <= len(stamps) < 40
    assert stamps[-1] == pytest.approx(3.9, abs=0.01)
    assert f"{40 - len(stamps)} of its pictures cannot be decoded, the first after " in error


@pytest.mark.parametrize(
    ("content", "end"),
    [
        (b"", 0),
        (b"GIF89a" + b"x" * 20, 0),
        (b"RIFF" + struct.pack("<I", 92) + b"AVI " + b"x" * 20, 100),
        (b"RIFF" + struct.pack("<I", 0xFFFFFFFF) + b"AVI ", 0),
        (b"RIFF" + struct.pack("<I", 12) + b"AVI " + b"x" * 8 + b"RIFF" + struct.pack("<I", 80) + b"AVIX", 108),
        (struct.pack(">I", 16) + b"ftypisom1234" + struct.pack(">I4sQ", 1, b"mdat", 2**33), 2**33 + 16),
        (struct.pack(">I", 16) + b"ftypisom1234" + struct.pack(">I4s", 0, b"mdat"), 16),
        (struct.pack(">I", 16) + b"ftypisom1234" + b"\0" * 100, 16),
        (struct.pack(">I", 16) + b"ftypisom1234" + b"rubbish behind", 16),
        (b"\x1a\x45\xdf\xa3\x81x\x18\x53\x80\x67\x40\x64", 112),
        (b"\x1a\x45\xdf\xa3\x81x\x18\x53\x80\x67\x01" + b"\xff" * 7, 0),
    ],
)
def test_what_a_container_claims(tmp_path: Path, content: bytes, end: int) -> None:
    (tmp_path / "x").write_bytes(content)
    assert claimed_bytes(tmp_path / "x") == end


@pytest.mark.parametrize("name", ["12:30.mp4", "file:x.mp4", "concat:x.mp4", "robot:1/x.mp4", "50%.mp4", "%03d.mp4"])
def test_a_name_with_a_colon_or_percent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    write_mp4(tmp_path / "made.mp4", 5).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for path in (Path(name), tmp_path / name):
        assert len(read_all(path)) == 5


class HugeCapture:
    """A decoder of a video whose header claims pictures of 5 GB."""

    released = False

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return True

    def get(self, what: int) -> float:
        return {cv2.CAP_PROP_FRAME_WIDTH: 50_000.0, cv2.CAP_PROP_FRAME_HEIGHT: 40_000.0}.get(what, 1.0)

    def release(self) -> None:
        self.released = True


def test_pictures_that_are_too_large_are_refused_before_one_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture = HugeCapture()
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: capture)
    (tmp_path / "x.mp4").touch()
    with pytest.raises(SourceError, match="pictures of 50000 x 40000 pixels; at most 67108864 are taken"):
        open_source(tmp_path / "x.mp4")
    assert capture.released
    with pytest.raises(SourceError, match="rtsp://x/y has pictures of 50000 x 40000 pixels"):
        LiveSource("rtsp://x/y")
