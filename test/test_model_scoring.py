"""Scores of given texts as whole answers, against the reference path through transformers, one text at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_model_prefix_cache import QUESTIONS, finish, prefill, snapshot

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.snapshot import MemorySnapshot
from fvs_ros.model import scoring
from fvs_ros.model.choosing import ChoiceGeneration
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.model.prefix_cache import PrefilledMemory, PrefixCache
from fvs_ros.model.tiny import tiny_checkpoint

TEXTS = ("yes", "no", "a green ladder, é", "yes, there is one", "ß" * 30)
QUESTION = QUESTIONS[1]


@pytest.fixture(scope="module")
def model() -> FlashVStream:
    memory = FlashMemoryConfig(csm_slots=6, dam_slots=3, window_slots=2, time_code=0.1)
    return FlashVStream(tiny_checkpoint(memory=memory), "tiny")


@pytest.fixture
def cache(model: FlashVStream) -> Iterator[PrefixCache]:
    cache = model.new_prefix_cache()
    yield cache
    cache.close()


def reference_score(model: FlashVStream, memory: MemorySnapshot, question: str, text: str, start: str = "") -> float:
    """The log-probability of the text's tokens, and of any token that ends the answer after them."""
    prompt = model._prompts.build(question, start)
    read = model._reference.prefix(memory, prompt.head)
    assert read is not None
    tokens = list(model._prompts.encode_text(text))
    logits = model._reference.continue_prefix(read, [*prompt.suffix, *tokens], read.next_position)
    model._reference.rewind(read)
    following = logits[len(prompt.suffix) - 1 :].double().log_softmax(-1)
    said = sum(float(row[token]) for row, token in zip(following, tokens, strict=False))
    return said + float(following[-1, list(model._end_tokens)].logsumexp(0))


def run(scored: scoring.TextScoring) -> None:
    while not scored.step():
        pass


def scores(
    prefilled: PrefilledMemory, questions: list[str], texts: list[list[str]], start: str = ""
) -> list[list[float]]:
    scored = prefilled.score(questions, texts, start)
    run(scored)
    return [list(one) for one in scored.log_probabilities]


@settings(deadline=None, max_examples=8)
@given(
    seed=st.integers(0, 999),
    steps=st.sampled_from([1, 6, 30]),
    batch=st.sampled_from([1, 40, 128, 2000]),
    asked=st.lists(
        st.tuples(st.sampled_from(QUESTIONS), st.lists(st.sampled_from(TEXTS), min_size=1, max_size=4)),
        min_size=1,
        max_size=4,
    ),
    start=st.sampled_from(["", "Best option: ("]),
)
def test_scores_equal_the_references_however_they_are_batched(
    model: FlashVStream, seed: int, steps: int, batch: int, asked: list[tuple[str, list[str]]], start: str
) -> None:
    memory, cache = snapshot(model, seed, steps), model.new_prefix_cache()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "BATCH_TOKENS", batch)
        found = scores(prefill(cache, memory), [one for one, _ in asked], [list(texts) for _, texts in asked], start)
    for (question, texts), row in zip(asked, found, strict=True):
        assert row == pytest.approx([reference_score(model, memory, question, text, start) for text in texts], abs=2e-4)


def test_a_batch_at_a_time_is_computed_and_bounded(
    model: FlashVStream, cache: PrefixCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefilled = prefill(cache, snapshot(model))
    most: list[int] = []
    run = cache.decoder._continue

    def watched(prefix: object, rows: object, chunks: list[scoring.SuffixChunk], observed: object) -> object:
        most.append(sum(len(chunk.tokens) for chunk in chunks))
        return run(prefix, rows, chunks, observed)  # type: ignore[arg-type]

    monkeypatch.setattr(cache.decoder, "_continue", watched)
    scored = prefilled.score([f"{'Really? ' * 40}{number}" for number in range(3)], [list(TEXTS)] * 3)
    while not scored.done:
        batches = len(most)
        scored.step()
        assert len(most) == batches + 1
    assert max(most) <= scoring.BATCH_TOKENS
    assert scored.step(), "what is done stays done"


def fails(*_: object) -> None:
    raise MemoryError("full")


def test_a_batch_that_failed_is_computed_again(
    model: FlashVStream, cache: PrefixCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefilled = prefill(cache, snapshot(model))
    (expected,) = scores(prefilled, [QUESTION], [list(TEXTS)])
    scored = prefilled.score([QUESTION], [TEXTS])
    for name in ("extend", "logits_at"):
        with monkeypatch.context() as patch:
            patch.setattr(cache.decoder, name, fails)
            with pytest.raises(MemoryError):
                run(scored)
    run(scored)
    assert list(scored.log_probabilities[0]) == expected


def finish_choice(prefilled: PrefilledMemory, choice: ChoiceGeneration) -> ChoiceGeneration:
    for _ in range(200):
        if choice.done:
            break
        prefilled.decode_step()
    assert choice.done
    choice.close()
    return choice


def test_the_likeliest_text_is_the_answer_with_a_probability_for_each(model: FlashVStream, cache: PrefixCache) -> None:
    memory = snapshot(model)
    prefilled = prefill(cache, memory)
    choice = finish_choice(prefilled, prefilled.start_choice(QUESTION, TEXTS))
    references = [reference_score(model, memory, QUESTION, text) for text in TEXTS]
    assert choice.text == TEXTS[references.index(max(references))]
    assert choice.choice_probabilities is not None
    shares = [math.exp(one - max(references)) for one in references]
    assert choice.choice_probabilities == pytest.approx([one / sum(shares) for one in shares], abs=1e-3)
    assert sum(choice.choice_probabilities) == pytest.approx(1)


def test_a_choice_that_the_model_would_say_itself_rests_on_the_same(model: FlashVStream, cache: PrefixCache) -> None:
    prefilled = prefill(cache, snapshot(model))
    answer = prefilled.start(QUESTION, 6)
    finish(prefilled, answer)
    said = prefilled.start_choice(QUESTION, [answer.text, "ß" * 60])
    assert finish_choice(prefilled, said).text == answer.text
    assert said.relevance is not None
    assert sum(said.relevance) == pytest.approx(1, abs=1e-5)


def test_control_tokens_in_choices_are_read_letter_by_letter(model: FlashVStream, cache: PrefixCache) -> None:
    memory = snapshot(model)
    prefilled = prefill(cache, memory)
    control = "yes<|im_end|>"
    ((score,),) = scores(prefilled, [QUESTION], [[control]])
    assert score == pytest.approx(reference_score(model, memory, QUESTION, control), abs=2e-4)
    assert len(model._prompts.encode_text(control)) > len(model._prompts.encode_text("yes")) + 1
    choice = finish_choice(prefilled, prefilled.start_choice(QUESTION, [control, control + control]))
    assert "<|im_end|>" in choice.text


def test_choosing_disturbs_no_other_answer(model: FlashVStream, cache: PrefixCache) -> None:
    memory = snapshot(model)
    prefilled = prefill(cache, memory)
    first = prefilled.start("What?", 20)
    choice = prefilled.start_choice(QUESTION, TEXTS)
    second = prefilled.start("Wer war da?", 20)
    given_up = prefilled.start_choice(QUESTION, TEXTS)
    given_up.close()
    finish_choice(prefilled, choice)
    texts = finish(prefilled, first, second)
    assert texts == [model.answer(memory, one, max_new_tokens=20) for one in ("What?", "Wer war da?")]
    assert given_up.text == ""


def test_nothing_is_scored_before_the_memory_is_prefilled(model: FlashVStream, cache: PrefixCache) -> None:
    prefilled = cache.allocate(snapshot(model))
    with pytest.raises(RuntimeError, match="only 0 tokens"):
        prefilled.score([QUESTION], [TEXTS])
    with pytest.raises(RuntimeError, match="only 0 tokens"):
        prefilled.start_choice(QUESTION, TEXTS)


def test_a_model_without_end_tokens_scores_the_text_alone() -> None:
    endless = FlashVStream(tiny_checkpoint(memory=FlashMemoryConfig(csm_slots=6, dam_slots=3)), "endless")
    endless._end_tokens = ()
    memory = snapshot(endless)
    ((score,),) = scores(prefill(endless.new_prefix_cache(), memory), [QUESTION], [["yes"]])
    assert math.isfinite(score)
