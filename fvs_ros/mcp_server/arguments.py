"""What the tools take: stamps and places, as language models write them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from fvs_ros.sources.frame import Area
from fvs_ros.sources.stamps import parse_date, parse_stamp

STAMP = (
    "seconds, as in the results (a string keeps all decimals), or a date and time in ISO 8601, in UTC where it has no "
    "offset"
)
Stamp = Annotated[str | float, Field(description=f"A stamp: {STAMP}.")]


class Near(BaseModel):
    """A place, and how far around it counts, whatever the height."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    frame_id: str = Field(description="The coordinate frame, as in the results' places.", max_length=255)
    x: float = Field(description="Metres.")
    y: float = Field(description="Metres.")
    radius_m: Annotated[float, Field(gt=0, le=1e9, description="How far around it counts, in metres.")] = 2.0

    def area(self) -> Area:
        """The same for the engine."""
        return Area(self.frame_id, self.x, self.y, self.radius_m)


class Message(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["user", "assistant"] = Field(
        description="Who said it: user for a question, assistant for its answer."
    )
    text: str


def stamp_ns(name: str, value: str | float | None) -> int | None:
    """Nanoseconds of an argument; None where it is left out.

    Raises:
        ValueError: it is no stamp; the message names it.
    """
    if value is None:
        return None
    text = str(value).strip()
    try:
        return parse_date(text) if "-" in text[1:] and "e" not in text.lower() else parse_stamp(text)
    except (ValueError, OverflowError):
        raise ValueError(f"{name} is {text[:100]!a}, which is no stamp; give {STAMP}") from None
