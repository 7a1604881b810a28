"""`config/sros2/policy.xml` allows the stream node what it does on the network, and nothing more.

Held against the running node's graph. A keystore is not tried: the wheels' Fast DDS has no DDS Security.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from node_harness import running_node

POLICY = Path(__file__).resolve().parents[1] / "config" / "sros2" / "policy.xml"
# Depend on parameters that the node below has not set.
OPTIONAL = {"/image/compressed", "/tf", "/tf_static"}
# Newer distributions alone have it.
SINCE_JAZZY = {"/stream_node/get_type_description"}


def allowed(kind: str, right: str) -> set[str]:
    """Full names of the topics, services or actions for which the policy gives a right."""
    names = set()
    for group in ElementTree.parse(POLICY).getroot().iter(kind):
        if group.get(right) == "ALLOW":
            for element in group:
                name = (element.text or "").replace("~", "stream_node", 1)
                names.add(name if name.startswith("/") else f"/{name}")
    return names


def test_the_policy_is_what_the_node_does(tmp_path: Path) -> None:
    with running_node(tmp_path, pose_source="odometry", use_sim_time=True) as (_, client):
        node, name = client.ros_node, ("stream_node", "/")
        expected = {"/odom", "/clock"}
        client.wait_for(
            lambda: expected <= {topic for topic, _ in node.get_subscriber_names_and_types_by_node(*name)},
            "the subscriptions",
        )
        published, subscribed, served, called = (
            {topic for topic, _ in names(*name) if "/_action/" not in topic}
            for names in (
                node.get_publisher_names_and_types_by_node,
                node.get_subscriber_names_and_types_by_node,
                node.get_service_names_and_types_by_node,
                node.get_client_names_and_types_by_node,
            )
        )
    assert published == allowed("topics", "publish")
    assert subscribed == allowed("topics", "subscribe") - OPTIONAL
    assert served | SINCE_JAZZY == allowed("services", "reply")
    assert called == allowed("services", "request") == set()
    assert allowed("actions", "execute") == {"/ask_stream", "/watch"}
    assert allowed("actions", "call") == set()
