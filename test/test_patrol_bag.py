from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from patrol_drawing import drawing
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from fvs_ros import cli
from fvs_ros.evaluation.questions import QUESTIONS_FILE, read_questions
from fvs_ros.patrol.bag import write_bag
from fvs_ros.patrol.config import PatrolConfig
from fvs_ros.patrol.episode import Episode, simulate
from fvs_ros.patrol.errors import PatrolError
from fvs_ros.patrol.questions import Question, ask
from fvs_ros.patrol.render import PatrolRenderer
from fvs_ros.sources.bags import Bag
from fvs_ros.sources.recordings import open_source

SIZE = 56


@pytest.fixture(scope="module")
def renderer() -> Iterator[PatrolRenderer]:
    with drawing(), PatrolRenderer(SIZE) as made:
        yield made


@pytest.fixture(scope="module")
def episode() -> Episode:
    return simulate(33, PatrolConfig(steps=15, rooms=2, views=2, dwell_s=(3, 5), frame_rate=2))


@pytest.fixture(scope="module")
def questions(episode: Episode) -> list[Question]:
    return ask(episode, 25)


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, renderer: PatrolRenderer, episode: Episode, questions: list[Question]
) -> Path:
    path = tmp_path_factory.mktemp("patrol") / "bag"
    write_bag(episode, path, renderer, questions)
    return path


def messages(folder: Path, topic: str) -> Iterator[tuple[int, Any]]:
    store = get_typestore(Stores.ROS2_HUMBLE)
    with Reader(folder) as reader:
        for connection, received_ns, raw in reader.messages():
            if connection.topic == topic:
                yield received_ns, store.deserialize_cdr(raw, connection.msgtype)


def stamp_ns(header: Any) -> int:
    return header.stamp.sec * 10**9 + header.stamp.nanosec


def test_the_frames_come_back_with_their_stamps(folder: Path, episode: Episode, renderer: PatrolRenderer) -> None:
    source = open_source(folder)
    frames = list(source.frames())
    source.close()
    assert [frame.stamp_ns for frame in frames] == episode.stamps_ns.tolist()
    assert {frame.frame_id for frame in frames} == {"camera_optical_frame"}
    drawn = renderer.frame(episode, 20)
    read = frames[20].image()
    assert read.shape == (SIZE, SIZE, 3)
    # JPEG; swapped colours would be off by far more.
    assert np.abs(read.astype(int) - drawn).mean() < 8


def test_every_topic_is_recorded_once_a_frame_and_the_mounting_once(folder: Path, episode: Episode) -> None:
    with Bag(folder) as bag:
        counts = {name: topic.count for name, topic in bag.topics.items()}
        assert bag.topics["/tf_static"].latched
        assert not any(topic.problem for topic in bag.topics.values())
    n = len(episode)
    assert counts == {
        "/camera/image/compressed": n,
        "/camera/camera_info": n,
        "/odom": n,
        "/tf": n,
        "/tf_static": 1,
    }


def test_poses_agree_between_odometry_and_tf(folder: Path, episode: Episode) -> None:
    odometry = list(messages(folder, "/odom"))
    transforms = list(messages(folder, "/tf"))
    for index, ((received, odom), (_, tf)) in enumerate(zip(odometry, transforms, strict=True)):
        (transform,) = tf.transforms
        assert stamp_ns(odom.header) == stamp_ns(transform.header) == received == episode.stamps_ns[index]
        assert (odom.header.frame_id, odom.child_frame_id) == ("odom", "base_link")
        assert (transform.header.frame_id, transform.child_frame_id) == ("odom", "base_link")
        x, y, yaw = episode.poses[index]
        pose = odom.pose.pose
        assert (pose.position.x, pose.position.y, pose.position.z) == (x, y, 0.0)
        assert np.cos(2 * np.arctan2(pose.orientation.z, pose.orientation.w) - yaw) == pytest.approx(1.0)
        assert transform.transform.translation.x == x
        assert transform.transform.rotation.z == pose.orientation.z


def test_the_mounting_takes_the_base_to_the_camera(folder: Path, episode: Episode) -> None:
    ((_, static),) = messages(folder, "/tf_static")
    (mounted,) = static.transforms
    assert (mounted.header.frame_id, mounted.child_frame_id) == ("base_link", "camera_optical_frame")
    t, q = mounted.transform.translation, mounted.transform.rotation
    x, y, z, w = q.x, q.y, q.z, q.w
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    c, s = np.cos(episode.poses[7, 2]), np.sin(episode.poses[7, 2])
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    camera = episode.camera(7)
    np.testing.assert_allclose(turn @ rotation, camera.rotation, atol=1e-9)
    base = np.array([*episode.poses[7, :2], 0.0])
    np.testing.assert_allclose(base + turn @ [t.x, t.y, t.z], camera.position, atol=1e-9)


def test_the_camera_info_projects_as_the_renderer_does(
    folder: Path, episode: Episode, renderer: PatrolRenderer
) -> None:
    _, info = next(iter(messages(folder, "/camera/camera_info")))
    assert (info.width, info.height) == (SIZE, SIZE)
    k = info.k.reshape(3, 3)
    checked = 0
    for frame in range(0, len(episode), 10):
        labels, camera = renderer.segmentation(episode, frame), episode.camera(frame)
        for object_id in np.flatnonzero(episode.pixels[frame] > 150):
            (x, y), _ = episode.stand(frame, int(object_id))
            seen = (np.array([x, y, 0.3]) - camera.position) @ camera.rotation
            u, v, _ = k @ seen / seen[2]
            rows, columns = np.nonzero(labels == object_id)
            assert columns.min() / 2 < u < columns.max() / 2
            assert rows.min() / 2 < v < rows.max() / 2
            checked += 1
    assert checked > 1


def test_the_questions_file_holds_the_agreed_fields(folder: Path, questions: list[Question]) -> None:
    lines = (folder / QUESTIONS_FILE).read_text().splitlines()
    assert len(lines) == len(questions) == 25
    for line, question in zip(lines, questions, strict=True):
        value = json.loads(line)
        assert list(value) == [
            key
            for key in ("id", "stamp", "question", "answer", "choices", "proof", "family", "age_s")
            if key != "choices" or question.choices
        ]
        assert value["question"] == question.question
        assert value["answer"] == question.answer_text
        assert value["age_s"] == question.age_s


def test_evaluation_reads_the_questions_to_the_nanosecond(folder: Path, questions: list[Question]) -> None:
    for read, question in zip(read_questions(folder / QUESTIONS_FILE), questions, strict=True):
        assert (read.id, read.relative, read.time_ns) == (question.id, False, question.time_ns)
        assert read.proof_ns == question.proof_ns
        assert read.choices == question.choices
        answer = read.choices[read.answer] if isinstance(read.answer, int) else read.answer
        assert answer == question.answer_text


def test_times_below_a_second_keep_their_digits(questions: list[Question]) -> None:
    question = next(question for question in questions if question.choices)
    shifted = type(question)(**{**vars(question), "time_ns": 1_750_000_000_000_000_001})
    assert '"stamp": 1750000000.000000001,' in shifted.to_json()


def test_an_existing_folder_is_left_alone(folder: Path, episode: Episode, renderer: PatrolRenderer) -> None:
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(PatrolError, match="exists already"):
        write_bag(episode, folder, renderer)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_the_command_writes_a_bag_and_a_contact_sheet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], renderer: PatrolRenderer
) -> None:
    out, preview = tmp_path / "bag", tmp_path / "sheet.png"
    arguments = ["--seed", "3", "--steps", "5", "--rooms", "2", "--size", "56", "--questions", "7"]
    assert cli.main(["patrol", "make", *arguments, "--out", str(out), "--preview", str(preview)]) == 0
    assert "10 frames, 10 s, 7 questions in questions.jsonl" in capsys.readouterr().out
    with Bag(out) as bag:
        assert bag.topics["/camera/image/compressed"].count == 10
    sheet = cv2.imread(str(preview))
    assert sheet is not None
    assert sheet.shape[1] == 8 * 168
    assert sheet.std() > 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "steps is 0; it must be from 1"),
        (["--rooms", "20"], "rooms is 20; it must be from 1 to 8"),
        (["--seed", "-4"], "the seed is -4"),
    ],
)
def test_the_command_names_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    status = cli.main(["patrol", "make", "--seed", "1", "--out", str(tmp_path / "bag"), *arguments])
    assert status == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "bag").exists()
