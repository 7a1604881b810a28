"""The words for what a patrol can meet: kinds of object, colours, rooms, numbers and times."""

from __future__ import annotations

KINDS = ("box", "ball", "cone", "chair", "table", "lamp", "bottle", "ladder", "plant", "barrel")
PLURALS = {kind: f"{kind}es" if kind == "box" else f"{kind}s" for kind in KINDS}

# RGB in 0..1, chosen apart in hue or lightness so that lighting drift does not turn one into another.
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.06, 0.08),
    "orange": (1.0, 0.47, 0.04),
    "yellow": (0.98, 0.9, 0.1),
    "green": (0.08, 0.62, 0.14),
    "blue": (0.08, 0.2, 0.85),
    "purple": (0.52, 0.1, 0.66),
    "white": (0.98, 0.98, 0.98),
    "black": (0.05, 0.05, 0.06),
}

ROOMS = ("kitchen", "office", "workshop", "library", "laboratory", "garage", "canteen", "storeroom")
CORRIDOR = "corridor"
"""Where the robot is between rooms. It holds no objects and does not count as a room visited."""

NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip

TENS = ("zero", "ten", "twenty", "thirty", "forty", "fifty")

PARTS = ("beginning", "middle", "end")
"""Thirds of the patrol so far."""

AGES: tuple[tuple[float, str], ...] = (
    (10.0, "a few seconds ago"),
    (40.0, "about half a minute ago"),
    (90.0, "about a minute ago"),
    (180.0, "about two minutes ago"),
    (420.0, "about five minutes ago"),
    (float("inf"), "about ten minutes ago or more"),
)
"""Upper bound in seconds (excluded) of how long ago something was, and the words for it."""

DURATIONS: tuple[tuple[float, str], ...] = (
    (10.0, "a few seconds"),
    (40.0, "about half a minute"),
    (90.0, "about a minute"),
    (180.0, "about two minutes"),
    (420.0, "about five minutes"),
    (780.0, "about ten minutes"),
    (1050.0, "about fifteen minutes"),
    (float("inf"), "about twenty minutes or more"),
)
"""Upper bound in seconds (excluded) of how long something took, and the words for it."""

LONG_AGES: tuple[tuple[float, str], ...] = (
    *AGES[:-1],
    (900.0, "about ten minutes ago"),
    (1500.0, "about twenty minutes ago"),
    (2700.0, "about half an hour ago"),
    (5400.0, "about an hour ago"),
    (9000.0, "about two hours ago"),
    (16200.0, "about three hours ago"),
    (32400.0, "about six hours ago"),
    (64800.0, "about twelve hours ago"),
    (float("inf"), "about a day ago"),
)
"""As `AGES`, for episodes with a clock."""

LONG_DURATIONS: tuple[tuple[float, str], ...] = (
    *DURATIONS[:-1],
    (1500.0, "about twenty minutes"),
    (2700.0, "about half an hour"),
    (5400.0, "about an hour"),
    (9000.0, "about two hours"),
    (16200.0, "about three hours"),
    (32400.0, "about six hours"),
    (64800.0, "about twelve hours"),
    (float("inf"), "about a day"),
)
"""As `DURATIONS`, for episodes with a clock."""

OUTSIDE_ANSWER = "I cannot answer that; ask me what I saw, where, when, how many, in what order, or what changed."
"""To a question about anything but the patrol."""


def joined(parts: list[str]) -> str:
    """An enumeration: "a", "a and b", "a, b and c"; "nothing" for none."""
    if not parts:
        return "nothing"
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
