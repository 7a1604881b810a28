"""Answers from memories that were read ahead, against those of the plain path through transformers."""

import dataclasses
import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.offline import build_memory
from fvs_ros.memory.snapshot import PatchGrid, StepFeatures
from fvs_ros.model import prefix_cache as reader_module
from fvs_ros.model.decoder import Decoder, chunk_tokens
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.model.question_graph import Piece, QuestionStep
from fvs_ros.model.tiny import write_tiny_checkpoint

GRID = PatchGrid(4, 4)
QUESTIONS = ("What?", "Where is the red box, and what is beside it?", "é" * 40, "Wer war da?")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("model")
    write_tiny_checkpoint(folder, memory=FlashMemoryConfig(csm_slots=6, dam_slots=3, window_slots=2, time_code=0.1))
    return FlashVStream.load(str(folder), device="cpu", dtype="float32")


@pytest.fixture
def reader(model):
    reader = model.new_reader()
    yield reader
    reader.close()


def snapshot(model, seed=0, steps=9, grid=GRID):
    generator = torch.Generator().manual_seed(seed)
    features = StepFeatures(
        torch.randn(steps, grid.patches, 64, generator=generator),
        torch.randn(steps, grid.low_patches, 64, generator=generator),
    )
    return build_memory(features, grid, model.memory_config, generator=generator)


def read(reader, memory):
    reading = reader.read(memory)
    while not reading.advance():
        pass
    return reading


def finish(reading, *answers):
    while not all(answer.done for answer in answers):
        reading.step()
    for answer in answers:
        answer.close()
    return [answer.text for answer in answers]


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 999),
    steps=st.sampled_from([1, 2, 5, 6, 7, 30]),
    chunk=st.sampled_from([1, 3, 7, 2048]),
    piece=st.sampled_from([1, 5, 128]),
    asked=st.lists(st.tuples(st.sampled_from(QUESTIONS), st.integers(1, 25)), min_size=1, max_size=5),
)
def test_answers_equal_the_plain_paths_token_for_token(model, seed, steps, chunk, piece, asked) -> None:
    memory, reader = snapshot(model, seed, steps), model.new_reader()
    reader.decoder.chunk = chunk
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader_module, "QUESTION_CHUNK", piece)
        reading = read(reader, memory)
        # They come one after the other, while those before are being answered.
        answers = []
        for question, limit in asked:
            answers.append(reading.ask(question, limit))
            reading.step()
        texts = finish(reading, *answers)
    assert texts == [model.answer(memory, question, max_new_tokens=limit) for question, limit in asked]
    assert all(len(answer.stream._tokens) <= limit for answer, (_, limit) in zip(answers, asked, strict=True))


def test_an_answer_can_be_made_to_begin_with_something(model, reader) -> None:
    memory = snapshot(model)
    reading = read(reader, memory)
    prompt = model._prompts.build("What?", answer_prefix="Best option: (")
    prefix = model._answerer.prefix(memory, prompt.head)
    expected = list(itertools.islice(model._answerer.generate(prefix, prompt.tail), 8))
    answer = reading.ask("What?", 8, "Best option: (")
    finish(reading, answer)
    assert answer.stream._tokens == expected


def test_an_end_token_ends_an_answer_and_no_other(model, reader) -> None:
    memory = snapshot(model)
    reading = read(reader, memory)
    long = reading.ask(QUESTIONS[0], 20)
    (plain,) = finish(reading, long)
    ending = long.stream._tokens[5]
    reader.end_tokens = frozenset({ending})
    first, second = (reading.ask(question, 20) for question in QUESTIONS[:2])
    finish(reading, first, second)
    assert first.stream._tokens == long.stream._tokens[: long.stream._tokens.index(ending)]
    assert plain.startswith(first.text)
    assert ending not in second.stream._tokens


def test_a_memory_is_asked_about_while_the_next_is_read(model, reader) -> None:
    memories = [snapshot(model, seed) for seed in range(4)]
    reader.decoder.chunk = 5
    current = read(reader, memories[0])
    sizes = []
    for before, memory in itertools.pairwise(memories):
        following = reader.read(memory)
        answer = current.ask("What?", 12)
        while not following.advance():
            current.step()
        assert finish(current, answer) == [model.answer(before, "What?", max_new_tokens=12)]
        current.close()
        current = following
        sizes.append(reader.bytes)
    assert finish(current, current.ask("What?", 12)) == [model.answer(memories[-1], "What?", max_new_tokens=12)]
    assert len(set(sizes)) == 1, "all is allocated once"


def test_there_are_two_buffers(model, reader) -> None:
    readings = [reader.read(snapshot(model)) for _ in range(2)]
    with pytest.raises(RuntimeError, match="2 readings are open"):
        reader.read(snapshot(model))
    readings[0].close()
    with pytest.raises(RuntimeError, match="until it is read whole"):
        reader.read(snapshot(model)).ask("What?", 1)


def test_frames_of_another_size_get_buffers_of_theirs(model, reader) -> None:
    read(reader, snapshot(model)).close()
    small = reader.bytes
    wide = snapshot(model, grid=PatchGrid(4, 8))
    reading = read(reader, wide)
    assert reader.bytes > small
    assert finish(reading, reading.ask("What?", 8)) == [model.answer(wide, "What?", max_new_tokens=8)]


def test_an_open_reading_outlives_a_change_of_size(model, reader) -> None:
    narrow, wide = snapshot(model), snapshot(model, grid=PatchGrid(4, 8))
    first = read(reader, narrow)
    answer = first.ask("What?", 8)
    second = read(reader, wide)
    assert finish(first, answer) == [model.answer(narrow, "What?", max_new_tokens=8)]
    mixed = reader.bytes
    first.close()
    third = read(reader, wide)
    assert reader.bytes > mixed, "the smaller buffer made way"
    for reading in (second, third):
        assert finish(reading, reading.ask("Who?", 8)) == [model.answer(wide, "Who?", max_new_tokens=8)]


def test_a_closed_answer_gives_its_place_away(model, reader) -> None:
    memory = snapshot(model)
    reading = read(reader, memory)
    size = reader.bytes
    for _ in range(12):
        given_up = reading.ask("What?", 50)
        reading.step()
        given_up.close()
        given_up.close()
    length = len(given_up.stream._tokens)
    reading.step()
    assert len(given_up.stream._tokens) == length
    assert reader.bytes == size
    assert finish(reading, reading.ask("What?", 9)) == [model.answer(memory, "What?", max_new_tokens=9)]


def test_room_grows_to_the_longest_question_and_the_most_at_once(model, reader) -> None:
    memory = snapshot(model)
    reading = read(reader, memory)
    size = reader.bytes
    asked = [(f"{index} " + "why? " * 40 * (index == 4), 10) for index in range(6)]
    answers = [reading.ask(*one) for one in asked]
    assert finish(reading, *answers) == [model.answer(memory, text, max_new_tokens=limit) for text, limit in asked]
    assert reader.bytes > size


def test_the_captured_step_is_the_same_as_the_plain_one(model, reader) -> None:
    """What is captured on CUDA, run as it is: all places at once, masked to what is there."""
    reading = read(reader, snapshot(model, steps=2))
    asked = ("What?", "Where is it?", "Who?")
    answers = [reading.ask(question, 10) for question in asked]
    # Its keys and values are left behind: whatever lies in a free place must not matter.
    answers.pop(1).close()
    pieces = [
        Piece(answer.slot, [answer.token], answer.length, reading._position + answer.length) for answer in answers
    ]
    tokens = captured_step(reader, reading, 1, pieces)
    reading.step()
    assert [int(tokens[answer.slot]) for answer in answers] == [answer.token for answer in answers]


@pytest.mark.parametrize("length", [64, 128])
def test_a_captured_piece_of_a_question_is_the_same_as_the_plain_one(model, reader, length) -> None:
    """Padded to the length that was captured, beside another question, and continued by a second piece."""
    reading = read(reader, snapshot(model, steps=2))
    other = reading.ask("Where is it?", 10)
    tail = reader.prompts.build("What was on the table before that?").tail
    first, second = tail[:9], tail[9:]
    slot = reader.tails.take(len(tail) + 10)
    captured_step(reader, reading, length, [Piece(slot, first, 0, reading._position)])
    (token,) = captured_step(reader, reading, length, [Piece(slot, second, 9, reading._position + 9)])
    assert int(token) == reading.ask("What was on the table before that?", 10).token
    (text,) = finish(reading, other)
    assert text == model.answer(snapshot(model, steps=2), "Where is it?", max_new_tokens=10)


def captured_step(reader, reading, length, pieces):
    """The tokens that follow, of a memory that does not fill its room."""
    prefix = reading._prefix
    assert prefix.length < prefix.cache.tokens
    step = QuestionStep(reader.decoder, prefix.cache, reader.tails.cache, length)
    step.inputs.copy_(torch.tensor(step.inputs_of(prefix.length, pieces)))
    with torch.no_grad():
        return step()


@pytest.mark.parametrize(
    ("parameters", "device", "tokens"),
    [
        (4e6, "cpu", 64),
        (3e6, "cpu", 128),
        (3e5, "cpu", 1024),
        (6.5e9, "cpu", 16),
        (6.5e9, "cuda", 512),
        (1e6, "cuda", 2048),
    ],
)
def test_a_chunk_takes_about_as_long_on_every_model(parameters, device, tokens) -> None:
    assert chunk_tokens(int(parameters), device) == tokens


def test_a_sliding_window_is_refused(model) -> None:
    language = model._network.model.language_model
    language.has_sliding_layers = True
    try:
        with pytest.raises(ValueError, match="use_sliding_window"):
            Decoder(model._network)
    finally:
        language.has_sliding_layers = False


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_the_captured_step_answers_as_the_plain_path_does(model, tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path, memory=model.memory_config)
    on_gpu = FlashVStream.load(str(tmp_path), device="cuda", dtype="float32")
    reader = on_gpu.new_reader()
    for seed in range(3):
        memory = snapshot(model, seed)
        tensors = {
            field.name: value.cuda()
            for field in dataclasses.fields(memory)
            if isinstance(value := getattr(memory, field.name), torch.Tensor)
        }
        memory = dataclasses.replace(memory, **tensors)
        reading = read(reader, memory)
        answers = [reading.ask(question, 20) for question in QUESTIONS]
        assert finish(reading, *answers) == [on_gpu.answer(memory, text, max_new_tokens=20) for text in QUESTIONS]
        reading.close()
