#!/usr/bin/env python3
"""Prints docs/phrasings.md: ten wordings of each kind of question, seven that training may see and three held out.

python scripts/phrasings_page.py > docs/phrasings.md
"""

from __future__ import annotations

import numpy as np

from fvs_ros.patrol.config import Wording
from fvs_ros.patrol.phrasings import grammar
from fvs_ros.patrol.questions import CLOCK_FAMILIES, CLOCK_TEMPLATES
from fvs_ros.patrol.templates import Template
from fvs_ros.patrol.templates_outside import FAMILY, OutsideTemplate
from fvs_ros.patrol.vocabulary import OUTSIDE_ANSWER

GAPS = {
    "thing": "red chair",
    "a_thing": "a red chair",
    "one": "blue ball",
    "other": "green cone",
    "kind": "chair",
    "kinds": "chairs",
    "a_kind": "a chair",
    "colour": "red",
    "room": "kitchen",
    "began": "eight minutes ago",
    "clock": "ten past four in the afternoon",
    "when": "in the last hour",
}
TRAINED, HELD_OUT = 7, 3
_TRIES = 400


def wordings(template: Template, wording: Wording, count: int, random: np.random.Generator) -> list[str]:
    """Different wordings of a kind, each of a construction of its own where there are as many."""
    found: dict[str, None] = {}
    for _ in range(_TRIES):
        found.setdefault(template.question(GAPS, wording, random), None)
        if len(found) == count:
            break
    return list(found)


def section(template: Template, number: int) -> str:
    """A kind's heading and its ten wordings; those held out in italics."""
    random = np.random.default_rng([0, number])
    trained = wordings(template, Wording.TRAINED, TRAINED, random) if template.has(Wording.TRAINED) else []
    held_out = wordings(template, Wording.HELD_OUT, TRAINED + HELD_OUT - len(trained), random)
    lines = [f"- {text}" for text in trained] + [f"- *{text}*" for text in held_out]
    return "\n".join([f"### {template.name}", "", *lines, ""])


def page() -> str:
    """The whole page."""
    found = grammar()
    inside = [template for template in CLOCK_TEMPLATES if template.family != FAMILY]
    outside = [template for template in CLOCK_TEMPLATES if isinstance(template, OutsideTemplate)]
    constructions = [sum(len(found.constructions(one.name, side)) for side in (False, True)) for one in inside]
    parts = [
        f"""# Phrasings

How the questions of patrols are put into words: ten of each kind, drawn by `scripts/phrasings_page.py` from
`fvs_ros/patrol/phrasings.yaml`, `phrasings_more.yaml` and `outside.yaml`.

- {len(inside)} kinds are about the patrol, with {min(constructions)} to {max(constructions)} constructions each,
  {sum(constructions):,} in all; {len(outside)} kinds are from outside it.
- Wordings in italics are held out: every fifth body of a kind; of the kinds from outside a third, every fifth pattern
  and every fifth word. No training sees them; `fvs evaluate patrol --phrasings held-out` asks them.
- The kinds of the family range are asked of patrols with a clock alone. What time it is, and how long ago the patrol
  began, is told before them in every wording.
"""
    ]
    numbers = {template.name: number for number, template in enumerate(CLOCK_TEMPLATES)}
    for family in CLOCK_FAMILIES:
        parts.append(f"## {family}\n")
        parts += [section(one, numbers[one.name]) for one in inside if one.family == family]
    parts.append(f"## From outside\n\nThe answer to each is: “{OUTSIDE_ANSWER}”\n")
    parts += [section(one, numbers[one.name]) for one in outside]
    return "\n".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    print(page(), end="")
