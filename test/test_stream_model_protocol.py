"""What the engine relies on, held against the model that its tests use and against a real one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from fakes import FakeModel
from small_networks import model_of, qwen3_vl

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.geometry import LEAST_PIXELS
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.model.preprocess import QWEN3_VL_PIXELS
from fvs_ros.model.tiny import tiny_checkpoint
from fvs_ros.stream.model_protocol import StreamGeneration, StreamModel, StreamPrefilledMemory, StreamPrefixCache

QUESTION = "What is it?"
LIMIT = 5


def fake_model() -> StreamModel:
    model = FakeModel(csm_slots=6, dam_slots=3)
    model.chunks_of_a_memory = 3
    return model


def real_model() -> StreamModel:
    return FlashVStream(tiny_checkpoint(memory=FlashMemoryConfig(csm_slots=6, dam_slots=3)), "tiny")


def qwen3_vl_model() -> StreamModel:
    """Whose memory is told with words among its tokens."""
    return model_of(qwen3_vl(), FlashMemoryConfig(csm_slots=6, dam_slots=3), QWEN3_VL_PIXELS)


@pytest.fixture(params=[fake_model, real_model, qwen3_vl_model], ids=["fake", "real", "Qwen3-VL"])
def model(request: pytest.FixtureRequest) -> StreamModel:
    made: StreamModel = request.param()
    return made


@pytest.fixture
def cache(model: StreamModel) -> Iterator[StreamPrefixCache]:
    """Closed at the end, which the fake refuses unless every memory was closed."""
    made = model.new_prefix_cache()
    yield made
    made.close()


def frames(count: int, seed: int = 0, size: tuple[int, int] = (60, 80)) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]


def grid_of(model: StreamModel) -> PatchGrid:
    return model.frame_grid(60, 80, LEAST_PIXELS, LEAST_PIXELS)


def snapshot(model: StreamModel, steps: int = 5, seed: int = 0) -> MemorySnapshot:
    memory = model.new_memory(grid_of(model))
    features = model.encode_steps(frames(2 * steps, seed), grid_of(model))
    memory.append(features.high, features.low, range(0, 2 * steps, 2), range(1, 2 * steps, 2))
    return memory.snapshot()


def prefilled(cache: StreamPrefixCache, memory: MemorySnapshot) -> StreamPrefilledMemory:
    made = cache.allocate(memory)
    while not made.prefill_chunk():
        pass
    return made


def finish(memory: StreamPrefilledMemory, generation: StreamGeneration) -> str:
    """Decodes to the end, in at most as many steps as the answer may have tokens."""
    for _ in range(LIMIT):
        if not generation.done:
            memory.decode_step()
    assert generation.done
    generation.close()
    return generation.text


def test_a_model_says_what_it_is(model: StreamModel) -> None:
    assert model.name
    assert model.device.type == "cpu"
    assert (model.memory_config.csm_slots, model.memory_config.dam_slots) == (6, 3)
    assert model.control_tokens_in("a <|im_end|> b") == ["<|im_end|>"]
    assert model.control_tokens_in("a question") == []


def test_a_condition_is_checked_by_what_the_model_answers(model: StreamModel) -> None:
    check = model.condition_check("the door is open")
    assert check.questions[0] == "Is it true that the door is open?"
    surely = [[0.0, *[-50.0] * (len(texts) - 1)] for texts in check.texts]
    assert len(surely) == len(check.questions)
    assert check.probability(surely) == pytest.approx(1.0)
    assert check.probability([scores[::-1] for scores in surely]) == pytest.approx(0.0)


def test_steps_have_features_on_both_resolutions(model: StreamModel) -> None:
    grid = grid_of(model)
    features = model.encode_steps([*frames(4), *frames(2, size=(33, 20))], grid)
    assert features.high.shape[:2] == (3, grid.patches)
    assert features.low.shape[:2] == (3, grid.low_patches)
    assert features.high.shape[2] == features.low.shape[2]


@pytest.mark.parametrize("count", [0, 3])
def test_half_a_step_is_refused(model: StreamModel, count: int) -> None:
    with pytest.raises(ValueError, match=f"got {count} frames"):
        model.encode_steps(frames(count), grid_of(model))


def test_a_memory_begins_empty_and_takes_steps_with_their_stamps(model: StreamModel) -> None:
    memory = model.new_memory(grid_of(model))
    assert memory.steps == 0
    assert memory.bytes > 0
    features = model.encode_steps(frames(8), grid_of(model))
    memory.append(features.high, features.low, [0, 10, 20, 30], [5, 15, 25, 35])
    assert memory.steps == 4
    assert set(memory.candidate_steps().tolist()) <= {0, 1, 2, 3}
    taken = memory.snapshot()
    assert taken.steps == 4
    assert 0 < taken.tokens <= model.memory_config.tokens(taken.grid)
    provisional = memory.snapshot((features.high[0], features.low[0], 40))
    assert (provisional.steps, memory.steps) == (5, 4)


def test_a_prefill_comes_in_chunks_and_questions_after_it(model: StreamModel, cache: StreamPrefixCache) -> None:
    memory = cache.allocate(snapshot(model))
    with pytest.raises(RuntimeError, match="prefilled"):
        memory.start(QUESTION, LIMIT)
    chunks = 1
    while not memory.prefill_chunk():
        chunks += 1
        assert chunks < 100
    assert chunks > 1, "a question waits for one chunk, not for the whole memory"
    assert memory.prefill_chunk(), "complete is complete"
    assert finish(memory, memory.start(QUESTION, LIMIT))
    memory.close()


def test_an_answer_grows_by_a_token_a_step_up_to_its_limit(model: StreamModel, cache: StreamPrefixCache) -> None:
    memory = prefilled(cache, snapshot(model))
    generation = memory.start(QUESTION, LIMIT)
    texts = [generation.text]
    while not generation.done:
        memory.decode_step()
        texts.append(generation.text)
    assert len(texts) == LIMIT
    assert all(after.startswith(before) for before, after in itertools.pairwise(texts))
    memory.decode_step()
    assert generation.text == texts[-1], "a complete answer stays as it is"
    one = memory.start(QUESTION, 1)
    assert one.done
    for answer in (generation, one):
        answer.close()
    memory.close()


def test_an_answer_can_be_the_likeliest_of_given_texts(model: StreamModel, cache: StreamPrefixCache) -> None:
    memory = prefilled(cache, snapshot(model))
    scoring = memory.score([QUESTION, "Who?"], [["yes", "no, never"], ["nobody"]])
    batches = 0
    while not scoring.done:
        assert scoring.step() == scoring.done
        batches += 1
        assert batches < 100
    first, second = scoring.log_probabilities
    assert (len(first), len(second)) == (2, 1)
    assert max(*first, *second) < 0
    choice = memory.start_choice(QUESTION, ["yes", "no, never"])
    for _ in range(100):
        if not choice.done:
            memory.decode_step()
    assert choice.done
    assert choice.text == ("yes" if first[0] > first[1] else "no, never")
    assert choice.choice_probabilities is not None
    assert sum(choice.choice_probabilities) == pytest.approx(1)
    choice.close()
    plain = memory.start(QUESTION, 1)
    assert plain.choice_probabilities is None
    plain.close()
    memory.close()


def test_answers_do_not_disturb_each_other(model: StreamModel, cache: StreamPrefixCache) -> None:
    memory = prefilled(cache, snapshot(model))
    alone = [finish(memory, memory.start(question, LIMIT)) for question in (QUESTION, "Who?")]
    first = memory.start(QUESTION, LIMIT)
    memory.decode_step()
    given_up = memory.start("Where?", LIMIT)
    second = memory.start("Who?", LIMIT)
    memory.decode_step()
    given_up.close()
    given_up.close()
    left = given_up.text
    assert [finish(memory, first), finish(memory, second)] == alone
    assert given_up.text == left, "a closed answer gets no more tokens"
    memory.close()


def test_a_prefix_is_no_part_of_the_text(model: StreamModel, cache: StreamPrefixCache) -> None:
    memory = prefilled(cache, snapshot(model))
    assert not finish(memory, memory.start(QUESTION, LIMIT, "Best option: (")).startswith("Best")
    memory.close()


def test_two_memories_are_open_at_once_and_no_third(model: StreamModel, cache: StreamPrefixCache) -> None:
    old, new = snapshot(model, steps=2), snapshot(model, steps=5, seed=1)
    first = prefilled(cache, old)
    expected = finish(first, first.start(QUESTION, LIMIT))
    running = first.start(QUESTION, LIMIT)
    second = prefilled(cache, new)
    with pytest.raises(RuntimeError, match="2 memories are open"):
        cache.allocate(old)
    assert finish(first, running) == expected, "it went on from the memory that it began with"
    other = finish(second, second.start(QUESTION, LIMIT))
    first.close()
    third = prefilled(cache, new)
    assert finish(third, third.start(QUESTION, LIMIT)) == other
    for memory in (second, third):
        memory.close()
