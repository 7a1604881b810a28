"""The episode store: segments of everything that a robot saw, bounded in bytes, which outlast the process."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path

import numpy as np

from fvs_ros.episodic.contents import Contents
from fvs_ros.episodic.database import LARGEST_USEFUL_LIMIT_BYTES, Database, pages_for
from fvs_ros.episodic.errors import Notice, Problem, StoreError
from fvs_ros.episodic.folder import DATABASE, SAVED_MEMORY, FolderLock, delete_saved_memory, is_unwritable, make_folder
from fvs_ros.episodic.index import Timeline
from fvs_ros.episodic.information import Information, Opener, Usage, describe, notices_about, usage_of
from fvs_ros.episodic.segment import Appended, Segment, SegmentFeatures, StoredSegment
from fvs_ros.episodic.writer import CURRENT_EPISODE, Writer
from fvs_ros.errors import one_line
from fvs_ros.sources.frame import Area

DEFAULT_LIMIT_BYTES = 256 * 2**20
_REASON_LENGTH = 200


class Resume(Enum):
    """Whether the first segment after an opening continues the last episode."""

    AUTO = "auto"
    """If it begins at or after the end of the last segment."""
    ALWAYS = "always"
    NEVER = "never"


class EpisodeStore:
    """A store that is open. Any thread may call; calls wait for each other, an append for the disk as well.

    Every method raises `StoreError` for what the disk, the file or a closed store does not allow, and leaves the store
    as it was. `open` makes one.
    """

    def __init__(
        self, database: Database, lock: FolderLock | None, opener: Opener, resume: Resume, unwritable: bool
    ) -> None:
        self._database = database
        self._lock = lock
        self._opener = opener
        self._resume = resume
        self._mutex = threading.RLock()
        self._contents = Contents(database)
        self._writer = Writer(database, self._contents)
        self._failure: Notice | None = None
        # The end of the last segment that this process appended; None before the first.
        self._last_end_ns: int | None = None
        with database.errors():
            self._contents.load()
            self._episode = self._writer.current_episode()
            self._notices = notices_about(database, opener, unwritable)
            if not database.read_only:
                self._writer.finish_forgetting()
                self._writer.shrink(self._model())

    @classmethod
    def open(
        cls,
        folder: Path | None,
        limit_bytes: int | None = None,
        *,
        opener: Opener | None = None,
        resume: Resume = Resume.AUTO,
        read_only: bool = False,
        create: bool = True,
    ) -> EpisodeStore:
        """Opens the store in a folder, or makes one; None: in RAM, bounded likewise, gone when it is closed.

        Where the folder cannot be written, an existing store is opened for reading (`notices` tells).

        Args:
            folder: holds the store's files alone, or those of others too; other files are left alone.
            limit_bytes: most bytes of the database and its log; None: the limit it was last opened with. The saved
                Flash Memory, which has one size for ever, is not counted.
            opener: camera, model and map of the one who opens it.
            resume: whether the next segment continues the last episode.
            read_only: write nothing.
            create: make a store where there is none.

        Raises:
            StoreError: there is no store to open, or it must not be touched; see `Problem`.
            ValueError: the limit is too small.
            OSError: the folder cannot be made or read.
        """
        lock: FolderLock | None = None
        unwritable = False
        if folder is not None:
            exists = (folder / DATABASE).exists()
            if not exists and (read_only or not create):
                raise StoreError(Problem.MISSING, f"{folder} holds no episode store ({DATABASE}); check the path")
            make_folder(folder)
            try:
                lock = FolderLock(folder)
            except OSError as error:
                if not (exists and is_unwritable(error)):
                    raise
                read_only = unwritable = True
        if limit_bytes is None and (folder is None or not exists):
            limit_bytes = DEFAULT_LIMIT_BYTES
        try:
            if folder is not None and not exists:
                # Of a database that somebody deleted: what it showed must not come back in a new one.
                delete_saved_memory(folder / SAVED_MEMORY)
            database = Database(folder, limit_bytes, read_only)
            try:
                return cls(database, lock, opener or Opener(), resume, unwritable)
            except BaseException:
                database.close()
                raise
        except BaseException:
            if lock is not None:
                lock.release()
            raise

    def append(self, segment: Segment, keyframe: bytes, features: SegmentFeatures | None = None) -> Appended:
        """Stores a segment of the current episode; it is durable when this returns.

        A segment that begins before the last one ended begins a new episode: the clock was set back.

        Args:
            segment: a closed one.
            keyframe: its JPEG.
            features: what the model makes of it, if that is known already.

        Raises:
            StoreError: it is larger than the limit allows, or the disk is full; the store then takes the next ones.
        """
        sizes = [len(keyframe), *([features.mean.nbytes, features.keys.nbytes] if features else [])]
        if sum(sizes) > self._database.budget.largest_segment:
            raise StoreError(
                Problem.TOO_LARGE,
                f"a segment of {sum(sizes)} bytes; with a limit of {self._database.budget.limit_bytes} the store takes "
                f"{self._database.budget.largest_segment} at most: raise the limit (up to "
                f"{LARGEST_USEFUL_LIMIT_BYTES}, beyond which that stays), or lower max_pixels",
            )
        with self._writing():
            evicted = self._writer.make_room(pages_for(sizes), self._model())
            self._choose_episode(segment)
            stored = StoredSegment(self._contents.last_id() + 1, self._episode, segment)
            self._writer.insert(stored, keyframe)
            if features is not None:
                self._writer.put_features(stored.id, features)
            self._last_end_ns = segment.end_ns
        return Appended(stored.id, stored.episode, tuple(evicted))

    @property
    def current_episode(self) -> int:
        """The episode to which the next segment belongs, unless it begins another; 0 before the first."""
        return self._episode

    @property
    def last_segment(self) -> int:
        """The highest id that was ever given to a segment; 0 before the first."""
        with self._reading():
            return self._contents.last_id()

    @property
    def saved_memory(self) -> Path | None:
        """Where the Flash Memory of the current episode may be saved; None in RAM. `forget` deletes the file."""
        return None if self._database.path is None else self._database.path.with_name(SAVED_MEMORY)

    def require_in_place(self) -> None:
        """Raises `StoreError` where nothing may be written: it is read only, or the folder is not its own any more."""
        with self._reading():
            self._database.require_in_place()

    def begin_episode(self, reason: str) -> int:
        """Begins an episode, to which the next segments belong, and returns its number."""
        with self._writing():
            self._new_episode(reason)
            return self._episode

    def continue_episode(self, number: int) -> None:
        """Lets the next segments belong to an earlier episode, after the next opening too.

        Raises:
            StoreError: nothing of it is kept.
        """
        with self._writing():
            if number != self._episode and self._contents.index.end_of(number) is None:
                raise StoreError(
                    Problem.MISSING, f"{self._database.name} keeps nothing of episode {number}; choose another"
                )
            previous, self._episode = self._episode, number
            self._database.set(CURRENT_EPISODE, number)
            self._writer.delete_empty_episode(previous)
            self._resume, self._last_end_ns = Resume.ALWAYS, None

    def segments(
        self,
        since_ns: int | None = None,
        until_ns: int | None = None,
        episode: int | None = None,
        area: Area | None = None,
    ) -> list[StoredSegment]:
        """The segments that overlap a closed range of stamps, of one episode or all, seen from an area, in their order.

        Where the opener named a map, poses of other maps are left out of them, and lie in no area.
        """
        with self._reading():
            found = self._given(self._contents.index.find(since_ns, until_ns, episode, area))
            return [one for one in found if area is None or area.holds(one.segment.pose)]

    def segments_by_id(self, ids: Sequence[int]) -> list[StoredSegment]:
        """These segments, in their order, as `segments` gives them; without those that are gone."""
        with self._reading():
            return self._given(ids)

    def nearest(self, stamp_ns: int | None) -> StoredSegment | None:
        """The segment that holds a stamp, or else the nearest; of the current episode first. None: the newest."""
        with self._reading():
            return next(iter(self._given(self._contents.index.nearest(stamp_ns, self._episode))), None)

    def timeline(self, episode: int) -> Timeline:
        """When the segments of an episode were, in their order, without a look at the disk."""
        with self._reading():
            return self._contents.index.timeline(episode)

    def keyframe(self, segment: int) -> bytes | None:
        """The JPEG of a segment; None where it is gone or damaged."""
        with self._reading():
            return self._contents.keyframe(segment)

    def features(self, fingerprint: str, ids: Sequence[int]) -> dict[int, SegmentFeatures]:
        """What a model made of these segments, by id; without those of which there is nothing."""
        with self._reading():
            return self._contents.features(fingerprint, ids)

    def keys(self, fingerprint: str, ids: Sequence[int] | None = None) -> dict[int, np.ndarray]:
        """A model's retrieval keys of these segments, or of all, float16, by id."""
        with self._reading():
            return self._contents.keys(fingerprint, self._contents.index.ids.tolist() if ids is None else ids)

    def missing_features(self, fingerprint: str) -> list[int]:
        """The ids of the segments of which a model has made nothing yet, newest first."""
        with self._reading():
            made = (
                "SELECT segment FROM means WHERE model = ? INTERSECT SELECT segment FROM retrieval_keys WHERE model = ?"
            )
            model = self._contents.model(fingerprint)
            known = {row[0] for row in self._database.execute(made, (model, model))}
            known -= {segment for table, segment in self._contents.damaged if table in ("means", "retrieval_keys")}
            return [one for one in reversed(self._contents.index.ids.tolist()) if one not in known]

    def put_features(self, segment: int, features: SegmentFeatures) -> tuple[int, ...]:
        """Keeps what a model made of a segment, and returns the ids of the segments that made room for it.

        A segment that is gone by now is passed over.

        Raises:
            StoreError: as for `append`.
        """
        sizes = [features.mean.nbytes, features.keys.nbytes]
        if sum(sizes) > self._database.budget.largest_segment:
            raise StoreError(
                Problem.TOO_LARGE,
                f"features of {sum(sizes)} bytes; the store takes {self._database.budget.largest_segment} at most",
            )
        with self._writing():
            evicted = self._writer.make_room(pages_for(sizes), self._model())
            if segment in self._contents.index.ids:
                self._writer.put_features(segment, features)
        for table in ("means", "retrieval_keys", "sketches"):
            self._contents.damaged.pop((table, segment), None)
        return tuple(evicted)

    def forget(
        self, since_ns: int | None = None, until_ns: int | None = None, episode: int | None = None
    ) -> tuple[int, ...]:
        """Removes the segments that `segments` gives for the same arguments; without any, all. Returns their ids.

        No byte of their pictures, rows and features is in any file of the store afterwards. Where it is
        interrupted, the next opening finishes it. Takes seconds for hundreds of megabytes. The saved Flash Memory,
        which may show any of them, is deleted first.
        """
        if self.saved_memory is not None and not self._database.read_only:
            self.require_in_place()
            delete_saved_memory(self.saved_memory)
        with self._reading():
            chosen = self._contents.index.find(since_ns, until_ns, episode)
        with self._writing():
            self._database.execute("INSERT OR IGNORE INTO forgetting VALUES (0)")
            for one in chosen:
                self._database.execute("INSERT OR IGNORE INTO forgetting VALUES (?)", (one,))
            if (since_ns, until_ns) == (None, None):
                which = "1" if episode is None else "episode = ?"
                self._database.execute(f"DELETE FROM gaps WHERE {which}", () if episode is None else (episode,))
        with self._reading():
            self._contents.index.remove(chosen)
            self._writer.finish_forgetting()
        return tuple(chosen)

    def info(self) -> Information:
        """What is in the store, and how full it is."""
        with self._reading():
            return describe(self._database, self._contents)

    def usage(self) -> Usage:
        """How full the store is: cheap enough to be asked with every segment."""
        with self._reading():
            return usage_of(self._database, self._contents, self._episode)

    def notices(self) -> tuple[Notice, ...]:
        """Everything that keeps the store from working in full, as of now."""
        with self._reading():
            notices = [*self._notices]
            if self._failure is not None:
                notices.append(self._failure)
            if self._contents.damaged:
                notices.append(Notice(Problem.DAMAGED, self._contents.damage()))
            if self._opener.fingerprint and (
                missing := len(self._contents.index) - self._contents.index.count(self._model())
            ):
                message = f"features of {missing} of {len(self._contents.index)} segments are to be made for this model"
                notices.append(Notice(Problem.ANOTHER_MODEL, message))
            return tuple(notices)

    def close(self) -> None:
        """Closes the store and lets others open it. A second time does nothing."""
        with self._mutex:
            self._database.close()
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    def __enter__(self) -> EpisodeStore:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        with self._mutex, self._database.errors():
            yield

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """A transaction. After a failure, RAM is again as the disk is, and `notices` tells until one succeeds."""
        with self._mutex:
            before = (self._episode, self._resume, self._last_end_ns)
            try:
                with self._database.transaction():
                    yield
            except BaseException as error:
                self._episode, self._resume, self._last_end_ns = before
                if isinstance(error, StoreError) and error.problem is not Problem.CLOSED:
                    self._failure = Notice(error.problem, str(error))
                with contextlib.suppress(sqlite3.Error):
                    self._contents.load()
                raise
            self._failure = None

    def _choose_episode(self, segment: Segment) -> None:
        """Continues the current episode with a segment, or begins one for it."""
        if self._last_end_ns is not None:
            if segment.start_ns < self._last_end_ns:
                self._new_episode("the stamps went back")
            return
        last_end_ns = self._contents.index.end_of(self._episode)
        goes_on = last_end_ns is None or segment.start_ns >= last_end_ns
        if self._episode == 0 or self._resume is Resume.NEVER:
            self._new_episode("start")
        elif self._resume is Resume.AUTO and not goes_on:
            self._new_episode("the stamps went back")
        elif last_end_ns is not None:
            self._database.execute("INSERT INTO gaps VALUES (?, ?, ?)", (self._episode, last_end_ns, segment.start_ns))

    def _new_episode(self, reason: str) -> None:
        previous, self._episode = (
            self._episode,
            self._database.insert("INSERT INTO episodes (reason) VALUES (?)", (one_line(reason, _REASON_LENGTH),)),
        )
        self._database.set(CURRENT_EPISODE, self._episode)
        self._writer.delete_empty_episode(previous)
        self._resume, self._last_end_ns = Resume.ALWAYS, None

    def _model(self) -> int:
        """The store's number of the opener's model; 0 without one."""
        return self._contents.model(self._opener.fingerprint) if self._opener.fingerprint else 0

    def _given(self, ids: Sequence[int]) -> list[StoredSegment]:
        return [self._of_this_map(one) for one in self._contents.segments(ids)]

    def _of_this_map(self, stored: StoredSegment) -> StoredSegment:
        segment = stored.segment
        if self._opener.map_id in (None, segment.map_id) or segment.pose is None:
            return stored
        return dataclasses.replace(stored, segment=dataclasses.replace(segment, pose=None, spread=None))
