"""How well `not_seen` tells what was never there from what is only long ago: by length of the stream, and by age."""

from __future__ import annotations

from collections.abc import Sequence

from fvs_ros.evaluation.statistics import grouped
from fvs_ros.evaluation.timed.breakdowns import (
    SAYS_MISSING,
    SAYS_THERE,
    BreakdownTable,
    GradedAnswer,
    breakdown_row,
    by_band,
)
from fvs_ros.sources.frame import SECOND_NS

LENGTH = "length of the stream"


def not_seen_by_length(graded: Sequence[GradedAnswer], conditions: Sequence[str]) -> list[BreakdownTable]:
    """Both metrics of `not_seen` over bands of how long the stream was when the question was asked.

    A stream begins where the first of its proofs does: all of it proves that something was nowhere.
    """
    proven = [one for one in graded if one.question.proof_ns]
    streams = grouped(proven, lambda one: [one.drawn_with])
    began_ns = {
        stream: min(start for one in members for start, _ in one.question.proof_ns)
        for stream, members in streams.items()
    }
    bands = by_band(proven, lambda one: (one.question.time_ns - began_ns[one.drawn_with]) / SECOND_NS)
    return [
        BreakdownTable(
            metric.name,
            metric.unit,
            LENGTH,
            tuple(breakdown_row(name, members, metric, conditions) for name, members in bands.items()),
        )
        for metric in (SAYS_MISSING, SAYS_THERE)
        if any(metric.value(one) is not None for one in proven)
    ]
