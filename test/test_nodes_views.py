"""`config/stream.rviz` and `config/foxglove_layout.json` show what the node publishes, by its names and types."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from node_harness import running_node

from fvs_ros.msg import MemoryState, StreamStatistics  # isort: skip
from fvs_ros.srv import Ask  # isort: skip

CONFIG = Path(__file__).resolve().parents[1] / "config"
TYPES = {
    "rviz_default_plugins/MarkerArray": "visualization_msgs/msg/MarkerArray",
    "rviz_default_plugins/Pose": "geometry_msgs/msg/PoseStamped",
    "rviz_default_plugins/Odometry": "nav_msgs/msg/Odometry",
    "rviz_default_plugins/Image": "sensor_msgs/msg/Image",
}
# Of a display's subscription, beside what a publisher calls it.
DURABILITY = {"Transient Local": "TRANSIENT_LOCAL", "Volatile": "VOLATILE"}
MESSAGES = {"/stream_node/statistics": StreamStatistics, "/stream_node/memory": MemoryState}


@pytest.fixture(scope="module")
def layout() -> dict[str, Any]:
    return json.loads((CONFIG / "foxglove_layout.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def displays() -> list[dict[str, Any]]:
    manager = yaml.safe_load((CONFIG / "stream.rviz").read_text(encoding="utf-8"))["Visualization Manager"]
    return [display for display in manager["Displays"] if "Topic" in display]


def panels_in(place: object) -> Iterator[str]:
    """The panels of a layout, from its splits down."""
    if isinstance(place, dict):
        assert place["direction"] in ("row", "column")
        assert 0 < place["splitPercentage"] < 100
        yield from panels_in(place["first"])
        yield from panels_in(place["second"])
    else:
        yield str(place)


def test_each_panel_has_its_place_and_its_settings(layout: dict[str, Any]) -> None:
    assert sorted(panels_in(layout["layout"])) == sorted(layout["configById"])
    assert {name.split("!")[0] for name in layout["configById"]} == {
        "3D", "Image", "CallService", "DiagnosticSummary", "RawMessages", "Plot",
    }  # fmt: skip


def test_both_show_what_the_node_has_under_its_names(
    layout: dict[str, Any], displays: list[dict[str, Any]], tmp_path: Path
) -> None:
    shown = layout["configById"]
    with running_node(tmp_path, pose_source="odometry") as (_, client):
        node, name = client.ros_node, ("stream_node", "/")
        client.wait_for(
            lambda: "/odom" in dict(node.get_subscriber_names_and_types_by_node(*name)), "the subscription of /odom"
        )
        published = {topic: types[0] for topic, types in node.get_publisher_names_and_types_by_node(*name)}
        subscribed = {topic: types[0] for topic, types in node.get_subscriber_names_and_types_by_node(*name)}
        services = {service: types[0] for service, types in node.get_service_names_and_types_by_node(*name)}
        durability = {
            topic: one.qos_profile.durability.name
            for topic in published
            for one in node.get_publishers_info_by_topic(topic)
            if one.node_name == name[0]
        }
    known = {**subscribed, **published}
    for display in displays:
        topic = display["Topic"]
        assert known[topic["Value"]] == TYPES[display["Class"]]
        assert DURABILITY[topic["Durability Policy"]] == durability.get(topic["Value"], "VOLATILE")
    places = {"/stream_node/moments", "/stream_node/place", "/odom"}
    assert {display["Topic"]["Value"] for display in displays} == {*places, "/image"}
    assert set(shown["3D!places"]["topics"]) == places
    assert known[shown["Image!camera"]["imageMode"]["imageTopic"]] == "sensor_msgs/msg/Image"
    assert published[shown["DiagnosticSummary!health"]["topicToRender"]] == "diagnostic_msgs/msg/DiagnosticArray"
    assert published[shown["RawMessages!memory"]["topicPath"]] == "fvs_ros/msg/MemoryState"
    assert services[shown["CallService!ask"]["serviceName"]] == "fvs_ros/srv/Ask"


def test_what_is_plotted_and_asked_are_fields_of_the_messages(layout: dict[str, Any]) -> None:
    for panel in ("Plot!frames", "Plot!answers"):
        for series in layout["configById"][panel]["paths"]:
            topic, field = series["value"].split(".")
            assert field in MESSAGES[topic].get_fields_and_field_types()
    asked = json.loads(layout["configById"]["CallService!ask"]["requestPayload"])
    assert set(asked) <= set(Ask.Request.get_fields_and_field_types())
    assert asked["question"]
