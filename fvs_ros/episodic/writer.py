"""Changes of a store's rows inside a transaction: making room, deleting, features, and forgetting in steps."""

from __future__ import annotations

from fvs_ros.episodic.contents import Contents
from fvs_ros.episodic.database import Database, pages_for
from fvs_ros.episodic.index import sketch
from fvs_ros.episodic.rows import BLOB_TABLES, Row, array_row, checksum, segment_row
from fvs_ros.episodic.segment import SegmentFeatures, StoredSegment

CURRENT_EPISODE = "current_episode"
"""Setting of a store: the number of the episode that goes on."""


class Writer:
    """Writes rows of a store and keeps the index beside them."""

    def __init__(self, database: Database, contents: Contents) -> None:
        self._database = database
        self._contents = contents

    def insert(self, stored: StoredSegment, keyframe: bytes) -> None:
        """Adds a segment and its keyframe."""
        self._insert("segments", segment_row(stored.id, stored.episode, stored.segment))
        self._insert("keyframes", (stored.id, keyframe, checksum(stored.id, keyframe)))
        self._contents.index.add(stored)

    def put_features(self, segment: int, features: SegmentFeatures) -> None:
        """Adds what a model made of a segment, or replaces it."""
        self._database.execute("INSERT OR IGNORE INTO models (fingerprint) VALUES (?)", (features.fingerprint,))
        model = self._contents.model(features.fingerprint)
        self._insert("means", array_row(segment, model, features.mean))
        self._insert("retrieval_keys", array_row(segment, model, features.keys))
        values = sketch(features.mean)
        data = values.astype("<f2").tobytes()
        self._insert("sketches", (segment, model, data, checksum(segment, model, data)))
        self._contents.index.set_sketch(segment, model, values)

    def _insert(self, table: str, row: Row) -> None:
        self._database.execute(f"INSERT OR REPLACE INTO {table} VALUES ({','.join('?' * len(row))})", row)

    def make_room(self, pages: int, model: int) -> list[int]:
        """Removes what costs least until so many pages are free, and returns the ids of the evicted segments.

        First go features of models other than `model` (0: of none), which can be made anew; then segments, as
        `SegmentIndex.least_lost` chooses. The last one stays.
        """
        evicted: list[int] = []
        while self._database.free_pages() < pages:
            if model and (
                others := self._database.execute("SELECT segment FROM means WHERE model != ? LIMIT 4", (model,))
            ):
                for table in ("means", "retrieval_keys"):
                    self._database.execute(
                        f"DELETE FROM {table} WHERE model != ? AND segment IN (?, ?, ?, ?)",
                        (model, *(row[0] for row in others), *[0] * (4 - len(others))),
                    )
                continue
            victim = self._contents.index.least_lost()
            if victim is None:
                break
            evicted.append(victim)
            self.delete([victim])
            self._contents.index.remove([victim])
        if evicted:
            self._database.set("evicted", self._database.setting("evicted", 0) + len(evicted))
        return evicted

    def delete(self, segments: list[int]) -> None:
        """Deletes the rows of segments, and episodes but the current one of which nothing is left."""
        marks = ",".join("?" * len(segments))
        for table in BLOB_TABLES:
            self._database.execute(f"DELETE FROM {table} WHERE segment IN ({marks})", segments)
        episodes = self._database.execute(f"SELECT DISTINCT episode FROM segments WHERE id IN ({marks})", segments)
        self._database.execute(f"DELETE FROM segments WHERE id IN ({marks})", segments)
        for row in episodes:
            self.delete_empty_episode(row[0])

    def current_episode(self) -> int:
        """The episode that the next segment belongs to: the newest, unless an earlier one was continued."""
        newest = self._database.number("SELECT max(number) FROM episodes")
        return self._database.setting(CURRENT_EPISODE, newest)

    def delete_empty_episode(self, number: int) -> None:
        """Deletes an episode if it has no segments and is not the current one."""
        if number != self.current_episode() and not self._database.execute(
            "SELECT 1 FROM segments WHERE episode = ? LIMIT 1", (number,)
        ):
            self._database.execute("DELETE FROM episodes WHERE number = ?", (number,))
            self._database.execute("DELETE FROM gaps WHERE episode = ?", (number,))

    def finish_forgetting(self) -> None:
        """Deletes what the table `forgetting` lists, in steps; its rows go when no byte is left in the files."""
        listed = [row[0] for row in self._database.execute("SELECT segment FROM forgetting")]
        if not listed:
            return
        remaining = iter(listed)
        at_once = self._database.budget.log_pages // 4
        while (segment := next(remaining, None)) is not None:
            with self._database.transaction():
                enough = self._database.free_pages() + at_once
                self.delete([segment])
                while self._database.free_pages() < enough and (segment := next(remaining, None)) is not None:
                    self.delete([segment])
        with self._database.transaction():
            unused = "number NOT IN (SELECT model FROM means UNION SELECT model FROM retrieval_keys)"
            self._database.execute(f"DELETE FROM models WHERE {unused}")
        self._database.scrub()
        with self._database.transaction():
            self._database.execute("DELETE FROM forgetting")

    def shrink(self, model: int) -> None:
        """Evicts down to a limit that became smaller, and from here on lets SQLite hold it."""
        # Further than that: room for the next segment, made at once, would be more than the log takes.
        wanted = pages_for([]) if self._database.free_pages() < 0 else 0
        while (before := self._database.free_pages()) < wanted:
            with self._database.transaction():
                self.make_room(min(wanted, before + self._database.budget.log_pages // 4), model)
                if self._database.free_pages() == before:
                    break
        if self._database.number("PRAGMA page_count") > self._database.budget.database_pages:
            # SQLite takes no limit below the pages that the file has: the free ones among them would keep the log's
            # share.
            self._database.give_back_pages()
        self._database.limit_pages()
