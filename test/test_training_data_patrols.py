import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from patrol_drawing import drawing
from training_videos import TINY

from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.patrol.config import FRAME_SIZE, PatrolConfig, day_config
from fvs_ros.patrol.episode import simulate
from fvs_ros.patrol.render import shared_renderer
from fvs_ros.patrol.truth import EpisodeRecord
from fvs_ros.training.config import PatrolData
from fvs_ros.training.data.patrols import PatrolEpisodes
from fvs_ros.training.errors import TrainingError
from fvs_ros.training.objectives.patrol_probe import PROBE_GROUPS
from fvs_ros.training.recipe import load_recipe
from fvs_ros.training.run import last_checkpoint, train
from fvs_ros.training.stage import prepare


def patrols(**changes: Any) -> PatrolEpisodes:
    return PatrolEpisodes(PatrolData(**{"episodes": 6, "lengths": (8, 12), "questions": 6, "moments": 3, **changes}))


def test_questions_come_at_moments_spread_over_the_episode() -> None:
    episode = patrols().episode(1)
    assert [moment.steps for moment in episode.moments] == [4, 8, 12]
    assert episode.stamps_ns is not None
    assert len(episode.stamps_ns) == 24
    assert np.diff(episode.stamps_ns).tolist() == [10**9] * 23
    families = {conversation.family for moment in episode.moments for conversation in moment.conversations}
    assert {"now", "recall"} <= families


def test_lengths_take_turns() -> None:
    source = patrols()
    assert [source.length(index) for index in range(4)] == [8, 12, 8, 12]


def test_an_episode_of_fewer_steps_than_moments_is_asked_after_each_step() -> None:
    episode = patrols(lengths=(2,), dwell_s=(2, 2), drive=False).episode(0)
    assert {moment.steps for moment in episode.moments} <= {1, 2}


def test_seeds_tell_episodes_apart_and_repeat_them() -> None:
    source = patrols()
    assert source.episode(0) == patrols().episode(0)
    assert source.episode(0).identity != source.episode(2).identity
    assert patrols(first_seed=2).episode(0) == source.episode(2)


def test_conversations_bring_the_proofs_of_their_answers() -> None:
    episode = patrols(episodes=1, lengths=(24,)).episode(0)
    assert episode.stamps_ns is not None
    told = [conversation for moment in episode.moments for conversation in moment.conversations]
    proved = [conversation.proof_ns for conversation in told if conversation.proof_ns]
    assert len(proved) > len(told) // 2
    first, last = episode.stamps_ns[0], episode.stamps_ns[-1]
    assert all(first <= begin <= end <= last for intervals in proved for begin, end in intervals)
    newest = {moment.steps: episode.stamps_ns[2 * moment.steps - 1] for moment in episode.moments if moment.steps}
    for moment in episode.moments:
        for conversation in moment.conversations:
            assert all(end <= newest[moment.steps] for _, end in conversation.proof_ns if moment.steps)


def test_families_can_be_chosen() -> None:
    episode = patrols(families=("now",)).episode(0)
    assert {conversation.family for moment in episode.moments for conversation in moment.conversations} == {"now"}


def test_trained_wording_brings_other_words_and_what_no_patrol_answers() -> None:
    def questions(**changes: Any) -> set[str]:
        moments = patrols(questions=40, **changes).episode(0).moments
        return {turn[0] for moment in moments for conversation in moment.conversations for turn in conversation.turns}

    original = questions(families=("now.room",))
    trained = questions(families=("now.room", "outside"), wording="trained")
    assert original <= {"Which room are you in?", "Where are you now?", "What room is this?"}
    assert len(trained) > 3 * len(original)


def test_captions_name_every_object_seen_in_another_order_each_time() -> None:
    source = patrols(lengths=(12,), questions=0, captions=2, moments=2, dwell_s=(2, 4), drive=False)
    episode = source.episode(2)
    record = EpisodeRecord(simulate(2, PatrolConfig(steps=12, drive=False, dwell_s=(2, 4))))
    assert [moment.steps for moment in episode.moments] == [6, 12]
    for moment in episode.moments:
        assert moment.steps is not None
        truth = record.until(2 * moment.steps - 1)
        objects = {
            frozenset((*truth.name(object_id).split(), truth.room(seen[-1].room)))
            for object_id, seen in truth.seen.items()
        }
        texts = [conversation.turns[0][1] for conversation in moment.conversations]
        assert texts[0] != texts[1]
        for text in texts:
            named = [frozenset(part.split()) for part in text.split(", ")]
            assert len(named) == len(objects) > 1
            assert set(named) == objects
    assert episode == patrols(lengths=(12,), questions=0, captions=2, moments=2, dwell_s=(2, 4), drive=False).episode(2)


def test_token_naming_episodes_name_what_each_step_shows_and_ask_nothing() -> None:
    data = PatrolData(episodes=2, lengths=(5,), drive=False, dwell_s=(2, 2))
    episode = PatrolEpisodes(data, objective="token_naming").episode(1)
    assert episode.moments == ()
    names = episode.token_names
    assert names is not None
    assert names.high.shape == (5, 16, 3)
    assert names.low.shape == (5, 4, 3)
    kinds, _, rooms = names.groups
    drawn = simulate(1, PatrolConfig(steps=5, drive=False, dwell_s=(2, 2)))
    for step in range(5):
        assert {rooms[index] for index in names.low[step, :, 2]} == {drawn.room_name(2 * step + 1)}
        in_view = {drawn.objects[object_id].kind for object_id in np.flatnonzero(drawn.pixels[2 * step + 1] > 100)}
        assert in_view <= {kinds[index] for index in names.high[step, :, 0]}


def days(**changes: Any) -> PatrolData:
    return PatrolData(
        **{"episodes": 6, "lengths": (8,), "day_lengths": (90,), "recalled_lengths": (400,), "questions": 10, **changes}
    )


def test_days_take_their_turns_and_are_asked_about_the_time_of_day() -> None:
    source = PatrolEpisodes(days(families=("now",)))
    assert [source.length(index) for index in range(4)] == [8, 90, 400, 8]
    families = [
        {one.family for moment in source.episode(index).moments for one in moment.conversations} for index in range(3)
    ]
    # Words for a stretch of time need some minutes.
    assert families == [{"now"}, {"now"}, {"now", "range"}]
    day = source.episode(1)
    assert day.stamps_ns == tuple(simulate(1, day_config(90)).stamps_ns.tolist())
    # Underway nothing is in view to be asked about.
    assert {90} < {moment.steps for moment in day.moments} <= {23, 45, 68, 90}
    assert all(moment.shown is None for moment in day.moments)


def test_days_alone_and_their_trained_wording_will_do() -> None:
    source = PatrolEpisodes(days(lengths=(), day_lengths=(), wording="trained"))
    assert [source.length(index) for index in range(2)] == [400, 400]
    assert source.episode(0).moments


def test_a_recalled_day_is_asked_at_its_later_moments_about_what_it_draws() -> None:
    source = PatrolEpisodes(days())
    episode = source.episode(2)
    whole = simulate(2, day_config(400))
    assert {moment.steps for moment in episode.moments} == {300, 400}
    assert episode.stamps_ns is not None
    numbers = np.searchsorted(whole.stamps_ns, episode.stamps_ns)
    assert whole.stamps_ns[numbers].tolist() == list(episode.stamps_ns)
    assert (numbers[1::2] == numbers[::2] + 1).all()
    assert (numbers[::2] % 2 == 0).all()
    drawn = len(numbers) // 2
    assert drawn < 400
    assert 399 in numbers // 2
    for moment in episode.moments:
        assert moment.shown is not None
        assert max(*moment.shown.places, *moment.shown.window) < drawn
    assert PatrolEpisodes(days()).episode(2) == episode
    assert PatrolEpisodes(days()).episode(5).identity != episode.identity


def test_recall_episodes_hold_segments_and_questions_about_them() -> None:
    source = PatrolEpisodes(days(), objective="recall")
    for index in range(3):
        episode = source.episode(index)
        assert episode.moments == ()
        assert episode.recall is not None
        assert len(episode.recall.start_ns) == len(episode.recall.end_ns)
        assert all(max(one.proof) < one.segments for one in episode.recall.questions)
    assert source.episode(1).recall == PatrolEpisodes(days(), objective="recall").episode(1).recall
    assert source.episode(1).identity != PatrolEpisodes(days()).episode(1).identity


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first_seed": 899_995}, "reach seed 900000; seeds from 900000 up are for tests"),
        ({"families": ("now", "gossip")}, "families gossip are unknown"),
        ({"rooms": 99}, "patrol: rooms is 99"),
        ({"dwell_s": (9, 3)}, "patrol: dwell_s"),
        ({"day_lengths": (43_201,)}, "patrol: steps is 43201; it must be from 1 to 43200"),
        ({"recalled_lengths": (900, 50_000)}, "patrol: steps is 50000"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        patrols(**changes)


def test_probe_labels_say_of_each_cell_what_could_be_worked_out() -> None:
    data = PatrolData(episodes=2, lengths=(20,), rooms=2, views=1, drive=False, dwell_s=(2, 2))
    labels = PatrolEpisodes(data, memory_probe=True).episode(1).probe_labels
    assert labels is not None
    assert labels.labels.shape == (20, 4, len(PROBE_GROUPS))
    assert PatrolEpisodes(data).episode(1).probe_labels is None


@pytest.fixture
def renderer() -> None:
    with drawing():
        shared_renderer(FRAME_SIZE)


def test_a_stage_with_a_memory_probe_reports_it_and_leaves_a_checkpoint(renderer: None, tmp_path: Path) -> None:
    patrol = {"episodes": 2, "lengths": [12], "rooms": 2, "views": 1, "drive": False, "dwell_s": [2, 2], "moments": 2}
    recipe = {
        "output": str(tmp_path / "run"),
        "model": {"scratch": {**TINY, "vocabulary": "patrol", "tied_embeddings": True, "frame_pixels": FRAME_SIZE**2}},
        "optimiser": {"method": "muon"},
        "workers": 0,
        "log_steps": 1,
        "encode_in_workers": True,
        "stages": [{"name": "watched", "patrol": patrol, "steps": 2, "embeddings": "frozen", "memory_probe": 0.5}],
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert train(load_recipe(tmp_path / "recipe.yaml"), lambda line: None)
    newest = last_checkpoint(tmp_path / "run/watched")
    assert newest is not None
    state = json.loads((newest / "trainer_state.json").read_text())
    assert {"probe_known", "probe_here_before", "accuracy_change"} <= set(state["log_history"][0])
    assert FlashVStream.load(str(tmp_path / "run/final"), device="cpu").memory_config.csm_slots == TINY["csm_slots"]


def test_data_processes_encode_with_a_tower_that_stays_on_the_cpu(tmp_path: Path) -> None:
    """The Trainer moves the network to a GPU, if there is one, and a forked process cannot use that."""
    patrol = {"episodes": 1, "lengths": [12], "rooms": 2, "views": 1}
    recipe = {
        "output": str(tmp_path / "run"),
        "model": {"scratch": {**TINY, "vocabulary": "patrol", "tied_embeddings": True, "frame_pixels": FRAME_SIZE**2}},
        "encode_in_workers": True,
        "stages": [{"name": "watched", "patrol": patrol, "steps": 1, "embeddings": "frozen"}],
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    config = load_recipe(tmp_path / "recipe.yaml")
    stage = prepare(config, config.stages[0], None)
    stage.model.network.to("meta")
    assert stage.dataset.encoder is not None
    assert stage.dataset.encoder.tower.device.type == "cpu"


def test_frames_are_two_for_each_step(renderer: None) -> None:
    frames = patrols(lengths=(2,)).frames(0)
    assert [frame.shape for frame in frames] == [(112, 112, 3)] * 4


def test_frames_of_a_recalled_day_are_those_of_the_whole_one(renderer: None) -> None:
    """And so are those of its segments, of each of which a step in the middle is drawn."""
    whole = simulate(0, day_config(90))

    def same(frames: Sequence[np.ndarray], numbers: Sequence[int]) -> bool:
        expected = shared_renderer(FRAME_SIZE).frames(whole, numbers)
        return all(np.array_equal(*pair) for pair in zip(frames, expected, strict=True))

    recalled = PatrolEpisodes(days(lengths=(), day_lengths=(), recalled_lengths=(90,), moments=2))
    stamps_ns = recalled.episode(0).stamps_ns
    assert stamps_ns is not None
    assert same(recalled.frames(0), np.searchsorted(whole.stamps_ns, stamps_ns).tolist())

    segments = PatrolEpisodes(days(lengths=(), recalled_lengths=()), objective="recall")
    found = segments.episode(0).recall
    assert found is not None
    numbers: list[int] = []
    for start_ns, end_ns in zip(found.start_ns, found.end_ns, strict=True):
        first, last = np.searchsorted(whole.stamps_ns, [start_ns, end_ns]) // 2
        numbers += [int(first + last) // 2 * 2, int(first + last) // 2 * 2 + 1]
    assert same(segments.frames(0), numbers)
