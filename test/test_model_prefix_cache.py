"""Answers from prefilled memories, against those of the reference path through transformers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.offline import build_memory
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid, StepFeatures
from fvs_ros.model import prefix_cache
from fvs_ros.model.decoder import SuffixChunk
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.model.generation import Generation
from fvs_ros.model.prefix_cache import PrefilledMemory, PrefixCache
from fvs_ros.model.question_graph import QuestionStep
from fvs_ros.model.text_stream import TextStream
from fvs_ros.model.tiny import tiny_checkpoint, write_tiny_checkpoint

GRID = PatchGrid(4, 4)
QUESTIONS = ("What?", "Where is the red box, and what is beside it?", "é" * 40, "Wer war da?")
LIMIT = 20


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> FlashVStream:
    folder = tmp_path_factory.mktemp("model")
    write_tiny_checkpoint(folder, memory=FlashMemoryConfig(csm_slots=6, dam_slots=3, window_slots=2, time_code=0.1))
    return FlashVStream.load(str(folder), device="cpu", dtype="float32")


@pytest.fixture
def cache(model: FlashVStream) -> Iterator[PrefixCache]:
    cache = model.new_prefix_cache()
    yield cache
    cache.close()


def snapshot(model: FlashVStream, seed: int = 0, steps: int = 9, grid: PatchGrid = GRID) -> MemorySnapshot:
    generator = torch.Generator().manual_seed(seed)
    features = StepFeatures(
        torch.randn(steps, grid.patches, 64, generator=generator),
        torch.randn(steps, grid.low_patches, 64, generator=generator),
    )
    return build_memory(features, grid, model.memory_config, generator=generator)


def prefill(cache: PrefixCache, memory: MemorySnapshot) -> PrefilledMemory:
    prefilled = cache.allocate(memory)
    while not prefilled.prefill_chunk():
        pass
    return prefilled


def finish(prefilled: PrefilledMemory, *answers: Generation) -> list[str]:
    while not all(answer.done for answer in answers):
        prefilled.decode_step()
    for answer in answers:
        answer.close()
    return [answer.text for answer in answers]


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 999),
    steps=st.sampled_from([1, 2, 5, 6, 7, 30]),
    chunk=st.sampled_from([1, 3, 7, 2048]),
    question_chunk=st.sampled_from([1, 5, 128]),
    asked=st.lists(st.tuples(st.sampled_from(QUESTIONS), st.integers(1, 25)), min_size=1, max_size=5),
)
def test_answers_equal_the_references_token_for_token(
    model: FlashVStream, seed: int, steps: int, chunk: int, question_chunk: int, asked: list[tuple[str, int]]
) -> None:
    memory, cache = snapshot(model, seed, steps), model.new_prefix_cache()
    cache.decoder.chunk = chunk
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefix_cache, "QUESTION_CHUNK", question_chunk)
        prefilled = prefill(cache, memory)
        # They come one after the other, while those before are being answered.
        answers = []
        for question, limit in asked:
            answers.append(prefilled.start(question, limit))
            prefilled.decode_step()
        texts = finish(prefilled, *answers)
    assert texts == [model.answer(memory, question, max_new_tokens=limit) for question, limit in asked]
    assert all(len(answer.stream._tokens) <= limit for answer, (_, limit) in zip(answers, asked, strict=True))


def test_an_answer_can_be_made_to_begin_with_something(model: FlashVStream, cache: PrefixCache) -> None:
    memory = snapshot(model)
    prefilled = prefill(cache, memory)
    prompt = model._prompts.build("What?", answer_prefix="Best option: (")
    prefix = model._reference.prefix(memory, prompt.head)
    assert prefix is not None
    expected = list(itertools.islice(model._reference.generate(prefix, prompt.suffix), 8))
    answer = prefilled.start("What?", 8, "Best option: (")
    finish(prefilled, answer)
    assert answer.stream._tokens == expected


def test_earlier_turns_are_read_behind_the_same_prefix(model: FlashVStream, cache: PrefixCache) -> None:
    memory, turns = snapshot(model), [("Where is the red box?", "On the <|im_end|> table.")]
    prefilled = prefill(cache, memory)
    with_turns = prefilled.start("And before?", LIMIT, turns=turns)
    alone = prefilled.start("And before?", LIMIT)
    while not (with_turns.done and alone.done):
        prefilled.decode_step()
    assert with_turns.text == model.answer(memory, "And before?", max_new_tokens=LIMIT, turns=turns)
    assert alone.text == model.answer(memory, "And before?", max_new_tokens=LIMIT)
    assert with_turns.text != alone.text
    for answer in (with_turns, alone):
        answer.close()
    prefilled.close()


def test_an_end_token_ends_an_answer_and_no_other() -> None:
    checkpoint = tiny_checkpoint(memory=FlashMemoryConfig(csm_slots=6, dam_slots=3))
    endless = FlashVStream(replace(checkpoint, end_tokens=()), "endless")
    memory = snapshot(endless)
    tokens, others = (generation.stream._tokens for generation in answered(endless, memory, QUESTIONS[:2]))
    assert len(tokens) == len(others) == LIMIT
    ending = next(token for token in tokens if token not in others)
    model = FlashVStream(replace(checkpoint, end_tokens=(ending,)), "ending")
    first, second = answered(model, memory, QUESTIONS[:2])
    assert first.stream._tokens == tokens[: tokens.index(ending)]
    assert second.stream._tokens == others
    assert first.text == model.answer(memory, QUESTIONS[0], max_new_tokens=LIMIT)


def answered(model: FlashVStream, memory: MemorySnapshot, questions: Sequence[str]) -> list[Generation]:
    """The answers to questions that are asked at once."""
    cache = model.new_prefix_cache()
    prefilled = prefill(cache, memory)
    generations = [prefilled.start(question, LIMIT) for question in questions]
    finish(prefilled, *generations)
    cache.close()
    return generations


def test_a_memory_is_asked_about_while_the_next_is_prefilled(model: FlashVStream, cache: PrefixCache) -> None:
    memories = [snapshot(model, seed) for seed in range(4)]
    cache.decoder.chunk = 5
    current = prefill(cache, memories[0])
    sizes = []
    for before, memory in itertools.pairwise(memories):
        following = cache.allocate(memory)
        answer = current.start("What?", 12)
        while not following.prefill_chunk():
            current.decode_step()
        assert finish(current, answer) == [model.answer(before, "What?", max_new_tokens=12)]
        current.close()
        current = following
        sizes.append(cache.bytes)
    assert finish(current, current.start("What?", 12)) == [model.answer(memories[-1], "What?", max_new_tokens=12)]
    assert len(set(sizes)) == 1, "all is allocated once"


def test_there_are_two_buffers(model: FlashVStream, cache: PrefixCache) -> None:
    memories = [cache.allocate(snapshot(model)) for _ in range(2)]
    with pytest.raises(RuntimeError, match="2 memories are open"):
        cache.allocate(snapshot(model))
    memories[0].close()
    with pytest.raises(RuntimeError, match="call prefill_chunk until"):
        cache.allocate(snapshot(model)).start("What?", 1)


def test_frames_of_another_size_get_buffers_of_theirs(model: FlashVStream, cache: PrefixCache) -> None:
    prefill(cache, snapshot(model)).close()
    small = cache.bytes
    wide = snapshot(model, grid=PatchGrid(4, 8))
    prefilled = prefill(cache, wide)
    assert cache.bytes > small
    assert finish(prefilled, prefilled.start("What?", 8)) == [model.answer(wide, "What?", max_new_tokens=8)]


def test_an_open_memory_outlives_a_change_of_size(model: FlashVStream, cache: PrefixCache) -> None:
    narrow, wide = snapshot(model), snapshot(model, grid=PatchGrid(4, 8))
    first = prefill(cache, narrow)
    answer = first.start("What?", 8)
    second = prefill(cache, wide)
    assert finish(first, answer) == [model.answer(narrow, "What?", max_new_tokens=8)]
    mixed = cache.bytes
    first.close()
    third = prefill(cache, wide)
    assert cache.bytes > mixed, "the smaller buffer made way"
    for prefilled in (second, third):
        assert finish(prefilled, prefilled.start("Who?", 8)) == [model.answer(wide, "Who?", max_new_tokens=8)]


def test_a_closed_answer_gives_its_row_away(model: FlashVStream, cache: PrefixCache) -> None:
    memory = snapshot(model)
    prefilled = prefill(cache, memory)
    size = cache.bytes
    for _ in range(12):
        given_up = prefilled.start("What?", 50)
        prefilled.decode_step()
        given_up.close()
        given_up.close()
    length = len(given_up.stream._tokens)
    prefilled.decode_step()
    assert len(given_up.stream._tokens) == length
    assert cache.bytes == size
    assert finish(prefilled, prefilled.start("What?", 9)) == [model.answer(memory, "What?", max_new_tokens=9)]


def test_room_grows_to_the_longest_question_and_the_most_at_once(model: FlashVStream, cache: PrefixCache) -> None:
    memory = snapshot(model)
    prefilled = prefill(cache, memory)
    size = cache.bytes
    asked = [(f"{index} " + "why? " * 40 * (index == 4), 10) for index in range(6)]
    answers = [prefilled.start(*one) for one in asked]
    assert finish(prefilled, *answers) == [model.answer(memory, text, max_new_tokens=limit) for text, limit in asked]
    assert cache.bytes > size


def test_the_captured_step_is_the_same_as_the_plain_one(model: FlashVStream, cache: PrefixCache) -> None:
    """What is captured on CUDA, run as it is: all rows at once, masked to what is filled."""
    prefilled = prefill(cache, snapshot(model, steps=2))
    generations = [prefilled.start(question, 10) for question in ("What?", "Where is it?", "Who?")]
    # Its keys and values are left behind: what a free row holds must not matter.
    generations.pop(1).close()
    chunks = [SuffixChunk(one.row, [one.token], one.length, prefilled._position + one.length) for one in generations]
    logits = captured_logits(cache, prefilled, 1, chunks)[[one.row for one in generations]]
    torch.testing.assert_close(logits, plain_logits(cache, prefilled, chunks), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("length", [64, 128])
def test_a_captured_chunk_of_a_question_is_the_same_as_the_plain_one(
    model: FlashVStream, cache: PrefixCache, length: int
) -> None:
    """Padded to the length that was captured, beside another question, and continued by a second chunk."""
    prefilled = prefill(cache, snapshot(model, steps=2))
    other = prefilled.start("Where is it?", 10)
    suffix = cache.prompts.build("What was on the table before that?").suffix
    generation = Generation(TextStream(model.tokenizer), cache.end_tokens, 10)
    cache.suffixes.allocate(generation, len(suffix) + 10)
    for begin, end in ((0, 9), (9, len(suffix))):
        chunks = [SuffixChunk(generation.row, suffix[begin:end], begin, prefilled._position + begin)]
        logits = captured_logits(cache, prefilled, length, chunks)
        torch.testing.assert_close(logits, plain_logits(cache, prefilled, chunks), atol=1e-4, rtol=1e-4)
    assert int(logits.argmax()) == prefilled.start("What was on the table before that?", 10).token
    assert finish(prefilled, other) == [model.answer(snapshot(model, steps=2), "Where is it?", max_new_tokens=10)]


def captured_logits(
    cache: PrefixCache, prefilled: PrefilledMemory, length: int, chunks: Sequence[SuffixChunk]
) -> Tensor:
    """Logits of a memory that does not fill its buffer, where keys and values of a longer one were left behind."""
    prefix = prefilled._prefix
    for left in (prefix.cache.keys, prefix.cache.values):
        assert prefix.length < prefix.cache.tokens
        left[:, :, prefix.length :] = 3.0
    step = QuestionStep(cache.decoder, prefix.cache, cache.suffixes, length, prefilled._buffer.slot_of_token)
    step.inputs.copy_(torch.tensor(step.inputs_of(prefix.length, chunks)))
    with torch.no_grad():
        logits = step.logits()
        assert torch.equal(step(), logits.argmax(-1))
    return logits


def plain_logits(cache: PrefixCache, prefilled: PrefilledMemory, chunks: Sequence[SuffixChunk]) -> Tensor:
    with torch.no_grad():
        return cache.decoder.extend(prefilled._prefix, cache.suffixes.cache, chunks)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_the_captured_step_answers_as_the_plain_path_does(model: FlashVStream, tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path, memory=model.memory_config)
    on_gpu = FlashVStream.load(str(tmp_path), device="cuda", dtype="float32")
    cache = on_gpu.new_prefix_cache()
    for seed in range(3):
        memory = snapshot(model, seed).to(torch.device("cuda"))
        prefilled = prefill(cache, memory)
        answers = [prefilled.start(question, 20) for question in QUESTIONS]
        assert finish(prefilled, *answers) == [on_gpu.answer(memory, text, max_new_tokens=20) for text in QUESTIONS]
        prefilled.close()
