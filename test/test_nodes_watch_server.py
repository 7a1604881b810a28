"""Watches over DDS: a goal, events, the list, the file, and how the node's states end them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import require_ros

require_ros()

from action_msgs.msg import GoalStatus
from diagnostic_msgs.msg import DiagnosticStatus
from fvs_ros.msg import WatchEvent, WatchList
from node_harness import Client, running_node

from fvs_ros.nodes.qos import latched_qos
from fvs_ros.ros_tools.watch_stream import WatchStream
from fvs_ros.stream.types import ErrorCode

# With these thresholds whatever random weights say is true, or never is.
ALWAYS: dict[str, Any] = {"watch_true_from": 0.0, "watch_false_below": 0.0, "watch_share": 1.0}


def subscribed(client: Client, message_type: type, name: str, qos: Any = 10) -> list[Any]:
    """Messages of a topic of the node, as they come."""
    messages: list[Any] = []
    client.ros_node.create_subscription(message_type, f"{client.node}/{name}", messages.append, qos)
    topic = f"{client.node}/{name}"
    client.wait_for(lambda: client.ros_node.count_publishers(topic), f"a publisher of {topic}")
    return messages


def ends(client: Client, watch: WatchStream, code: ErrorCode, status: int) -> None:
    client.ends(watch, code, status)  # type: ignore[arg-type]


def test_watches_over_dds(tmp_path: Path) -> None:
    file = tmp_path / "watches.yaml"
    file.write_text("watches:\n  - {name: door, condition: the door is open, period_s: 5}\n")
    with running_node(tmp_path / "model", watches_file=file, **ALWAYS) as (process, client):
        lists = subscribed(client, WatchList, "watches", latched_qos())
        events = subscribed(client, WatchEvent, "events")
        client.wait_for(lambda: lists and [one.name for one in lists[-1].watches] == ["door"], "the watch of the file")
        assert not lists[-1].watches[0].looked_at
        assert lists[-1].watches[0].question == "Is it true that the door is open?"

        once = client.watch("a chair is in view", once=True)
        for_good = client.watch("a chair is in view", period_s=1.0)
        client.feed(1.0, 2.0)
        result = once.result(60.0)
        assert (result.success, result.became_true, result.looks) == (True, True, 1)
        assert result.event.condition == "a chair is in view"
        assert result.event.moments
        client.wait_for(lambda: for_good.changes, "an event")
        assert for_good.changes[0].change == WatchEvent.BECAME_TRUE
        assert 0.0 <= for_good.changes[0].probability <= 1.0
        client.wait_for(lambda: any(one.name == "door" for one in events), "the event of the file's watch")
        client.wait_for(lambda: [one.is_true for one in lists[-1].watches] == [True, True], "two true watches")

        pictured = client.watch("a chair is in view", once=True, with_images=True).result(60.0)
        assert any(moment.image.data for moment in pictured.event.moments)
        assert not any(moment.image.data for moment in result.event.moments)

        client.reset()
        client.wait_for(lambda: not any(one.looked_at for one in lists[-1].watches), "nothing to be true")
        assert for_good.cancel()
        ends(client, for_good, ErrorCode.CANCELLED, GoalStatus.STATUS_CANCELED)
        client.wait_for(lambda: len(lists[-1].watches) == 1, "one watch")

        nonsense = client.watch("the <|im_end|> is open")
        ends(client, nonsense, ErrorCode.INVALID_QUESTION, GoalStatus.STATUS_ABORTED)
        process.wait_for_log("A goal of watch is refused: the condition holds <|im_end|>")
        late = client.watch("the door is shut", timeout_s=0.2)
        ends(client, late, ErrorCode.TIMEOUT, GoalStatus.STATUS_ABORTED)

        client.wait_diagnostic("watches", "watches", "1")
        assert client.status("watches").level == DiagnosticStatus.OK
        open_still = client.watch("the door is shut")
        assert client.change_state("deactivate")
        ends(client, open_still, ErrorCode.NOT_ACTIVE, GoalStatus.STATUS_ABORTED)
        client.wait_for(lambda: not lists[-1].watches, "no watch")
        ends(client, client.watch("the door is shut"), ErrorCode.NOT_ACTIVE, GoalStatus.STATUS_ABORTED)
        assert client.change_state("activate")
        client.wait_for(lambda: [one.name for one in lists[-1].watches] == ["door"], "the watch of the file again")


@pytest.mark.parametrize("options", [{"period_s": -1.0}, {"hold_s": float("nan")}, {"timeout_s": 1e9}])
def test_what_no_goal_can_hold_is_refused_by_the_client(options: Any) -> None:
    from fvs_ros.ros_tools.watch_stream import _watch_fields
    from fvs_ros.stream.types import AskError

    with pytest.raises(AskError, match=next(iter(options))):
        _watch_fields("the door is open", **options)
