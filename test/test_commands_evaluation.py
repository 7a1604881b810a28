"""What the commands of `fvs evaluate` share; the commands themselves are run in the tests of what they evaluate."""

from __future__ import annotations

from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fvs_ros.commands.evaluation import UNUSED_STREAM_SETTINGS, exit_code, model_settings, stream_settings
from fvs_ros.evaluation.errors import DataError
from fvs_ros.hashing import config_hash
from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.stream.config import StreamConfig

# What no answer of an evaluation depends on. A setting that is added here must say why in `UNUSED_STREAM_SETTINGS`.
CHANGES_NO_ANSWER = {
    "frame_queue",
    "prefill_share",
    "parallel_questions",
    "question_queue",
    "question_characters",
    "max_new_tokens_limit",
    "timeout_s",
    "model_timeout_s",
    "watch_share",
    "watch_true_from",
    "watch_false_below",
}
STREAM = sorted({one.name for one in fields(StreamConfig)} - CHANGES_NO_ANSWER)
MEMORY = [one.name for one in fields(FlashMemoryConfig)]


def model(memory: FlashMemoryConfig | None = None, **changes: object) -> Any:
    known: dict[str, object] = {"device": torch.device("cpu"), "dtype": torch.float32}
    return SimpleNamespace(
        fingerprint=lambda: "abc", memory_config=memory or FlashMemoryConfig(), **{**known, **changes}
    )


def test_settings_that_are_left_out_are_those_that_change_no_answer_and_say_why() -> None:
    assert set(UNUSED_STREAM_SETTINGS) == CHANGES_NO_ANSWER
    assert all(UNUSED_STREAM_SETTINGS.values())


@pytest.mark.parametrize("name", STREAM)
def test_every_setting_of_the_stream_that_changes_answers_makes_another_run(name: str) -> None:
    default = StreamConfig()
    changed = replace(default, **{name: getattr(default, name) + 1})
    assert config_hash(stream_settings(changed)) != config_hash(stream_settings(default))


@pytest.mark.parametrize("name", MEMORY)
def test_every_size_of_the_memory_makes_another_run(name: str) -> None:
    value = getattr(FlashMemoryConfig(), name)
    other: Any = "sample" if isinstance(value, str) else value + 1
    changed = replace(FlashMemoryConfig(), **{name: other})
    assert config_hash(model_settings(model(changed))) != config_hash(model_settings(model()))


@pytest.mark.parametrize(
    "changes",
    [{"fingerprint": lambda: "def"}, {"device": torch.device("cuda")}, {"dtype": torch.bfloat16}],
    ids=["weights", "device", "dtype"],
)
def test_other_weights_devices_and_precisions_make_another_run(changes: dict[str, object]) -> None:
    other = model()
    vars(other).update(changes)
    assert config_hash(model_settings(other)) != config_hash(model_settings(model()))


def test_what_cannot_be_used_is_one_line_and_exit_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        raise DataError("q.jsonl", "line 3", "is no JSON")

    assert exit_code("replay", work) == 1
    assert capsys.readouterr().err == "fvs evaluate replay: q.jsonl: line 3: is no JSON\n"
    assert exit_code("replay", lambda: 0) == 0


def test_a_fault_of_the_program_is_not_hidden() -> None:
    def work() -> int:
        raise KeyError("moments")

    with pytest.raises(KeyError):
        exit_code("replay", work)
