"""Files of answers: resumed, locked, merged, and never mixed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fvs_ros.evaluation.answers import ANSWERS, AnswerFile, AnswerRow, claim_folder, merge, read_answers
from fvs_ros.evaluation.benchmarks.predictions import read_predictions
from fvs_ros.evaluation.benchmarks.shards import Shard, shard_files
from fvs_ros.evaluation.errors import DataError
from fvs_ros.hashing import config_hash

SETTINGS = {"model": "abc", "max_frames": 240}


def row(identity: object, response: str | None = "A", **fields: Any) -> AnswerRow:
    return AnswerRow(str(identity), "What?\n(A) one\n(B) two", 0, response, **fields)


def test_answers_are_on_disk_at_once_and_carry_the_hash(tmp_path: Path) -> None:
    config = claim_folder(tmp_path / "out", SETTINGS)
    path = tmp_path / "out" / ANSWERS
    with AnswerFile(path, config) as answers:
        answers.append(row(1, total_s=0.5))
        assert [json.loads(line)["config"] for line in path.read_text().splitlines()] == [config]
    with AnswerFile(path, config) as answers:
        assert answers.rows == {"1": row(1, total_s=0.5, config=config)}
        answers.append(row(2))
    assert [*read_answers([path], config)] == ["1", "2"]
    assert read_predictions([path])["2"].row.response == "A"


def test_failures_and_a_line_cut_off_are_tried_again(tmp_path: Path) -> None:
    config = claim_folder(tmp_path, SETTINGS)
    path = tmp_path / ANSWERS
    with AnswerFile(path, config) as answers:
        answers.append(row(1))
        answers.append(row(2, None, error="the video is broken"))
        answers.append(row(3, "B"))
    path.write_bytes(path.read_bytes()[:-5])
    with AnswerFile(path, config) as answers:
        assert [*answers.rows] == ["1"]
        answers.append(row(2))
    assert [*read_answers([path], config)] == ["1", "2"]


def test_another_configuration_is_refused_with_the_setting_that_differs(tmp_path: Path) -> None:
    claim_folder(tmp_path, SETTINGS)
    assert claim_folder(tmp_path, SETTINGS) == config_hash(SETTINGS)
    with pytest.raises(DataError, match="a run with max_frames 240, this one has 120; choose another folder"):
        claim_folder(tmp_path, SETTINGS | {"max_frames": 120})
    (tmp_path / ANSWERS).write_text(row(1, config="abc").to_json() + "\n")
    with pytest.raises(DataError, match="line 1: was made with config abc, not def"):
        AnswerFile(tmp_path / ANSWERS, "def")


def test_answers_whose_configuration_is_not_known_are_not_continued(tmp_path: Path) -> None:
    (tmp_path / ANSWERS).write_text(row(1, config="abc").to_json() + "\n")
    with pytest.raises(DataError, match=r"no config\.json beside it"):
        claim_folder(tmp_path, SETTINGS)


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    config = claim_folder(tmp_path, SETTINGS)
    with AnswerFile(tmp_path / ANSWERS, config), pytest.raises(DataError, match="being written by another process"):
        AnswerFile(tmp_path / ANSWERS, config)
    AnswerFile(tmp_path / ANSWERS, config).close()


def test_shards_merge_in_the_order_of_the_questions_once_nothing_is_missing(tmp_path: Path) -> None:
    config = claim_folder(tmp_path, SETTINGS)
    order = [str(index) for index in range(5)]
    shards = [Shard(rank, 2) for rank in range(2)]
    assert sorted(shards[0].share(order) + shards[1].share(order)) == order
    with AnswerFile(tmp_path / shards[1].file, config) as answers:
        answers.append(row(3, "B"))
        answers.append(row(1, None, error="broken"))
    assert merge(tmp_path, shard_files(tmp_path), order, config) == 3
    assert not (tmp_path / ANSWERS).exists()
    with AnswerFile(tmp_path / shards[0].file, config) as answers:
        for identity in shards[0].share(order):
            answers.append(row(identity))
    assert merge(tmp_path, shard_files(tmp_path), order, config) == 0
    merged = read_answers([tmp_path / ANSWERS], config)
    assert [*merged] == order
    assert (merged["1"].response, merged["1"].error, merged["3"].response) == (None, "broken", "B")
    # One more try of the failed question, by a single process.
    with AnswerFile(tmp_path / ANSWERS, config) as answers:
        assert "1" not in answers.rows
        answers.append(row(1, "A"))
    assert merge(tmp_path, shard_files(tmp_path), order, config) == 0
    assert read_answers([tmp_path / ANSWERS], config)["1"].response == "A"


def test_two_runs_of_one_shard_are_told_apart(tmp_path: Path) -> None:
    config = claim_folder(tmp_path, SETTINGS)
    for name, response in (("answers-00000-of-00002.jsonl", "A"), ("answers-00001-of-00002.jsonl", "B")):
        with AnswerFile(tmp_path / name, config) as answers:
            answers.append(row(1, response))
    with pytest.raises(
        DataError,
        match=r"00001-of-00002\.jsonl: id 1: has another answer in answers-00000-of-00002\.jsonl; these are two runs",
    ):
        merge(tmp_path, shard_files(tmp_path), ["1"], config)


def test_predictions_of_two_configurations_are_not_scored_together(tmp_path: Path) -> None:
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path, identity, config in zip(paths, "12", ("abc", "def"), strict=True):
        path.write_text(row(identity, config=config).to_json() + "\n")
    with pytest.raises(DataError, match="config 'def' here and 'abc' in"):
        read_predictions(paths)


@pytest.mark.parametrize(
    ("environment", "shard"),
    [
        ({}, Shard(0, 1)),
        ({"RANK": "", "WORLD_SIZE": ""}, Shard(0, 1)),
        ({"RANK": "1", "WORLD_SIZE": "4"}, Shard(1, 4)),
    ],
)
def test_the_shard_of_the_environment(environment: dict[str, str], shard: Shard) -> None:
    assert Shard.from_environment(environment) == shard


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "1"}, "RANK='1', WORLD_SIZE=''; set both"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK='x'"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE='0'"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "rank 2 of 2 processes"),
    ],
)
def test_a_wrong_environment_is_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Shard.from_environment(environment)
