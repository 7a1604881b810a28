"""How a model is asked whether something is true now.

Any model can be asked "Is it true that ...?". A model with words of its own for some conditions says so in its
`config.json`, and is then asked as it was trained: "you are in the kitchen" as "Which room are you in?", of whose
answers one is "kitchen".
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

# As whole answers, in the two ways that models write them.
YES_TEXTS = ("yes", "Yes")
NO_TEXTS = ("no", "No")

_QUESTION_MARKS = ("?", "？", "؟")
_GAP = re.compile(r"\{([a-z_]+)\}")
_RULE = frozenset({"conditions", "question", "true", "false"})
# What a rule about places has besides.
_PLACES = frozenset({"there", "here"})
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
        """Of an answer that means true, given that the answer is one of `texts`."""
        (scores,) = log_probabilities
        return sum(_shares(scores)[: len(self.true_texts)])


@dataclass(frozen=True)
class PlacedCheck:
    """A condition about something that is at one of several places: where it is, and what is true there.

    Attributes:
        where: asks where it is. Of its answers, `true_texts` are the places; with any other one the condition is false.
        there: of each place: asks whether the condition is true if it is there.
        here: asks at which of the places the camera is. While it is at one, that one has not been seen wholly, and the
            condition counts as false there.
    """

    where: ConditionCheck
    there: tuple[ConditionCheck, ...]
    here: ConditionCheck

    @property
    def questions(self) -> tuple[str, ...]:
        """Where it is, where the camera is, then about each place."""
        return tuple(check.question for check in (self.where, self.here, *self.there))

    @property
    def texts(self) -> tuple[tuple[str, ...], ...]:
        """The answers to each."""
        return tuple(texts for check in (self.where, self.here, *self.there) for texts in check.texts)

    def probability(self, log_probabilities: Sequence[Sequence[float]]) -> float:
        """The sum over places of it being there, the camera not, and the condition being true then."""
        where, here, *there = log_probabilities
        # Of the answers beyond the places nothing is asked.
        shares = zip(_shares(where), _shares(here), self.there, there, strict=False)
        return sum(it * (1 - camera) * check.probability([scores]) for it, camera, check, scores in shares)


def _shares(scores: Sequence[float]) -> list[float]:
    """The probabilities of texts among each other, from their log-probabilities; all alike where none is possible."""
    largest = max(scores)
    weights = [1.0 if largest == -math.inf else math.exp(score - largest) for score in scores]
    return [weight / sum(weights) for weight in weights]


def yes_no_check(text: str) -> ConditionCheck:
    """How any model is asked: a text with a question mark as it stands, a statement after words.

    "the door is open" is asked as "Is it true that the door is open?".
    """
    if any(mark in text for mark in _QUESTION_MARKS):
        return ConditionCheck(text)
    return ConditionCheck(f"Is it true that {' '.join(text.split()).rstrip('.! ')}?")


@dataclass(frozen=True)
class _Rule:
    """Conditions of one form.

    Attributes:
        patterns: match a normalised condition, and have a group for each gap.
        question, true, false: with gaps, see `ConditionRules`.
        there, here: of a condition about places, see `PlacedCheck`; None of any other.
        place: the gap that the places fill.
    """

    patterns: tuple[re.Pattern[str], ...]
    question: str
    true: tuple[str, ...]
    false: tuple[str, ...]
    there: _Rule | None = None
    here: _Rule | None = None
    place: str = ""


class ConditionRules:
    """What a checkpoint says of how it is to be asked about conditions.

    Args:
        gaps: what each gap can stand for.
        rules: those that come first count. `conditions` are statements or questions without a mark at their end, with
            gaps such as `{room}`; upper and lower case are alike. `question` and `true` take what a gap stands for in
            the condition; in `false` it stands for all that is not in `true`. A rule about places has `there` and
            `here` with `question`, `true` and `false` of their own, and its `true`, like that of `here`, is one gap:
            the places that it can stand for, or the one that the condition names, see `PlacedCheck`.

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

    def check(self, text: str) -> ConditionCheck | PlacedCheck:
        """How to ask about a condition; one that no rule knows as of any model."""
        known = " ".join(text.split()).rstrip(".!? ").lower()
        for rule in self._rules if len(known) <= _LONGEST else ():
            for pattern in rule.patterns:
                if found := pattern.fullmatch(known):
                    return self._asked(rule, found.groupdict())
        return yes_no_check(text)

    def _rule(self, values: Mapping[str, object]) -> _Rule:
        if not isinstance(values, Mapping) or set(values) not in (_RULE, _RULE | _PLACES):
            raise ValueError(
                f"a rule of condition_questions must have {', '.join(sorted(_RULE))}, and perhaps "
                f"{' and '.join(sorted(_PLACES))}"
            )
        conditions = _texts("conditions", values["conditions"])
        known = set(_GAP.findall(conditions[0]))
        if unknown := known - set(self._gaps):
            raise ValueError(f"condition_questions has no gap {', '.join(sorted(unknown))}")
        for condition in conditions:
            if sorted(_GAP.findall(condition)) != sorted(known):
                raise ValueError(f"the condition {condition!r} must have the gaps of the rule's others, each once")
        patterns = tuple(map(self._pattern, conditions))
        if set(values) == _RULE:
            return self._answers(values, patterns, known)
        there, here = _part("there", values["there"]), _part("here", values["here"])
        places = _texts("true", values["true"])
        gap = _GAP.fullmatch(places[0])
        if len(places) != 1 or gap is None or here["true"] != values["true"]:
            raise ValueError("true of a rule about places, and of its here, must be one gap, the same one")
        whole = {} if gap[1] in known else {"true": self._expanded(places[0])}
        return replace(
            self._answers({**values, **whole}, patterns, known),
            there=self._answers(there, (), known | {gap[1]}),
            here=self._answers({**here, **whole}, (), known),
            place=gap[1],
        )

    def _answers(self, values: Mapping[str, object], patterns: tuple[re.Pattern[str], ...], known: set[str]) -> _Rule:
        """A rule from its question and answers, where `known` are the gaps that a condition fills."""
        true, false = _texts("true", values["true"]), _texts("false", values["false"])
        (question,) = _texts("question", [values["question"]])
        if unknown := {gap for text in (question, *true) for gap in _GAP.findall(text)} - known:
            raise ValueError(f"question and true of a rule have gaps that its conditions lack: {', '.join(unknown)}")
        if any(len(_GAP.findall(text)) > 1 or not set(_GAP.findall(text)) <= set(self._gaps) for text in false):
            raise ValueError("each text of false in condition_questions may have one gap, one of those given")
        return _Rule(patterns, question, true, false)

    def _pattern(self, condition: str) -> re.Pattern[str]:
        parts = _GAP.split(condition.lower())
        # Text and gaps by turns.
        for place in range(1, len(parts), 2):
            values = "|".join(re.escape(value.lower()) for value in self._gaps[parts[place]])
            parts[place] = f"(?P<{parts[place]}>{values})"
        parts[::2] = map(re.escape, parts[::2])
        return re.compile("".join(parts))

    def _asked(self, rule: _Rule, found: Mapping[str, str]) -> ConditionCheck | PlacedCheck:
        # As the model knows them, where the condition has them in other cases.
        filled = {gap: next(one for one in self._gaps[gap] if one.lower() == found[gap]) for gap in found}
        if rule.there is None or rule.here is None:
            return self._filled(rule, filled)
        places = [filled[rule.place]] if rule.place in filled else self._gaps[rule.place]
        there = [self._filled(rule.there, {**filled, rule.place: place}) for place in places]
        return PlacedCheck(self._filled(rule, filled), tuple(there), self._filled(rule.here, filled))

    def _filled(self, rule: _Rule, filled: Mapping[str, str]) -> ConditionCheck:
        true = tuple(text.format_map(filled) for text in rule.true)
        false = [one for text in rule.false for one in self._expanded(text)]
        return ConditionCheck(rule.question.format_map(filled), true, tuple(text for text in false if text not in true))

    def _expanded(self, text: str) -> list[str]:
        """A text with each thing that its gap can stand for."""
        gap = _GAP.search(text)
        return [text] if gap is None else [text.replace(gap[0], value) for value in self._gaps[gap[1]]]


NO_RULES = ConditionRules({}, ())
"""Of a checkpoint that says nothing of conditions."""


def _part(name: str, values: object) -> Mapping[str, object]:
    """A question with its answers.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(values, Mapping) or set(values) != _RULE - {"conditions"}:
        raise ValueError(f"{name} of condition_questions must have question, true and false, and no others")
    return values


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
