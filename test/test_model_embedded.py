"""The model that ships, and the recording beside it: what its answers mean, not what shape they have."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping

import pytest
import torch

from fvs_ros.evaluation.questions import TimedQuestion, read_questions
from fvs_ros.evaluation.timed.controls import MEMORY, Condition
from fvs_ros.evaluation.timed.stream_run import Reply, RunOptions, StreamQuestion, StreamRun
from fvs_ros.memory.geometry import PATCH
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.model.names import EMBEDDED, EMBEDDED_FOLDER, EMBEDDED_RECORDING
from fvs_ros.patrol.config import FRAME_SIZE, TEST_SEED
from fvs_ros.patrol.questions import FAMILIES
from fvs_ros.sources.bags import Bag
from fvs_ros.sources.frame import Frame
from fvs_ros.sources.recordings import BagSource
from fvs_ros.stream.config import StreamConfig

LONGEST_ANSWER = 32
LAST4 = Condition.parse("last4")
MEGABYTE = 2**20

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


@pytest.fixture(scope="module")
def replies(model: FlashVStream, questions: list[TimedQuestion], frames: list[Frame]) -> Replies:
    """Replies by condition and question, at the questions' own stamps."""
    stream = StreamConfig(min_pixels=FRAME_SIZE**2, max_pixels=FRAME_SIZE**2, max_new_tokens=LONGEST_ANSWER)
    asked = [StreamQuestion(one.id, one.time_ns, one.question) for one in questions]
    found: Replies = defaultdict(dict)
    for reply in StreamRun(model, RunOptions(stream, conditions=(MEMORY, LAST4))).replies(frames, asked):
        found[reply.condition][reply.question.id] = reply
    return found


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
    rows = [(one.question, truth(one), replies[MEMORY][one.id].text) for one in questions]
    assert right(replies[MEMORY], questions) >= 0.8, [row for row in rows if row[1] != row[2]]


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
    for needed in ("config/train/patrol.yaml", "seed", "fvs evaluate patrol", "## Limits", model.fingerprint()):
        assert needed in card
