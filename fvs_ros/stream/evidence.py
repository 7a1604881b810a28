"""The moments that a model had in front of it, and those of them that an answer rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from fvs_ros.memory.snapshot import MemorySnapshot
from fvs_ros.stream.latest_memory import PublishedMemory
from fvs_ros.stream.origins import StepOrigin
from fvs_ros.stream.types import Kept, Moment


@dataclass(frozen=True)
class ShownMoments:
    """Everything that a memory shows, each moment once although several slots may show it.

    Attributes:
        moments: in order of time.
        of_slots: for each slot, in the order of `MemorySnapshot.slot_tokens`, which moment it shows.
    """

    moments: tuple[Moment, ...]
    of_slots: tuple[int, ...]

    def weighed(self, relevance: Sequence[float] | None) -> tuple[Moment, ...]:
        """All moments in order of time, with their relevance.

        Args:
            relevance: probability of each slot; None where the model gives none, and moments then have none.
        """
        if relevance is None or len(relevance) != len(self.of_slots):
            return self.moments
        sums = [0.0] * len(self.moments)
        for moment, share in zip(self.of_slots, relevance, strict=True):
            sums[moment] += share
        return tuple(replace(moment, relevance=share) for moment, share in zip(self.moments, sums, strict=True))


NOTHING_SHOWN = ShownMoments((), ())


def most_relevant(moments: Sequence[Moment], limit: int) -> tuple[Moment, ...]:
    """At most `limit` moments, the most relevant first; by weight where they have no relevance. Equal ones by time."""

    def rank(moment: Moment) -> tuple[float, float, int]:
        return -1.0 if moment.relevance is None else moment.relevance, moment.weight, -moment.stamp_ns

    return tuple(sorted(moments, key=rank, reverse=True)[:limit])


def shown_moments(memory: PublishedMemory) -> ShownMoments:
    """What a memory shows: a moment for each CSM slot or recalled segment and each other step. Waits for the device.

    A keyframe or a step of the window joins the moment of the slot that it is part of. A keyframe outside its cluster's
    interval, which the published rule may choose, is a moment of its own, and so is a step of the window that a slot
    shows among others.
    """
    snapshot = memory.snapshot
    snapshot.wait_ready()
    slots = _synopsis_moments(memory)
    moments = list(slots[: snapshot.csm.shape[0]])
    csm_of_slots = list(range(len(moments)))

    def alone(stamp_ns: int, step: int, kept: Kept) -> int:
        moments.append(_moment(memory, stamp_ns, stamp_ns, stamp_ns, 1.0, step, kept))
        return len(moments) - 1

    dam_of_slots = []
    columns = torch.stack([snapshot.dam_stamps_ns, snapshot.dam_slots, snapshot.dam_steps], dim=1).tolist()
    for stamp_ns, slot, step in columns:
        cluster = slots[slot] if slot >= 0 else None
        if cluster is None or not cluster.start_ns <= stamp_ns <= cluster.end_ns:
            dam_of_slots.append(alone(stamp_ns, step, Kept.DETAIL))
            continue
        shown = slot < len(csm_of_slots)
        kept = Kept.DETAIL | (cluster.kept if shown or memory.recalled else Kept.NOTHING)
        own = _moment(memory, stamp_ns, cluster.start_ns, cluster.end_ns, cluster.weight, step, kept)
        if shown:
            moments[slot] = own
            dam_of_slots.append(slot)
        else:
            moments.append(own)
            dam_of_slots.append(len(moments) - 1)
    window_of_slots = []
    first_step = snapshot.steps - snapshot.window.shape[0]
    singles = {one.stamp_ns: slot for slot, one in enumerate(moments) if one.weight <= 1}
    for number, stamp_ns in enumerate(_window_stamps(snapshot, memory.status.end_ns)):
        slot = singles.get(stamp_ns)
        if slot is None:
            slot = alone(stamp_ns, first_step + number, Kept.WINDOW)
        else:
            moments[slot] = replace(moments[slot], kept=moments[slot].kept | Kept.WINDOW)
        window_of_slots.append(slot)
    order = sorted(range(len(moments)), key=lambda one: (moments[one].stamp_ns, moments[one].start_ns))
    place = {old: new for new, old in enumerate(order)}
    of_slots = tuple(place[one] for one in (*dam_of_slots, *csm_of_slots, *window_of_slots))
    return ShownMoments(tuple(moments[one] for one in order), of_slots)


def _synopsis_moments(memory: PublishedMemory) -> list[Moment]:
    """One of each CSM slot, whether or not it is shown itself, or of each recalled segment."""
    if memory.recalled:
        return [
            Moment(one.keyframe_ns, one.start_ns, one.end_ns, one.weight, one.frame_id, one.pose, kept=Kept.RECALLED)
            for one in memory.recalled
        ]
    snapshot = memory.snapshot
    names = ("csm_stamps_ns", "csm_start_ns", "csm_end_ns", "csm_steps")
    columns = torch.stack([getattr(snapshot, name) for name in names], dim=1).tolist()
    weights = snapshot.csm_weights.tolist()
    return [
        _moment(memory, stamp_ns, start_ns, end_ns, weight, step, Kept.SYNOPSIS)
        for (stamp_ns, start_ns, end_ns, step), weight in zip(columns, weights, strict=True)
    ]


def _moment(
    memory: PublishedMemory, stamp_ns: int, start_ns: int, end_ns: int, weight: float, step: int, kept: Kept
) -> Moment:
    origin = memory.origins.get(step, StepOrigin())
    return Moment(stamp_ns, start_ns, end_ns, weight, origin.frame_id, origin.pose, kept=kept)


def _window_stamps(snapshot: MemorySnapshot, newest_ns: int) -> list[int]:
    """Of each step of the window; of one that a memory knows no stamps of, the newest frame's."""
    stamps_ns = snapshot.window_stamps_ns.tolist()
    return stamps_ns or [newest_ns] * snapshot.window.shape[0]
