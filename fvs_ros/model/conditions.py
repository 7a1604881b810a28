"""How a model is asked whether something is true now.

Any model can be asked "Is it true that ...?". A model with words of its own for some conditions says so in its
`config.json`, and is then asked as it was trained: "you are in the kitchen" as "Which room are you in?", of whose
answers one is "kitchen".
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# As whole answers, in the two ways that models write them.
YES_TEXTS = ("yes", "Yes")
NO_TEXTS = ("no", "No")

_QUESTION_MARKS = ("?", "？", "؟")
_GAP = re.compile(r"\{([a-z_]+)\}")
_RULE = frozenset({"conditions", "question", "true", "false"})
_MOST_TEXTS = 200
# Characters of a condition that a rule may know.
_LONGEST = 200


@dataclass(frozen=True)
class ConditionCheck:
    """A condition as a question, some of whose answers mean that it is true.

    Attributes:
        question: what is asked.
        true_texts: answers that mean that it is true.
        false_texts: answers that mean that it is not.
    """

    question: str
    true_texts: tuple[str, ...] = YES_TEXTS
    false_texts: tuple[str, ...] = NO_TEXTS

    @property
    def questions(self) -> tuple[str, ...]:
        """The one question."""
        return (self.question,)

    @property
    def texts(self) -> tuple[tuple[str, ...], ...]:
        """Its answers: those that mean true, then the others."""
        return ((*self.true_texts, *self.false_texts),)

    def probability(self, log_probabilities: Sequence[Sequence[float]]) -> float:
        """Of an answer that means true, given that the answer is one of `texts`; one half where none is possible."""
        (scores,) = log_probabilities
        largest = max(scores)
        if largest == -math.inf:
            return 0.5
        weights = [math.exp(score - largest) for score in scores]
        return sum(weights[: len(self.true_texts)]) / sum(weights)


def yes_no_check(text: str) -> ConditionCheck:
    """A condition for any model: a text with a question mark at its end as it stands, a statement after words.

    "the door is open" is asked as "Is it true that the door is open?".
    """
    text = " ".join(text.split())
    return ConditionCheck(text if text.endswith(_QUESTION_MARKS) else f"Is it true that {text.rstrip('.! ')}?")


@dataclass(frozen=True)
class _Rule:
    """Conditions of one form.

    Attributes:
        patterns: match a normalised condition, and have a group for each gap.
        question, true, false: with gaps, see `ConditionRules`.
    """

    patterns: tuple[re.Pattern[str], ...]
    question: str
    true: tuple[str, ...]
    false: tuple[str, ...]


class ConditionRules:
    """What a checkpoint says of how it is to be asked about conditions.

    Args:
        gaps: what each gap can stand for.
        rules: those that come first count. `conditions` are statements or questions without a mark at their end, with
            gaps such as `{room}`; upper and lower case are alike. `question` and `true` take what a gap stands for in
            the condition; in `false` it stands for all that is not in `true`.

    Raises:
        ValueError: a gap is unknown, or something is empty or too long; the message says which.
    """

    def __init__(self, gaps: Mapping[str, Sequence[str]], rules: Sequence[Mapping[str, object]]) -> None:
        self._gaps = {name: _texts(f"the gap {name}", values) for name, values in gaps.items()}
        self._rules = tuple(map(self._rule, rules))
        self._json: dict[str, object] = {
            "gaps": {name: list(values) for name, values in gaps.items()},
            "rules": list(map(dict, rules)),
        }

    @classmethod
    def from_json(cls, values: object) -> ConditionRules:
        """Reads `condition_questions` of a `config.json`.

        Raises:
            ValueError: it makes no sense.
        """
        if not isinstance(values, Mapping) or set(values) != {"gaps", "rules"}:
            raise ValueError("condition_questions must be an object with gaps and rules, and no others")
        gaps, rules = values["gaps"], values["rules"]
        if not isinstance(gaps, Mapping) or not isinstance(rules, list):
            raise ValueError("condition_questions must have an object of lists as gaps, and a list of rules")
        return cls(gaps, rules)

    def to_json(self) -> dict[str, object]:
        """What `from_json` reads."""
        return self._json

    def check(self, text: str) -> ConditionCheck:
        """How to ask about a condition; one that no rule knows as of any model."""
        known = " ".join(text.split()).rstrip(".!? ").lower()
        for rule in self._rules if len(known) <= _LONGEST else ():
            for pattern in rule.patterns:
                if found := pattern.fullmatch(known):
                    return self._asked(rule, found.groupdict())
        return yes_no_check(text)

    def _rule(self, values: Mapping[str, object]) -> _Rule:
        if not isinstance(values, Mapping) or set(values) != _RULE:
            raise ValueError(f"a rule of condition_questions must have {', '.join(sorted(_RULE))}, and no others")
        texts = {name: _texts(name, values[name]) for name in ("conditions", "true", "false")}
        (question,) = _texts("question", [values["question"]])
        if any(len(_GAP.findall(text)) > 1 for text in texts["false"]):
            raise ValueError("each text of false in condition_questions may have one gap")
        asked = [*_GAP.findall(question), *(gap for text in texts["true"] for gap in _GAP.findall(text))]
        for condition in texts["conditions"]:
            known = _GAP.findall(condition)
            if unknown := {*known, *_GAP.findall("".join(texts["false"]))} - set(self._gaps):
                raise ValueError(f"condition_questions has no gap {', '.join(sorted(unknown))}")
            if len(known) != len(set(known)) or not set(asked) <= set(known):
                raise ValueError(f"the condition {condition!r} must have each gap of its question and answers once")
        return _Rule(tuple(map(self._pattern, texts["conditions"])), question, texts["true"], texts["false"])

    def _pattern(self, condition: str) -> re.Pattern[str]:
        parts = _GAP.split(condition.lower())
        # Text and gaps by turns.
        for place in range(1, len(parts), 2):
            values = "|".join(re.escape(value.lower()) for value in self._gaps[parts[place]])
            parts[place] = f"(?P<{parts[place]}>{values})"
        parts[::2] = map(re.escape, parts[::2])
        return re.compile("".join(parts))

    def _asked(self, rule: _Rule, found: Mapping[str, str]) -> ConditionCheck:
        # As the model knows them, where the condition has them in other cases.
        filled = {gap: next(one for one in self._gaps[gap] if one.lower() == found[gap]) for gap in found}
        true = tuple(text.format_map(filled) for text in rule.true)
        false = [one for text in rule.false for one in self._expanded(text)]
        return ConditionCheck(rule.question.format_map(filled), true, tuple(text for text in false if text not in true))

    def _expanded(self, text: str) -> list[str]:
        """A text with each thing that its gap can stand for."""
        gap = _GAP.search(text)
        return [text] if gap is None else [text.replace(gap[0], value) for value in self._gaps[gap[1]]]


NO_RULES = ConditionRules({}, ())
"""Of a checkpoint that says nothing of conditions."""


def _texts(name: str, values: object) -> tuple[str, ...]:
    """A list of texts.

    Raises:
        ValueError: it is empty or has other things.
    """
    texts = tuple(values) if isinstance(values, list | tuple) else ()
    if not texts or len(texts) > _MOST_TEXTS:
        raise ValueError(f"{name} of condition_questions must be a list of 1 to {_MOST_TEXTS} texts")
    for text in texts:
        if not isinstance(text, str) or not 0 < len(text.strip()) <= _LONGEST or re.search(r"[{}]", _GAP.sub("", text)):
            raise ValueError(
                f"{name} of condition_questions has {text!r:.60}; it must be a text of up to {_LONGEST} characters, "
                "with braces around gaps alone"
            )
    return texts
