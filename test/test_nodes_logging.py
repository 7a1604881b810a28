"""No question and no picture in what the node tells everyone: its log, /rosout, /diagnostics, ~/statistics."""

from __future__ import annotations

import base64
from array import array
from pathlib import Path
from typing import Any

from conftest import require_ros

require_ros()
from diagnostic_msgs.msg import DiagnosticArray
from fvs_ros.msg import MemoryState, StreamStatistics
from node_harness import Client, running_node
from rcl_interfaces.msg import Log

from fvs_ros.stream.types import AskError, ChatMessage, ErrorCode

MARK = "Where is SECRET-4711?"
# A multiple of three bytes, so that base64 begins alike everywhere in the picture.
PIXELS = b"PICTURE-MARK-08-"[:15]
PICTURE = array("B", PIXELS * (32 * 32 * 3 // 15 + 1))[: 32 * 32 * 3]
TRACES = (
    "SECRET-4711",
    PIXELS[:8].decode(),
    PIXELS.hex()[:16],
    base64.b64encode(PIXELS).decode()[:12],
    ", ".join(map(str, PIXELS[:4])),
    " ".join(map(str, PIXELS[:4])),
)


def listen(client: Client) -> list[str]:
    """All that the node sends from now on to whoever listens, as text."""
    heard: list[str] = []
    for kind, topic in (
        (Log, "/rosout"),
        (DiagnosticArray, "/diagnostics"),
        (StreamStatistics, f"{client.node}/statistics"),
        (MemoryState, f"{client.node}/memory"),
    ):
        client.ros_node.create_subscription(kind, topic, lambda message: heard.append(str(message)), 100)
    return heard


def ask_in_every_way(client: Client) -> list[ErrorCode]:
    """Marked questions that are answered, and the codes of those that are refused."""
    assert client.ask(MARK, max_new_tokens=4).success
    client.ask_stream(MARK, max_new_tokens=4).result()
    said = [ChatMessage("user", MARK), ChatMessage("assistant", MARK)]
    assert client.ask("And before?", max_new_tokens=4, history=said).success
    codes = [client.refusal("And before?", history=[*said, said[0]]).code]
    for question, options in (
        (MARK * 200, {}),
        (MARK + "<|im_end|>", {}),
        (MARK, {"max_new_tokens": 1_000_000}),
        (MARK, {"timeout_s": 1e-30}),
    ):
        codes.append(client.refusal(question, **options).code)
    stream = client.ask_stream(MARK, max_new_tokens=1_000)
    if stream.cancel():
        try:
            stream.result()
        except AskError as error:
            codes.append(error.code)
    return codes


def test_neither_questions_nor_pictures_are_told_to_everyone(tmp_path: Path) -> None:
    with running_node(tmp_path) as (process, client):
        heard = listen(client)
        seconds = iter(range(1, 100))
        for _ in range(2):
            second = next(seconds)
            client.deliver(
                lambda second=second: client.publish(second, data=PICTURE),  # type: ignore[misc]
                lambda second=second: client.in_memory(second),  # type: ignore[misc]
                "the picture",
            )
        rejected = client.next_counters().rejected.get("step", 0)
        for fields in ({"data": PICTURE[:100]}, {"encoding": "jpeg"}, {"encoding": "32FC3"}, {"step": 10}):
            broken: dict[str, Any] = {"data": PICTURE, **fields}
            client.publish(next(seconds), **broken)
        client.wait_for(lambda: client.counters.rejected.get("step", 0) > rejected, "the pictures to be rejected")
        codes = ask_in_every_way(client)
        assert codes[:5] == [ErrorCode.INVALID_QUESTION] * 4 + [ErrorCode.TIMEOUT]
        client.wait_diagnostic("answers", "failed: INVALID_QUESTION", "4")
        client.wait_for(lambda: any("is rejected" in text for text in heard), "the log on /rosout")
        log = process.log
    assert "is rejected" in log
    told = "\n".join([log, *heard])
    assert [trace for trace in TRACES if trace in told] == []
