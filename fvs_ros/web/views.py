"""What the page is told, as JSON: stamps as exact texts of seconds, ages in words."""

from __future__ import annotations

import base64
import math
from typing import Any

from fvs_ros.backends.backend import MemoryReport
from fvs_ros.sources.frame import SECOND_NS, Pose
from fvs_ros.sources.stamps import date_text, stamp_text
from fvs_ros.stream.types import Answer, Kept, Moment
from fvs_ros.stream.words import age_text, distance_text, newest_pose


def state_view(report: MemoryReport, progress: str) -> dict[str, Any]:
    """The memory's size and span, what became of frames and questions, and what is wrong.

    Args:
        report: of the backend.
        progress: what must be done before all that was seen can be asked about; empty if nothing.
    """
    status, counters = report.status, report.statistics
    return {
        "model": report.model,
        "progress": progress,
        "problem": report.problem,
        "version": status.version,
        "episode": status.episode,
        "steps": status.steps,
        "span_s": (status.end_ns - status.start_ns) / SECOND_NS if status.steps else None,
        "end_date": date_text(status.end_ns) if status.steps else None,
        "csm": [status.csm_slots, report.csm_capacity],
        "dam": [status.dam_slots, report.dam_capacity],
        "megabytes": status.bytes / 1e6,
        "segments": report.segments,
        "frames": {
            "received": counters.received,
            "ingested": counters.ingested,
            "waiting": counters.waiting,
            "skipped": counters.skipped,
            "dropped": counters.dropped,
            "late": counters.late,
            "rejected": sum(counters.rejected.values()),
        },
        "questions": {
            "asked": counters.questions,
            "answered": counters.answers,
            "failed": sum(counters.failed.values()),
        },
        "seconds": {
            "ingest": counters.ingest_s,
            "prefill": counters.prefill_s,
            "first_token": counters.last_first_token_s,
            "answer": counters.last_answer_s,
        },
    }


def moments_view(moments: tuple[Moment, ...], end_ns: int) -> list[dict[str, Any]]:
    """Moments in the order given.

    Args:
        moments: of a memory.
        end_ns: its newest frame; ages and distances are from there.
    """
    here = newest_pose(moments)
    return [_moment_view(moment, end_ns, here) for moment in moments]


def answer_view(answer: Answer) -> dict[str, Any]:
    """An answer and what it rests on."""
    here = newest_pose(answer.all_moments or answer.moments)
    return {
        "text": answer.text,
        "confidence": answer.confidence,
        "calibrated": answer.calibrated,
        "not_seen": answer.not_seen,
        "moments": [
            {**_moment_view(moment, answer.end_ns, here), "picture": _picture_text(moment)} for moment in answer.moments
        ],
        "steps": answer.steps,
        "span_s": (answer.end_ns - answer.start_ns) / SECOND_NS,
        "recalled": answer.recalled,
        "first_token_s": answer.first_token_s,
        "total_s": answer.total_s,
    }


def _moment_view(moment: Moment, end_ns: int, here: Pose | None) -> dict[str, Any]:
    return {
        "stamp": stamp_text(moment.stamp_ns),
        "start": stamp_text(moment.start_ns),
        "end": stamp_text(moment.end_ns),
        "date": date_text(moment.stamp_ns),
        # Before the newest frame, for drawing: a browser's numbers cannot hold nanoseconds since 1970.
        "age_s": (end_ns - moment.stamp_ns) / SECOND_NS,
        "from_s": (end_ns - moment.start_ns) / SECOND_NS,
        "to_s": (end_ns - moment.end_ns) / SECOND_NS,
        "age": age_text((end_ns - moment.stamp_ns) / SECOND_NS),
        "distance": distance_text(moment.pose, here),
        "weight": moment.weight,
        "relevance": moment.relevance,
        "synopsis": Kept.SYNOPSIS in moment.kept,
        "detail": Kept.DETAIL in moment.kept,
        "window": Kept.WINDOW in moment.kept,
        "recalled": Kept.RECALLED in moment.kept,
        "place": None if moment.pose is None else _place_view(moment.pose),
    }


def _picture_text(moment: Moment) -> str | None:
    return None if moment.picture is None else base64.b64encode(moment.picture.jpeg).decode()


def _place_view(pose: Pose) -> dict[str, Any]:
    """A pose on a map: metres, and the heading in radians, counterclockwise from x."""
    (px, py, _), (x, y, z, w) = pose.position, pose.orientation
    heading = math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    return {"frame": pose.frame_id, "x": px, "y": py, "heading": heading}
