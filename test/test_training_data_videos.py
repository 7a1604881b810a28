import json
from pathlib import Path
from typing import Any

import pytest
from training_videos import draw_frames, entry

from fvs_ros.training.config import VideoData
from fvs_ros.training.data.videos import VideoEpisodes
from fvs_ros.training.errors import TrainingError


def read(folder: Path, entries: Any, name: str = "data.json") -> VideoEpisodes:
    file = folder / name
    lines = name.endswith(".jsonl")
    file.write_text("\n".join(map(json.dumps, entries)) if lines else json.dumps(entries))
    return VideoEpisodes(VideoData((str(file),), str(folder)))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    draw_frames(tmp_path / "clips/a", ("red", "blue"))
    return tmp_path


@pytest.mark.parametrize("name", ["data.json", "data.jsonl"])
def test_turns_are_read_without_placeholders(root: Path, name: str) -> None:
    episodes = read(root, [entry("clips/a", ("what?", "a ball"), ("sure?", "yes"))] * 2, name)
    (moment,) = episodes.episode(1).moments
    assert len(episodes) == 2
    assert moment.steps is None
    assert moment.conversations[0].turns == (("what?", "a ball"), ("sure?", "yes"))


@pytest.mark.parametrize(
    ("text", "read_as"),
    [("<image>\nwhat?", "what?"), ("what?\n<image>", "what?"), ("<video>what?", "what?"), ("a < b", "a < b")],
)
def test_placeholders_of_every_kind_go(root: Path, text: str, read_as: str) -> None:
    turns = [{"from": "user", "value": text}, {"from": "assistant", "value": "<image> stays in answers"}]
    episodes = read(root, [{"video": "clips/a", "conversations": turns}])
    assert episodes.episode(0).moments[0].conversations[0].turns == ((read_as, "<image> stays in answers"),)


@pytest.mark.parametrize("video", [{"video": "clips/a"}, {"video": "clips/a.mp4"}, {"videos": ["clips/a"]}])
def test_a_folder_of_frames_is_found_by_each_of_its_names(root: Path, video: dict[str, Any]) -> None:
    row = entry("", ("what?", "a ball"))
    del row["video"]
    assert len(read(root, [{**row, **video}]).frames(0)) == 4


def test_identity_changes_with_the_video(root: Path) -> None:
    episodes = read(root, [entry("clips/a", ("what?", "a ball"))])
    before = episodes.episode(0).identity
    assert episodes.episode(0).identity == before
    (root / "clips/a/000001.jpg").write_bytes(b"other")
    assert episodes.episode(0).identity != before


TURNS = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1], "holds a list; an object is expected"),
        ({"video": "clips/a", "conversations": TURNS, "mood": 1}, "unknown keys mood"),
        ({"conversations": TURNS}, "video is None; one path is needed"),
        ({"videos": ["a", "b"], "conversations": TURNS}, "one path is needed"),
        ({"video": "clips/b", "conversations": TURNS}, "clips/b does not exist"),
        ({"video": "clips/a"}, "conversations must be a list of questions, each with its answer"),
        ({"video": "clips/a", "conversations": TURNS[:1]}, "each with its answer"),
        (
            {"video": "clips/a", "conversations": TURNS[::-1]},
            r"conversations\[0\] is from 'gpt'; expected human or user",
        ),
        ({"video": "clips/a", "conversations": [{"from": "human"}, TURNS[1]]}, "must hold exactly from and value"),
    ],
)
@pytest.mark.parametrize(("name", "place"), [("data.json", "data.json[1]"), ("data.jsonl", "data.jsonl:2")])
def test_a_broken_entry_is_named_with_its_place(root: Path, row: object, message: str, name: str, place: str) -> None:
    good = entry("clips/a", ("what?", "a ball"))
    with pytest.raises(TrainingError, match=message) as caught:
        read(root, [good, row], name)
    assert place in str(caught.value)


def test_broken_json_is_named_with_its_line(root: Path) -> None:
    file = root / "data.jsonl"
    file.write_text(json.dumps(entry("clips/a", ("what?", "a ball"))) + '\n\n{"video": \n')
    with pytest.raises(TrainingError, match=r"data\.jsonl:3 is not valid JSON"):
        VideoEpisodes(VideoData((str(file),), str(root)))
    file = root / "data.json"
    file.write_text('[\n{"video": "clips/a",}\n]')
    with pytest.raises(TrainingError, match=r"data\.json:2 is not valid JSON"):
        VideoEpisodes(VideoData((str(file),), str(root)))
    file.write_text('{"video": "clips/a"}')
    with pytest.raises(TrainingError, match="holds a dict; a list is expected"):
        VideoEpisodes(VideoData((str(file),), str(root)))


def test_missing_and_empty_files_are_named(root: Path) -> None:
    with pytest.raises(TrainingError, match=r"absent\.json cannot be read"):
        VideoEpisodes(VideoData((str(root / "absent.json"),), str(root)))
    with pytest.raises(TrainingError, match="no conversation in it"):
        read(root, [])


def test_an_episode_of_one_frame_is_named(root: Path) -> None:
    for frame in sorted((root / "clips/a").glob("*.jpg"))[1:]:
        frame.unlink()
    episodes = read(root, [entry("clips/a", ("what?", "a ball"))])
    with pytest.raises(TrainingError, match=r"data\.json\[0\]: .* has 1 frame; a grid step needs 2"):
        episodes.frames(0)
