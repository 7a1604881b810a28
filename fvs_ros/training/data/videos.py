"""Videos with conversations, in the JSON of LLaVA-Video-178K: one list in a file, or one object a line (JSONL)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fvs_ros.training.config import VideoData
from fvs_ros.training.data.episodes import Conversation, TrainingEpisode, TrainingMoment
from fvs_ros.training.data.video_frames import find_video, identity, read_frames
from fvs_ros.training.errors import TrainingError

KEYS = ("id", "data_source", "video", "videos", "conversations")
QUESTIONERS = ("human", "user")
ANSWERERS = ("gpt", "assistant")
PLACEHOLDER = re.compile(r"<(?:image|video)>\n?|\n<(?:image|video)>")


class VideoEpisodes:
    """The conversations of some annotation files, each with its video.

    Raises:
        TrainingError: a file is broken or names a video that is not there; names file and line or index.
    """

    drawn = False

    def __init__(self, data: VideoData) -> None:
        self.min_pixels, self.max_pixels = data.min_pixels, data.max_pixels
        self._data = data
        self._entries = [
            _entry(values, where, Path(data.root).expanduser())
            for file in data.annotations
            for where, values in _read(Path(file).expanduser())
        ]
        if not self._entries:
            raise TrainingError(f"{', '.join(data.annotations)}: no conversation in it")

    def __len__(self) -> int:
        return len(self._entries)

    def length(self, index: int) -> int:
        """See `EpisodeSource.length`: a video's is not known before it is read."""
        return 0

    def episode(self, index: int) -> TrainingEpisode:
        """See `EpisodeSource.episode`."""
        where, video, conversation = self._entries[index]
        sampled = f"{identity(video)} {self._data.fps} {self._data.max_frames}"
        return TrainingEpisode(where, sampled, None, (TrainingMoment(None, (conversation,)),))

    def frames(self, index: int) -> Sequence[np.ndarray]:
        """See `EpisodeSource.frames`."""
        where, video, _ = self._entries[index]
        return read_frames(video, self._data.fps, self._data.max_frames, where)


def _read(file: Path) -> Iterator[tuple[str, Any]]:
    """Each entry with its place, a line of a JSONL file or an index of a list."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if file.suffix == ".jsonl":
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                yield f"{file}:{number}", _parse(line, f"{file}:{number}")
        return
    entries = _parse(text, str(file))
    if not isinstance(entries, list):
        raise TrainingError(f"{file} holds a {type(entries).__name__}; a list is expected (or name it .jsonl)")
    for index, values in enumerate(entries):
        yield f"{file}[{index}]", values


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = where if text.count("\n") == 0 else f"{where}:{error.lineno}"
        raise TrainingError(f"{place} is not valid JSON: {error.msg} at column {error.colno}") from error


def _entry(values: Any, where: str, root: Path) -> tuple[str, Path, Conversation]:
    if not isinstance(values, dict):
        raise TrainingError(f"{where} holds a {type(values).__name__}; an object is expected")
    unknown = [key for key in values if key not in KEYS]
    if unknown:
        raise TrainingError(f"{where}: unknown keys {', '.join(unknown)}; known are {', '.join(KEYS)}")
    name = values.get("video")
    if name is None:
        videos = values.get("videos")
        name = videos[0] if isinstance(videos, list) and len(videos) == 1 else videos
    if not isinstance(name, str) or not name:
        raise TrainingError(f"{where}: video is {name!r}; one path is needed, as video or as the one of videos")
    turns = values.get("conversations")
    if not isinstance(turns, list) or not turns or len(turns) % 2:
        raise TrainingError(f"{where}: conversations must be a list of questions, each with its answer")
    texts = [_text(turn, index, where) for index, turn in enumerate(turns)]
    return where, find_video(root / name, where), Conversation(tuple(zip(texts[::2], texts[1::2], strict=True)))


def _text(turn: Any, index: int, where: str) -> str:
    place = f"{where}: conversations[{index}]"
    if not isinstance(turn, dict) or set(turn) != {"from", "value"} or not isinstance(turn["value"], str):
        raise TrainingError(f"{place} must hold exactly from and value, both texts")
    speakers = ANSWERERS if index % 2 else QUESTIONERS
    if turn["from"] not in speakers:
        raise TrainingError(f"{place} is from {turn['from']!r}; expected {' or '.join(speakers)}, in turns")
    return turn["value"] if index % 2 else PLACEHOLDER.sub("", turn["value"])
