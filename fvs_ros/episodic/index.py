"""When and where each segment was and what it looks like, in RAM: to find segments, and to choose the evicted ones.

About 400 bytes a segment.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fvs_ros.episodic.segment import StoredSegment
from fvs_ros.sources.frame import Area

SKETCH_SIZE = 64
NONE = -1
"""Number of a model or a map that is unknown."""

_SAMPLE = 16
_NEIGHBOURS = 2
# A turn by one radian shows as much that is new as a way of two metres, at the 60 to 90 degrees that cameras see.
_METRES_PER_RADIAN = 2.0
# Differences in time count by their logarithm beyond this: an hour is to a day as a minute to half an hour.
_TIME_SCALE_NS = 60e9
# Of a float32 position in UTM coordinates, 10^7 m at most.
_ROUNDING_M = 1.0

# Name, dtype and length of each column.
_COLUMNS: tuple[tuple[str, type, int], ...] = (
    ("id", np.int64, 1),
    ("episode", np.int64, 1),
    ("start_ns", np.int64, 1),
    ("end_ns", np.int64, 1),
    ("place", np.int32, 1),
    ("position", np.float32, 3),
    ("orientation", np.float32, 4),
    ("model", np.int32, 1),
    ("sketch", np.float32, SKETCH_SIZE),
)


def sketch(mean: np.ndarray) -> np.ndarray:
    """Mean features in 64 numbers, float16: distances of sketches are those of the features at length 1, about.

    A count sketch: each value is added, with a random sign, to one of the 64. Source: Charikar, Chen and Farach-Colton,
    "Finding frequent items in data streams", 2002.
    """
    values = mean.astype(np.float32).ravel()
    length = float(np.linalg.norm(values))
    places, signs = _hashes(values.size)
    return np.bincount(places, signs * values / (length or 1.0), SKETCH_SIZE).astype(np.float16)


@lru_cache(maxsize=4)
def _hashes(size: int) -> tuple[np.ndarray, np.ndarray]:
    """For each index its place and sign: the end of SplitMix64, as sketches are stored and must stay comparable."""
    bits = np.arange(1, size + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(31)
    return (bits % np.uint64(SKETCH_SIZE)).astype(np.intp), np.where(bits >> np.uint64(63), 1.0, -1.0)


@dataclass(frozen=True, eq=False)
class Timeline:
    """When segments were, each array int64 [n]: their ids, and the stamps of their first and last frames."""

    ids: np.ndarray
    start_ns: np.ndarray
    end_ns: np.ndarray


class SegmentIndex:
    """All segments of a store in the order of their ids, a column each."""

    def __init__(self) -> None:
        self._columns: dict[str, np.ndarray] = {
            name: np.zeros((256, length) if length > 1 else 256, dtype) for name, dtype, length in _COLUMNS
        }
        self._count = 0
        self._places: dict[tuple[str, str], int] = {}

    def __len__(self) -> int:
        return self._count

    @property
    def ids(self) -> np.ndarray:
        """int64, ascending."""
        return self._column("id")

    def _column(self, name: str) -> np.ndarray:
        return self._columns[name][: self._count]

    def add(self, stored: StoredSegment) -> None:
        """Adds a segment, whose id is above all others."""
        if self._count == len(self._columns["id"]):
            self._columns = {
                name: np.concatenate([column, np.zeros_like(column)]) for name, column in self._columns.items()
            }
        segment, row, columns = stored.segment, self._count, self._columns
        columns["id"][row], columns["episode"][row] = stored.id, stored.episode
        columns["start_ns"][row], columns["end_ns"][row] = segment.start_ns, segment.end_ns
        columns["place"][row] = columns["model"][row] = NONE
        if segment.pose is not None:
            place = (segment.map_id, segment.pose.frame_id)
            columns["place"][row] = self._places.setdefault(place, len(self._places))
            columns["position"][row] = segment.pose.position
            columns["orientation"][row] = segment.pose.orientation
        self._count += 1

    def set_sketch(self, segment: int, model: int, values: np.ndarray) -> None:
        """What a segment looks like to a model, float16 [64]; an unknown segment is passed over."""
        row = int(np.searchsorted(self.ids, segment))
        if row < self._count and self.ids[row] == segment:
            self._columns["model"][row], self._columns["sketch"][row] = model, values

    def remove(self, segments: list[int]) -> None:
        """Forgets segments; unknown ones are passed over."""
        kept = np.flatnonzero(~np.isin(self.ids, segments))
        # What stands before the first that goes stays where it is.
        first = int(np.argmax(kept != np.arange(len(kept)))) if len(kept) and kept[-1] >= len(kept) else len(kept)
        for column in self._columns.values():
            column[first : len(kept)] = column[kept[first:]]
        self._count = len(kept)

    def find(
        self, since_ns: int | None, until_ns: int | None, episode: int | None, area: Area | None = None
    ) -> list[int]:
        """The ids of segments that overlap the closed range of stamps, in the order of episodes and stamps.

        With an area, those whose pose may lie in it: positions here are rounded.
        """
        found = np.ones(self._count, bool)
        if since_ns is not None:
            found &= self._column("end_ns") >= since_ns
        if until_ns is not None:
            found &= self._column("start_ns") <= until_ns
        if episode is not None:
            found &= self._column("episode") == episode
        if area is not None:
            places = [number for (_, frame_id), number in self._places.items() if frame_id == area.frame_id]
            position = self._column("position")
            distance = np.hypot(position[:, 0] - area.x, position[:, 1] - area.y)
            found &= np.isin(self._column("place"), places) & (distance <= area.radius_m + _ROUNDING_M)
        rows = np.flatnonzero(found)
        order = np.lexsort((self._column("start_ns")[rows], self._column("episode")[rows]))
        return self.ids[rows[order]].tolist()

    def nearest(self, stamp_ns: int | None, episode: int) -> list[int]:
        """The id of the segment that holds a stamp, or else of the nearest in time; the newest one for None.

        Of several, one of this episode, or else the newest. Empty where there is no segment.
        """
        if stamp_ns is None or not self._count:
            return self.ids[-1:].tolist()
        gaps_ns = np.maximum(np.maximum(self._column("start_ns") - stamp_ns, stamp_ns - self._column("end_ns")), 0)
        rows = np.flatnonzero(gaps_ns == gaps_ns.min())
        own = rows[self._column("episode")[rows] == episode]
        return self.ids[(own if len(own) else rows)[-1:]].tolist()

    def timeline(self, episode: int) -> Timeline:
        """When the segments of an episode were, in the order of `find`."""
        rows = np.flatnonzero(self._column("episode") == episode)
        rows = rows[np.argsort(self._column("start_ns")[rows], kind="stable")]
        return Timeline(self.ids[rows], self._column("start_ns")[rows], self._column("end_ns")[rows])

    def count_of(self, episode: int) -> int:
        """How many segments an episode has."""
        return int((self._column("episode") == episode).sum())

    def end_of(self, episode: int) -> int | None:
        """The end of an episode's newest segment; None without one."""
        ends = self._column("end_ns")[self._column("episode") == episode]
        return int(ends[-1]) if len(ends) else None

    def spans(self) -> dict[int, tuple[int, int, int]]:
        """Of each episode: how many segments, and the stamps of the first start and the last end."""
        spans = {}
        for episode in np.unique(self._column("episode")):
            rows = self._column("episode") == episode
            start_ns, end_ns = self._column("start_ns")[rows].min(), self._column("end_ns")[rows].max()
            spans[int(episode)] = (int(rows.sum()), int(start_ns), int(end_ns))
        return spans

    def count(self, model: int) -> int:
        """How many segments have a sketch of a model."""
        return int((self._column("model") == model).sum())

    def least_lost(self) -> int | None:
        """The segment whose loss costs least, None if there is none.

        The cost is the mean distance to the two nearest other segments, in looks, place and time: each squared
        distance is divided by its mean over the store, and counts as that mean where it is unknown (no features of one
        model, no pose in one map, another episode's clock): what no model has looked at yet is kept rather than what
        resembles others. Of 16 segments drawn at random, by a seed that the newest id gives, the cheapest is chosen, as
        approximated eviction in Redis does: among 20,000 that takes milliseconds, and one that resembles no other stays
        as long as one of the 16 has a twin.
        """
        if self._count == 0:
            return None
        random = np.random.default_rng(int(self.ids[-1]))
        drawn = random.permutation(self._count)[:_SAMPLE] if self._count > _SAMPLE else np.arange(self._count)
        if self._count > _NEIGHBOURS:
            costs = self._costs(drawn)
            # Of equal ones the first is taken: drawn at random, not the oldest.
            drawn = drawn[random.permutation(np.flatnonzero(costs <= costs.min() * (1 + 1e-9)))]
        return int(self.ids[drawn[0]])

    def _costs(self, drawn: np.ndarray) -> np.ndarray:
        """The cost of losing each drawn row: mean distance to its nearest others."""
        itself = drawn[:, None] == np.arange(self._count)
        model, place, episode = self._column("model"), self._column("place"), self._column("episode")
        squared = np.zeros(itself.shape, np.float32)
        for column, distance in ((model, self._looks), (place, self._place), (episode, self._time)):
            known = (column[drawn][:, None] == column) & (column != NONE) & ~itself
            squared += _relative(distance(drawn), known)
        squared[itself] = np.inf
        return np.sqrt(np.partition(squared, _NEIGHBOURS - 1, axis=1)[:, :_NEIGHBOURS]).mean(axis=1)

    def _looks(self, drawn: np.ndarray) -> np.ndarray:
        return _squared_distances(self._column("sketch"), drawn)

    def _place(self, drawn: np.ndarray) -> np.ndarray:
        """Square metres; a turn by an angle a counts as 8 (1 - cos(a / 2)), which is near a squared."""
        position, orientation = self._column("position"), self._column("orientation")
        turned = 8 * (1 - np.minimum(np.abs(_products(orientation, drawn)), 1))
        return _squared_distances(position - position.mean(axis=0), drawn) + _METRES_PER_RADIAN**2 * turned

    def _time(self, drawn: np.ndarray) -> np.ndarray:
        start_ns, end_ns = self._column("start_ns"), self._column("end_ns")
        gap_ns = np.maximum(start_ns[drawn][:, None] - end_ns, start_ns - end_ns[drawn][:, None])
        return np.log1p(np.maximum(gap_ns, 0).astype(np.float32) / np.float32(_TIME_SCALE_NS)) ** 2


def _relative(squared: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Squared distances over their mean; 1, that mean, where they are unknown."""
    count = int(known.sum())
    mean = float((squared * known).sum()) / count if count else 0.0
    return np.where(known, squared / np.float32(mean) if mean > 0 else np.float32(0), np.float32(1))


def _squared_distances(vectors: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Between the drawn rows and all, float32 [drawn, all]."""
    lengths = np.einsum("ij,ij->i", vectors, vectors)
    squared = lengths[drawn][:, None] + lengths - 2 * _products(vectors, drawn)
    return np.maximum(squared, 0)


def _products(vectors: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Of the drawn rows with all. Not by BLAS, whose threads wait for the next product at ten times its cost."""
    return np.einsum("ik,jk->ij", vectors[drawn], vectors)
