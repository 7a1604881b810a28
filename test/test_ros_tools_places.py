"""To go to where something was seen: the place of an answer, and the example that drives there."""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from ask_servers import ask_server
from conftest import require_ros
from engines import MakeEngine, feed
from fakes import PATIENCE_S, frame, pose_at
from needs import needed

require_ros()
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node

from fvs_ros.ros_tools.client import FlashVStreamClient
from fvs_ros.ros_tools.places import place_of
from fvs_ros.stream.engine import StreamEngine

NEEDS_NAV2 = "needs Nav2, which PyPI does not have: run this test where ROS's navigation2 is installed"
SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "go_to_where_you_saw_it.py"


@pytest.fixture
def engine(make_engine: MakeEngine) -> StreamEngine:
    return make_engine()


@pytest.fixture
def client(engine: StreamEngine) -> Iterator[FlashVStreamClient]:
    """Of a node that tells where it saw things."""
    with ask_server(lambda: engine, places=True) as client:
        yield client


def seen_with_poses(engine: StreamEngine) -> None:
    for second in range(4):
        feed(engine, frame(second, 40 * second, pose=lambda x=second: pose_at(x)))


def test_the_place_of_an_answer_is_that_of_its_best_placed_moment(
    client: FlashVStreamClient, engine: StreamEngine
) -> None:
    feed(engine, frame(0), frame(1))
    assert place_of(client, client.ask("What?")) is None, "without poses there is none"
    for second in range(2, 6):
        feed(engine, frame(second, 40 * second, pose=lambda x=second: pose_at(x)))
    answer = client.ask("What?")
    best = next(moment for moment in answer.moments if moment.pose_valid)
    place = place_of(client, answer)
    assert place is not None
    assert place.header == best.pose.header
    assert place.pose.position == best.pose.pose.position


def test_the_place_of_an_answer_that_another_followed_is_waited_for_in_vain(
    client: FlashVStreamClient, engine: StreamEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen_with_poses(engine)
    first = client.ask("What?")
    for moment in first.moments:
        moment.stamp.sec += 100
    monkeypatch.setattr("fvs_ros.ros_tools.places._DISCOVERY_S", 0.3)
    with pytest.raises(TimeoutError, match="another question may have been answered since"):
        place_of(client, first)


def load_script(monkeypatch: pytest.MonkeyPatch, commander: ModuleType) -> ModuleType:
    monkeypatch.setitem(sys.modules, "nav2_simple_commander", ModuleType("nav2_simple_commander"))
    monkeypatch.setitem(sys.modules, "nav2_simple_commander.robot_navigator", commander)
    spec = importlib.util.spec_from_file_location("go_to_where_you_saw_it", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


@pytest.mark.parametrize("arrives", [True, False])
def test_the_example_drives_to_where_it_was_seen(
    client: FlashVStreamClient,
    engine: StreamEngine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arrives: bool,
) -> None:
    """With a navigator of Nav2's interface in place of Nav2's."""
    goals: list[PoseStamped] = []

    class Navigator:
        def __init__(self) -> None:
            self.looks = 0

        def goToPose(self, pose: PoseStamped) -> bool:  # noqa: N802
            goals.append(pose)
            return True

        def isTaskComplete(self) -> bool:  # noqa: N802
            self.looks += 1
            return self.looks > 2

        def getResult(self) -> str:  # noqa: N802
            return "succeeded" if arrives else "failed"

    commander = ModuleType("nav2_simple_commander.robot_navigator")
    vars(commander).update(BasicNavigator=Navigator, TaskResult=SimpleNamespace(SUCCEEDED="succeeded"))
    script = load_script(monkeypatch, commander)
    monkeypatch.setenv("ROS_DOMAIN_ID", str(client.ros_node.context.get_domain_id()))
    seen_with_poses(engine)
    place = place_of(client, client.ask("Where?"))
    assert script.main(["Where?", "--node", client.node]) == (0 if arrives else 1)
    assert goals == [place]
    shown = capsys.readouterr().out
    assert "going to (" in shown
    assert ("\narrived" in shown) == arrives


def test_the_example_stays_where_it_knows_no_place(
    client: FlashVStreamClient,
    engine: StreamEngine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    commander = ModuleType("nav2_simple_commander.robot_navigator")
    vars(commander).update(BasicNavigator=None, TaskResult=None)
    script = load_script(monkeypatch, commander)
    monkeypatch.setenv("ROS_DOMAIN_ID", str(client.ros_node.context.get_domain_id()))
    assert script.main(["Where?", "--node", client.node]) == 1
    assert "no answer: no frame is in memory" in capsys.readouterr().err
    feed(engine, frame(0), frame(1))
    assert script.main(["Where?", "--node", client.node]) == 1
    assert "pose_source" in capsys.readouterr().err


def test_the_example_drives_there_with_nav2(
    client: FlashVStreamClient, engine: StreamEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Nav2's own navigator, and a fake server of NavigateToPose."""
    nav2 = needed("nav2_msgs.action", NEEDS_NAV2)
    commander = needed("nav2_simple_commander.robot_navigator", NEEDS_NAV2)
    import rclpy
    from rclpy.action import ActionServer
    from rclpy.executors import SingleThreadedExecutor

    goals: list[PoseStamped] = []

    def arrive(goal: Any) -> Any:
        goals.append(goal.request.pose)
        goal.succeed()
        return nav2.NavigateToPose.Result()

    domain = client.ros_node.context.get_domain_id()
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    node = Node("fake_nav2", context=context)
    server = ActionServer(node, nav2.NavigateToPose, "navigate_to_pose", arrive)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin)
    thread.start()
    try:
        seen_with_poses(engine)
        place = place_of(client, client.ask("Where?"))
        assert load_script(monkeypatch, commander).main(["Where?", "--node", client.node]) == 0
    finally:
        executor.shutdown()
        thread.join(PATIENCE_S)
        server.destroy()
        node.destroy_node()
        rclpy.shutdown(context=context)
    assert goals == [place]
