"""How sure answers are: their probability, what it is worth, and whether they say "not seen"."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from test_model_prefix_cache import QUESTIONS, finish, prefill, snapshot

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.snapshot import MemorySnapshot
from fvs_ros.model import prefix_cache
from fvs_ros.model.confidence import AnswerRules, Calibration, RowLikelihood, not_seen_from_json
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.model.prefix_cache import PrefixCache
from fvs_ros.model.tiny import tiny_checkpoint

CPU = torch.device("cpu")
CALIBRATION = Calibration((0.2, 0.5, 1.0), (0.1, 0.4, 0.9))


@pytest.fixture(scope="module")
def model() -> FlashVStream:
    memory = FlashMemoryConfig(csm_slots=6, dam_slots=3, window_slots=2, time_code=0.1)
    return FlashVStream(tiny_checkpoint(memory=memory), "tiny")


@pytest.fixture
def cache(model: FlashVStream) -> Iterator[PrefixCache]:
    cache = model.new_prefix_cache()
    yield cache
    cache.close()


def reference_probability(model: FlashVStream, memory: MemorySnapshot, question: str, tokens: list[int]) -> float:
    """Of exactly these tokens after a question, by the reference path."""
    prompt = model._prompts.build(question)
    read = model._reference.prefix(memory, prompt.head)
    assert read is not None
    logits = model._reference.continue_prefix(read, [*prompt.suffix, *tokens[:-1]], read.next_position)
    model._reference.rewind(read)
    following = logits[len(prompt.suffix) - 1 :].double().log_softmax(-1)
    return math.exp(sum(float(row[token]) for row, token in zip(following, tokens, strict=True)))


@pytest.mark.parametrize("question_chunk", [5, 128])
def test_raw_confidence_is_the_probability_of_the_answers_tokens(
    model: FlashVStream, cache: PrefixCache, monkeypatch: pytest.MonkeyPatch, question_chunk: int
) -> None:
    monkeypatch.setattr(prefix_cache, "QUESTION_CHUNK", question_chunk)
    memory = snapshot(model)
    prefilled = prefill(cache, memory)
    # Of different lengths, several at a time, and in rows that were used before.
    for _ in range(2):
        answers = [prefilled.start(question, limit) for question, limit in zip(QUESTIONS, (1, 3, 4, 2), strict=True)]
        finish(prefilled, *answers)
        for question, answer in zip(QUESTIONS, answers, strict=True):
            ended = [answer.token] if answer.token in cache.end_tokens else []
            expected = reference_probability(model, memory, question, [*answer.stream._tokens, *ended])
            assert answer.confidence == pytest.approx(expected, rel=1e-3)
            assert not answer.calibrated


def test_a_calibration_makes_of_it_what_it_is_worth(model: FlashVStream, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = {}
    for rules in (AnswerRules(), AnswerRules(CALIBRATION)):
        monkeypatch.setattr(model, "answers", rules)
        prefilled = prefill(model.new_prefix_cache(), snapshot(model))
        # No conversation was part of what a calibration was found on.
        follow_up = prefilled.start("What?", 1, turns=[("Where?", "here")])
        assert (follow_up.calibrated, follow_up.confidence > 0) == (False, True)
        answer = prefilled.start("What?", 1)
        assert answer.calibrated == (rules.calibration is not None)
        raw[answer.calibrated] = answer.confidence
    assert raw[True] == pytest.approx(CALIBRATION.of(raw[False]))


@pytest.mark.parametrize(("raw", "right"), [(0.0, 0.1), (0.2, 0.1), (0.35, 0.25), (0.75, 0.65), (1.0, 0.9)])
def test_confidence_is_linear_between_points(raw: float, right: float) -> None:
    assert CALIBRATION.of(raw) == pytest.approx(right)
    log_probability = math.log(raw) if raw else -math.inf
    assert AnswerRules(CALIBRATION).confidence(log_probability) == pytest.approx(right)
    assert AnswerRules(CALIBRATION).confidence(log_probability, calibrated=False) == pytest.approx(raw)


def test_a_sum_of_rounded_logarithms_makes_no_confidence_above_one() -> None:
    assert AnswerRules().confidence(1e-7) == 1.0


def test_a_calibration_comes_back_from_json() -> None:
    assert Calibration.from_json(CALIBRATION.to_json()) == CALIBRATION


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        ([], "an object with the lists raw and right"),
        ({"raw": [0, 1]}, "an object with the lists raw and right"),
        ({"raw": [0, 1], "right": [0, 1], "more": 0}, "and no others"),
        ({"raw": [0], "right": [0]}, "1 numbers in raw and 1 in right"),
        ({"raw": [0, 0.5, 1], "right": [0, 1]}, "3 numbers in raw and 2 in right"),
        ({"raw": [0.5, 0.5], "right": [0, 1]}, "raw must rise"),
        ({"raw": [0, 1], "right": [0.5, 0.4]}, "right must not fall"),
        ({"raw": [0, 1.5], "right": [0, 1]}, "raw holds something other than numbers from 0 to 1"),
        ({"raw": [0, 1], "right": [0, math.nan]}, "right holds something other"),
        ({"raw": [0, True], "right": [0, 1]}, "raw holds something other"),
    ],
)
def test_a_calibration_that_cannot_be_used_is_refused(values: object, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        Calibration.from_json(values)


@pytest.mark.parametrize("values", ["not seen", [1], [""], {"a": 1}])
def test_answers_for_not_seen_are_texts(values: object) -> None:
    with pytest.raises(ValueError, match="not_seen_answers must be a list of texts"):
        not_seen_from_json(values)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("not seen", True),
        (" not seen\n", True),
        ("not seen there", False),
        ("I have not seen it.", False),
        ("no", False),
    ],
)
def test_a_model_whose_words_are_known_says_one_of_them(text: str, says: bool) -> None:
    assert AnswerRules(not_seen=("not seen",)).says_not_seen(text) == says


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("I have not seen a green ladder.", True),
        ("I haven't seen it yet.", True),
        ("The ladder was never seen in the video.", True),
        ("There is no ladder visible.", True),
        ("It is not shown in the video", True),
        ("I cannot see a ladder anywhere.", True),
        ("The ladder does not appear in the video.", True),
        ("not seen", True),
        ("The ladder is in the kitchen. I have not seen it move.", False),
        ("In the kitchen, beside the box.", False),
        ("No, the door is closed.", False),
        ("I saw it in the hall", False),
        ("", False),
    ],
)
def test_of_other_models_the_first_sentence_says_it(text: str, says: bool) -> None:
    assert AnswerRules().says_not_seen(text) == says


def test_rows_without_a_question_keep_what_they_have() -> None:
    likelihood = RowLikelihood.zeros(3, CPU)
    rows = torch.tensor([2, 0])
    logits = torch.tensor([[0.0, math.log(3)], [math.nan, 0.0]])
    taking = torch.tensor([True, False])
    assert likelihood.choose(rows, logits, taking, answering=False)[0] == 1
    likelihood.choose(rows, logits, taking, answering=True)
    assert likelihood.log_probability.tolist() == pytest.approx([0, 0, 2 * math.log(3 / 4)])
    grown = likelihood.grown(5)
    assert grown.log_probability.tolist() == pytest.approx([0, 0, 2 * math.log(3 / 4), 0, 0])
    grown.choose(rows, logits, taking, answering=False)
    assert float(grown.log_probability[2]) == pytest.approx(math.log(3 / 4)), "a new question begins anew"
