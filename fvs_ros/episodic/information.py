"""What is in a store, and what of it does not suit the one who opens it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from fvs_ros.episodic.contents import Contents
from fvs_ros.episodic.database import Database
from fvs_ros.episodic.errors import Notice, Problem
from fvs_ros.episodic.folder import SAVED_MEMORY


@dataclass(frozen=True)
class Opener:
    """What the one who opens a store works with; None or 0 for what it does not know.

    Attributes:
        camera: whose pictures it will append.
        width, height: of those pictures.
        fingerprint: of its model. Features of other models are the first to go when the store is full.
        map_id: its map. Poses of others are not given to it; None: all are given.
    """

    camera: str | None = None
    width: int = 0
    height: int = 0
    fingerprint: str | None = None
    map_id: str | None = None


@dataclass(frozen=True)
class Gap:
    """A time in an episode in which no process filled the store: from the last end to the next start."""

    start_ns: int
    end_ns: int


@dataclass(frozen=True)
class EpisodeInformation:
    """One episode: why it began, the stamps of its first and last segment (None: none is kept), and its gaps."""

    number: int
    reason: str
    segments: int
    start_ns: int | None
    end_ns: int | None
    gaps: tuple[Gap, ...]


@dataclass(frozen=True)
class Usage:
    """How full a store is; see `Information`. Of the current episode it keeps `episode_segments`."""

    segments: int
    file_bytes: int
    limit_bytes: int
    evicted: int
    episode_segments: int


@dataclass(frozen=True)
class Information:
    """A store as a whole.

    Attributes:
        path: of the database; None in RAM.
        limit_bytes, file_bytes: most bytes of the database with its log, and bytes now.
        segments: how many are kept.
        saved_memory_bytes: of the Flash Memory that is saved beside the database, which no limit counts; 0 without one.
        evicted: how many went to make room since the store was made.
        damaged: rows that were met and left out since it was opened.
        episodes: in their order.
        models: segments with retrieval keys by the model's fingerprint.
    """

    path: Path | None
    limit_bytes: int
    file_bytes: int
    saved_memory_bytes: int
    segments: int
    evicted: int
    damaged: int
    episodes: tuple[EpisodeInformation, ...]
    models: dict[str, int]


def usage_of(database: Database, contents: Contents, episode: int) -> Usage:
    """How full a store is whose current episode this is."""
    return Usage(
        segments=len(contents.index),
        file_bytes=database.file_bytes(),
        limit_bytes=database.budget.limit_bytes,
        evicted=database.setting("evicted", 0),
        episode_segments=contents.index.count_of(episode),
    )


def describe(database: Database, contents: Contents) -> Information:
    """Reads what there is to say about a store."""
    gaps: dict[int, list[Gap]] = defaultdict(list)
    for episode, start_ns, end_ns in contents.readable(
        "gaps", "SELECT episode, start_ns, end_ns FROM gaps ORDER BY rowid"
    ):
        gaps[episode].append(Gap(start_ns, end_ns))
    spans = contents.index.spans()
    episodes = []
    for number, reason in contents.readable("episodes", "SELECT number, reason FROM episodes ORDER BY number"):
        segments, start_ns, end_ns = spans.get(number, (0, None, None))
        episodes.append(EpisodeInformation(number, reason, segments, start_ns, end_ns, tuple(gaps[number])))
    models = contents.readable(
        "models",
        "SELECT fingerprint, (SELECT count(*) FROM retrieval_keys WHERE model = number) FROM models ORDER BY number",
    )
    saved = None if database.path is None else database.path.with_name(SAVED_MEMORY)
    return Information(
        path=database.path,
        limit_bytes=database.budget.limit_bytes,
        file_bytes=database.file_bytes(),
        saved_memory_bytes=saved.stat().st_size if saved is not None and saved.exists() else 0,
        segments=len(contents.index),
        evicted=database.setting("evicted", 0),
        damaged=len(contents.damaged),
        episodes=tuple(episodes),
        models={row[0]: row[1] for row in models},
    )


def notices_about(database: Database, opener: Opener, unwritable: bool) -> tuple[Notice, ...]:
    """How a store differs from what its opener works with, but for the model, and whether it can be written at all."""
    notices = []
    if unwritable:
        message = f"{database.name} is open for reading only: nothing new is kept; make its folder writable"
        notices.append(Notice(Problem.READ_ONLY, message))
    kinds = database.execute("SELECT DISTINCT camera, width, height FROM segments ORDER BY 1, 2, 3")
    others = sorted({camera for camera, _, _ in kinds if camera != opener.camera})
    if opener.camera is not None and others:
        message = f"{database.name} holds segments of {', '.join(map(str, others))} beside those of {opener.camera}"
        notices.append(Notice(Problem.ANOTHER_CAMERA, f"{message}; each segment names its camera"))
    size = (opener.width, opener.height)
    sizes = [f"{kind[1]} x {kind[2]}" for kind in kinds if kind[0] == opener.camera and tuple(kind[1:]) != size]
    if all(size) and sizes:
        message = f"{database.name} holds pictures of {', '.join(sizes)} pixels, and now come {size[0]} x {size[1]}"
        notices.append(Notice(Problem.ANOTHER_PICTURE_SIZE, f"{message}; each segment says its size"))
    return tuple(notices)
