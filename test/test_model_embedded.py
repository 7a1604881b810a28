"""The model that ships, and the recording beside it: what its answers mean, not what shape they have."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from fvs_ros.evaluation.questions import TimedQuestion, read_questions
from fvs_ros.evaluation.timed.breakdowns import GRID_STEP_S, missed_s
from fvs_ros.evaluation.timed.controls import MEMORY, Condition
from fvs_ros.evaluation.timed.stream_run import Reply, RunOptions, StreamQuestion, StreamRun
from fvs_ros.memory.geometry import PATCH
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.model.names import EMBEDDED, EMBEDDED_FOLDER, EMBEDDED_RECORDING
from fvs_ros.patrol import templates_outside
from fvs_ros.patrol.config import FRAME_SIZE, TEST_SEED, Wording
from fvs_ros.patrol.questions import FAMILIES
from fvs_ros.patrol.vocabulary import OUTSIDE_ANSWER
from fvs_ros.sources.bags import Bag
from fvs_ros.sources.frame import Frame
from fvs_ros.sources.recordings import BagSource
from fvs_ros.stream.config import StreamConfig

LONGEST_ANSWER = 32
LAST4 = Condition.parse("last4")
MEGABYTE = 2**20

OUTSIDE_OF_EACH_KIND = 6
WORDS_OF_A_STRANGER = Path(__file__).parent / "everyday"
EVERYDAY = (
    ("950000-0-0002", "which rooms have you been in, in order?", "office and storeroom"),
    ("950000-0-0006", "did you see an orange table", "no"),
    ("950000-0-0008", "what was the first room?", "office"),
    ("950000-0-0010", "where's my white table", "here"),
    ("950000-0-0010", "Where did I leave the red toolbox?", OUTSIDE_ANSWER),
    ("950000-0-0011", "where are you right now", "garage"),
    ("950000-0-0013", "count the yellow objects you saw", "one"),
    ("950000-0-0018", "What do you see?", "orange ladder"),
    ("950000-0-0018", "What is the weather like?", OUTSIDE_ANSWER),
    ("950000-0-0020", "did you see a green chair?", "yes"),
)
"""Typed as people do: asked together with a question of the recording, whose answer each has unless it is outside."""

Replies = dict[Condition, dict[str, Reply]]


@pytest.fixture(scope="module")
def model() -> FlashVStream:
    return FlashVStream.load(EMBEDDED, device="cpu")


@pytest.fixture(scope="module")
def questions() -> list[TimedQuestion]:
    return read_questions(EMBEDDED_RECORDING / "questions.jsonl")


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    source = BagSource(Bag(EMBEDDED_RECORDING))
    kept = list(source.frames())
    source.close()
    return kept


def ask(model: FlashVStream, frames: list[Frame], asked: list[StreamQuestion], *conditions: Condition) -> Replies:
    """Replies by condition and question."""
    stream = StreamConfig(min_pixels=FRAME_SIZE**2, max_pixels=FRAME_SIZE**2, max_new_tokens=LONGEST_ANSWER)
    found: Replies = defaultdict(dict)
    for reply in StreamRun(model, RunOptions(stream, conditions=conditions)).replies(frames, asked):
        found[reply.condition][reply.question.id] = reply
    return found


def at_their_stamps(questions: list[TimedQuestion]) -> list[StreamQuestion]:
    return [StreamQuestion(one.id, one.time_ns, one.question) for one in questions]


@pytest.fixture(scope="module")
def replies(model: FlashVStream, questions: list[TimedQuestion], frames: list[Frame]) -> Replies:
    return ask(model, frames, at_their_stamps(questions), MEMORY, LAST4)


def truth(question: TimedQuestion) -> object:
    return question.choices[int(str(question.answer))] if question.choices else question.answer


def right(replies: Mapping[str, Reply], questions: list[TimedQuestion]) -> float:
    return sum(replies[one.id].text == truth(one) for one in questions) / len(questions)


def test_what_ships_is_small_and_holds_no_pickle() -> None:
    files = [path for path in EMBEDDED_FOLDER.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files if path.suffix == ".safetensors") < 40 * MEGABYTE
    assert {path.suffix for path in files} == {".safetensors", ".json", ".md"}
    assert {path.suffix for path in EMBEDDED_RECORDING.iterdir()} == {".mcap", ".yaml", ".jsonl"}
    assert sum(path.stat().st_size for path in EMBEDDED_RECORDING.iterdir()) < 3 * MEGABYTE


def test_the_recording_lasts_minutes_and_comes_from_a_seed_for_tests(
    questions: list[TimedQuestion], frames: list[Frame]
) -> None:
    assert frames[-1].stamp_ns - frames[0].stamp_ns >= 180e9
    assert all(int(one.id.partition("-")[0]) >= TEST_SEED for one in questions)
    assert {one.family for one in questions} == set(FAMILIES)
    assert len(questions) >= 20


def test_it_answers_the_recordings_questions(replies: Replies, questions: list[TimedQuestion]) -> None:
    """22 of 28 when these weights were made: few beside the 2,240 questions of the card, 82 percent of them right."""
    rows = [(one.question, truth(one), replies[MEMORY][one.id].text) for one in questions]
    assert right(replies[MEMORY], questions) >= 0.75, [row for row in rows if row[1] != row[2]]


def test_what_lies_long_ago_needs_the_memory(replies: Replies, questions: list[TimedQuestion]) -> None:
    """The evidence ended before the last 4 steps, 8 s, that the control sees."""
    old = [one for one in questions if one.proof_ns and one.time_ns - max(end for _, end in one.proof_ns) > 16e9]
    assert len(old) >= 5
    assert right(replies[MEMORY], old) >= right(replies[LAST4], old) + 0.25


def test_an_answer_comes_with_moments_of_the_past(replies: Replies, questions: list[TimedQuestion]) -> None:
    for one in questions:
        moments = replies[MEMORY][one.id].moments
        assert moments
        assert all(moment.stamp_ns <= one.time_ns for moment in moments)


def test_answers_rest_on_what_proves_them(replies: Replies, questions: list[TimedQuestion]) -> None:
    """21 of 28 first moments lay within a proof, or a step off, when these weights were made; 80 percent are wanted."""
    missed = {one.id: missed_s(one, replies[MEMORY][one.id].moments, 1) for one in questions if one.proof_ns}
    hits = sum(miss is not None and miss <= GRID_STEP_S for miss in missed.values())
    assert hits >= 0.7 * len(missed), {name: miss for name, miss in missed.items() if miss}


def memories(model: FlashVStream, frames: list[Frame], count: int) -> Iterator[MemorySnapshot]:
    """Snapshots after equal parts of the recording."""
    grid = PatchGrid(FRAME_SIZE // PATCH, FRAME_SIZE // PATCH)
    memory = model.new_memory(grid)
    steps = len(frames) // 2
    features = model.encode_steps([frame.image() for frame in frames[: 2 * steps]], grid)
    borders = [steps * (part + 1) // count for part in range(count)]
    stamps = [frame.stamp_ns for frame in frames]
    begin = 0
    for border in borders:
        memory.append(
            features.high[begin:border],
            features.low[begin:border],
            stamps[2 * begin : 2 * border : 2],
            stamps[2 * begin + 1 : 2 * border : 2],
        )
        begin = border
        yield memory.snapshot()


NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize(
    ("device", "dtype", "least"),
    [("cpu", "float32", 1.0), pytest.param("cuda", "bfloat16", 0.99, marks=NEEDS_CUDA)],
)
def test_prefilled_answers_agree_with_the_plain_path(
    device: str, dtype: str, least: float, frames: list[Frame], questions: list[TimedQuestion]
) -> None:
    """On the greedy tokens of 100 answers, compared place by place, their ends included."""
    on_device = FlashVStream.load(EMBEDDED, device=device, dtype=dtype)
    cache = on_device.new_prefix_cache()
    texts = list(dict.fromkeys(one.question for one in questions))
    count = -(-100 // len(texts))
    agreed = total = 0
    for snapshot in memories(on_device, frames, count):
        prefilled = cache.allocate(snapshot)
        while not prefilled.prefill_chunk():
            pass
        for text in texts:
            answer = prefilled.start(text, LONGEST_ANSWER)
            while not answer.done:
                prefilled.decode_step()
            answer.close()
            plain = on_device.answer(snapshot, text, max_new_tokens=LONGEST_ANSWER)
            ours, theirs = ([*on_device.tokenizer.tokenize(one), "end"] for one in (answer.text, plain))
            agreed += sum(one == other for one, other in zip(ours, theirs, strict=False))
            total += max(len(ours), len(theirs))
        prefilled.close()
    cache.close()
    assert count * len(texts) >= 100
    assert total >= 100
    assert agreed >= least * total, (agreed, total)


def test_the_card_tells_what_the_weights_are(model: FlashVStream) -> None:
    card = (EMBEDDED_FOLDER / "README.md").read_text()
    config = json.loads((EMBEDDED_FOLDER / "config.json").read_text())
    assert config["model_type"] == "flash_vstream_qwen2_vl"
    recipes = tuple(f"config/train/{name}.yaml" for name in ("patrol", "patrol_wording", "patrol_days"))
    for needed in (*recipes, "seed", "fvs evaluate patrol", "## Limits", model.fingerprint()):
        assert needed in card


@pytest.fixture(scope="module")
def declined(model: FlashVStream, frames: list[Frame]) -> dict[str, list[bool]]:
    """Whether questions from outside got the one honest answer, asked after the recording, by kind."""
    numbers = np.random.default_rng(0)
    asked, kinds = [], {}
    for template in templates_outside.TEMPLATES:
        wording = Wording.HELD_OUT if template.held_out else Wording.TRAINED
        for number in range(OUTSIDE_OF_EACH_KIND):
            identity = f"{template.name}-{number}"
            kinds[identity] = template.name
            asked.append(StreamQuestion(identity, frames[-1].stamp_ns, template.question({}, wording, numbers)))
    found: dict[str, list[bool]] = defaultdict(list)
    for identity, reply in ask(model, frames, asked, MEMORY)[MEMORY].items():
        found[kinds[identity]].append(reply.text == OUTSIDE_ANSWER)
    return found


@pytest.mark.parametrize(("held_out", "wanted"), [(False, 0.9), (True, 0.85)])
def test_questions_from_outside_its_world_get_one_honest_sentence(
    declined: dict[str, list[bool]], held_out: bool, wanted: float
) -> None:
    # Over 40 patrols it is 99 percent of the trained kinds and 94 of the others, see the card.
    kinds = [template.name for template in templates_outside.TEMPLATES if template.held_out == held_out]
    said = [one for kind in kinds for one in declined[kind]]
    assert sum(map(len, declined.values())) > 300
    assert sum(said) / len(said) >= wanted, {kind: declined[kind] for kind in kinds if not all(declined[kind])}


def test_what_newcomers_ask_is_answered(
    model: FlashVStream, questions: list[TimedQuestion], frames: list[Frame]
) -> None:
    stamps = {one.id: one.time_ns for one in questions}
    asked = [StreamQuestion(text, stamps[same], text) for same, text, _ in EVERYDAY]
    found = ask(model, frames, asked, MEMORY)[MEMORY]
    assert {text: reply.text for text, reply in found.items()} == {text: answer for _, text, answer in EVERYDAY}


def test_everyday_words_of_a_stranger_are_understood(model: FlashVStream, frames: list[Frame]) -> None:
    """Questions of the recording, and from outside, in words of somebody who had seen neither grammar nor training."""
    inside = read_questions(WORDS_OF_A_STRANGER / "questions.jsonl")
    outside = (WORDS_OF_A_STRANGER / "outside.txt").read_text().splitlines()
    asked = at_their_stamps(inside) + [StreamQuestion(text, frames[-1].stamp_ns, text) for text in outside]
    found = ask(model, frames, asked, MEMORY)[MEMORY]
    # 71 of 84 and 116 of 120 when these weights were made; the weights before had 26 and none.
    assert right(found, inside) >= 0.75
    assert sum(found[text].text == OUTSIDE_ANSWER for text in outside) / len(outside) >= 0.92
