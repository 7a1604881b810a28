"""Reads the rows of a store. A damaged one is reported and left out, whatever is wrong with it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np

from fvs_ros.episodic.database import Database
from fvs_ros.episodic.index import SKETCH_SIZE, SegmentIndex
from fvs_ros.episodic.rows import ARRAY_COLUMNS, SEGMENT_COLUMNS, Row, RowDamageError, read_array, read_segment, verify
from fvs_ros.episodic.segment import SegmentFeatures, StoredSegment

_ROWS_AT_ONCE = 500
# Where the list of segments is itself damaged, each id is tried: so many of the newest, at 5 microseconds each.
_MOST_TRIED = 1_000_000


class Contents:
    """The rows of a store's database.

    Attributes:
        index: of all sound segments, but for those that are being forgotten.
        damaged: what is wrong with each damaged row that was met, by table and segment.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.index = SegmentIndex()
        self.damaged: dict[tuple[str, int], str] = {}

    def load(self) -> None:
        """Makes the index anew from the rows."""
        self.index = index = SegmentIndex()
        hidden = {row[0] for row in self._database.execute("SELECT segment FROM forgetting")}
        for stored in self.segments(one for one in self._all_ids() if one not in hidden):
            index.add(stored)
        for row in self._rows("sketches", "segment, model, data, checksum", index.ids.tolist()):
            if self._verified("sketches", row) and len(row[2]) == 2 * SKETCH_SIZE:
                index.set_sketch(row[0], row[1], np.frombuffer(row[2], "<f2"))

    def _all_ids(self) -> Iterable[int]:
        try:
            return [row[0] for row in self._database.execute("SELECT id FROM segments ORDER BY id")]
        except sqlite3.DatabaseError:
            last = self.last_id()
            return range(max(1, last - _MOST_TRIED), last + 1)

    def last_id(self) -> int:
        """The highest id ever given to a segment; 0 before the first."""
        return self._database.number("SELECT seq FROM sqlite_sequence WHERE name = 'segments'")

    def segments(self, ids: Iterable[int]) -> Iterator[StoredSegment]:
        """The sound ones of these segments, in their order."""
        for row in self._rows("segments", SEGMENT_COLUMNS, ids):
            try:
                yield read_segment(row)
            except (RowDamageError, ValueError, TypeError) as damage:
                self._report("segments", row[0], str(damage))

    def keyframe(self, segment: int) -> bytes | None:
        """The JPEG of a segment; None where there is none or it is damaged."""
        for row in self._rows("keyframes", "segment, jpeg, checksum", [segment]):
            if self._verified("keyframes", row):
                return row[1]
        return None

    def features(self, fingerprint: str, ids: Sequence[int]) -> dict[int, SegmentFeatures]:
        """What a model made of these segments; those of which it made nothing, or that are damaged, are left out."""
        keys = self.keys(fingerprint, ids)
        means = self._arrays("means", self.model(fingerprint), ids)
        return {one: SegmentFeatures(fingerprint, mean, keys[one]) for one, mean in means if one in keys}

    def keys(self, fingerprint: str, ids: Iterable[int]) -> dict[int, np.ndarray]:
        """The retrieval keys alone, float16, which is far less to read than all features."""
        return dict(self._arrays("retrieval_keys", self.model(fingerprint), ids))

    def model(self, fingerprint: str) -> int:
        """The store's number of a model; 0 for an unknown one."""
        return self._database.number("SELECT number FROM models WHERE fingerprint = ?", (fingerprint,))

    def _arrays(self, table: str, model: int, ids: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
        for row in self._rows(table, ARRAY_COLUMNS, ids, f"model = {model}"):
            try:
                yield row[0], read_array(row)
            except (RowDamageError, ValueError, TypeError) as damage:
                self._report(table, row[0], str(damage))

    def _rows(self, table: str, columns: str, ids: Iterable[int], condition: str = "1") -> Iterator[Row]:
        """The rows of these segments, in the order of `ids`; where a page is damaged, those beside it all the same."""
        key = columns.split(",", 1)[0]
        select = f"SELECT {columns} FROM {table} WHERE {condition} AND {key} IN "
        remaining = iter(ids)
        while some := list(islice(remaining, _ROWS_AT_ONCE)):
            try:
                rows = self._database.execute(f"{select} ({','.join('?' * len(some))})", some)
            except sqlite3.ProgrammingError:
                raise
            except sqlite3.DatabaseError:
                rows = self._one_by_one(f"{select} (?)", table, some)
            found = {row[0]: row for row in rows}
            yield from (found[one] for one in some if one in found)

    def _one_by_one(self, select: str, table: str, ids: list[int]) -> list[Row]:
        rows: list[Row] = []
        for one in ids:
            try:
                rows += self._database.execute(select, (one,))
            except sqlite3.DatabaseError as error:
                self._report(table, one, str(error))
        return rows

    def _verified(self, table: str, row: Row) -> bool:
        try:
            verify(row)
        except RowDamageError as damage:
            self._report(table, row[0], str(damage))
            return False
        return True

    def readable(self, table: str, statement: str) -> list[Row]:
        """The rows that a statement gives; none, and a report, where the table is damaged."""
        try:
            return self._database.execute(statement)
        except sqlite3.ProgrammingError:
            raise
        except sqlite3.DatabaseError as error:
            self._report(table, 0, str(error))
            return []

    def damage(self) -> str:
        """What to say of `damaged`."""
        (table, segment), what = next(iter(self.damaged.items()))
        return (
            f"{len(self.damaged)} rows are damaged and left out, the first in {table}, segment {segment}: {what}; "
            "export the rest, and forget it"
        )

    def _report(self, table: str, segment: int, what: str) -> None:
        self.damaged[table, segment] = what
