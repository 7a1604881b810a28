"""Training end to end: a minute-size model learns one drawn episode, and answers about it as the robot would ask."""

import json
from pathlib import Path

import cv2
import pytest
from training_videos import SIZE, draw_frames, entry, write_recipe

from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.training.recipe import load_recipe
from fvs_ros.training.run import train

ORDER = ("red", "blue", "green", "yellow")
QUESTIONS = {
    "first?": "red",
    "last?": "yellow",
    "after red?": "blue",
    "before yellow?": "green",
    "after blue?": "green",
    "was white seen?": "no",
}


@pytest.mark.slow
def test_loss_halves_and_the_answers_turn_right(tmp_path: Path) -> None:
    video = draw_frames(tmp_path / "video", ORDER)
    entries = [entry("video", turn) for turn in QUESTIONS.items()]
    recipe = write_recipe(tmp_path, entries, steps=90, stage={"batch": 6})
    config = load_recipe(recipe)
    assert train(config, lambda line: None)

    state = json.loads((tmp_path / "run/drawn/checkpoint-90/trainer_state.json").read_text())
    losses = [row["loss"] for row in state["log_history"] if "loss" in row]
    assert losses[-1] < losses[0] / 2

    model = FlashVStream.load(str(tmp_path / "run/final"), device="cpu")
    frames = []
    for file in sorted(video.glob("*.jpg")):
        image = cv2.imread(str(file))
        assert image is not None
        frames.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    grid = model.frame_grid(SIZE, SIZE, SIZE**2, SIZE**2)
    memory = model.new_memory(grid)
    features = model.encode_steps(frames, grid)
    seconds = [number * 1_000_000_000 for number in range(len(frames))]
    memory.append(features.high, features.low, seconds[::2], seconds[1::2])
    answers = {question: model.answer(memory.snapshot(), question, max_new_tokens=12) for question in QUESTIONS}
    assert answers == QUESTIONS
