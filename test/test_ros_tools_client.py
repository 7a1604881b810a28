"""The public client over DDS: what it returns, what it raises, and whose node it talks through."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator

import pytest
from conftest import require_ros
from node_harness import PATIENCE_S, Client, StreamProcess, running_node

require_ros()
import rclpy
from builtin_interfaces.msg import Time
from rclpy.executors import SingleThreadedExecutor

from fvs_ros.ros_tools.client import FlashVStreamClient, RefusedError
from fvs_ros.stream.types import AskError, ErrorCode

NODE = "/robot1/stream_node"
# More than can be decoded within any test.
LONG = 1000


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StreamProcess, Client]]:
    """The node in a namespace, with frames in its memory."""
    folder = tmp_path_factory.mktemp("model")
    with running_node(
        folder, "-r", "__ns:=/robot1", "-r", "image:=/image", name=NODE, max_new_tokens_limit=LONG
    ) as running:
        yield running


@pytest.fixture
def domain(running: tuple[StreamProcess, Client]) -> int:
    """The domain of a node with two grid steps in memory."""
    camera = running[1]
    camera.pause(False)
    camera.reset()
    camera.wait_for_memory(lambda memory: memory.steps == 0)
    camera.feed(1, 2, 3, 4)
    return camera.ros_node.context.get_domain_id()


@pytest.fixture
def client(domain: int) -> Iterator[FlashVStreamClient]:
    with FlashVStreamClient(NODE, domain=domain) as client:
        yield client


def test_asking_returns_the_response(client: FlashVStreamClient) -> None:
    client.wait_until_active(PATIENCE_S)
    response = client.ask("What do you see?", max_new_tokens=4, fresh=True)
    assert response.success
    assert response.answer
    assert (response.memory_steps, response.memory_end.sec) == (2, 4)


def test_asking_about_a_range_is_answered_from_it_alone(client: FlashVStreamClient, domain: int) -> None:
    with Client(domain, NODE) as camera:
        camera.feed(*range(11, 17))
        whole = client.ask("What?", max_new_tokens=2, fresh=True)
        assert whole.memory_steps == 5
        for ask in (client.ask, lambda *of, **more: client.ask_stream(*of, **more).result()):
            part = ask("What?", max_new_tokens=2, since=Time(sec=12), until=Time(sec=14))
            assert part.answer
            assert (part.memory_start.sec, part.memory_end.sec, part.memory_version) == (12, 14, 0)
            assert 1 <= part.memory_steps < 5
            assert {moment.stamp.sec for moment in part.moments} <= {12, 13, 14}
    # Not the node's own reason for an empty memory, as it has one.
    with pytest.raises(AskError, match=r"nothing was seen between 100\.000 s and now") as caught:
        client.ask("What?", since=Time(sec=100))
    assert caught.value.code == ErrorCode.NO_FRAMES
    with pytest.raises(AskError, match="after until"):
        client.ask("What?", since=Time(sec=9), until=Time(sec=8))


def test_a_timeout_in_whole_seconds_is_taken(client: FlashVStreamClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interfaces that were built with assertions abort the process on an int in a float field; here they raise."""
    for name in ("fvs_ros.srv._ask", "fvs_ros.action._ask"):
        monkeypatch.setattr(importlib.import_module(name), "ros_python_check_fields", "1")
    assert client.ask("What?", max_new_tokens=4, timeout_s=30).success
    assert client.ask_stream("What?", max_new_tokens=4, timeout_s=30).result().success


def test_a_question_without_an_answer_raises_its_code_and_what_to_do(client: FlashVStreamClient) -> None:
    with pytest.raises(AskError, match="the question is empty") as caught:
        client.ask("")
    assert caught.value.code == ErrorCode.INVALID_QUESTION
    with pytest.raises(AskError, match=r"no answer within 0\.3 s") as caught:
        client.ask("What?", max_new_tokens=LONG, timeout_s=0.3)
    assert caught.value.code == ErrorCode.TIMEOUT
    with pytest.raises(AskError) as caught:
        client.ask_stream("").result()
    assert caught.value.code == ErrorCode.INVALID_QUESTION


def test_streaming_tells_every_token_before_it_returns_the_result(client: FlashVStreamClient) -> None:
    told: list[str] = []
    stream = client.ask_stream("What happened?", told.append, max_new_tokens=30)
    result = stream.result()
    assert "".join(told) == result.answer
    assert told == stream.tokens
    assert stream.done()
    assert not stream.cancel(), "it has ended"


def test_tokens_come_one_by_one_while_the_answer_goes_on(client: FlashVStreamClient) -> None:
    stream = client.ask_stream("What happened?", max_new_tokens=LONG)
    client.wait_for(lambda: len(stream.tokens) > 5, "six tokens")
    assert not stream.done()
    stream.cancel()


def test_tokens_that_the_result_overtakes_are_told_with_it(client: FlashVStreamClient, domain: int) -> None:
    """The client does not spin until the answer is complete, so that its first look finds tokens and result at once."""
    told: list[str] = []
    with FlashVStreamClient(NODE, domain=domain) as other:
        before = other.next_statistics().answers
        stream = client.ask_stream("What happened?", told.append, max_new_tokens=30)
        deadline = time.monotonic() + PATIENCE_S
        while other.next_statistics().answers == before:
            assert time.monotonic() < deadline, "the answer was never complete"
    result = stream.result()
    assert "".join(told) == result.answer
    assert told == stream.tokens


def test_a_cancelled_stream_raises_cancelled(client: FlashVStreamClient) -> None:
    stream = client.ask_stream("What happened?", max_new_tokens=LONG)
    client.wait_for(lambda: stream.tokens, "a token")
    assert not stream.done()
    assert stream.cancel()
    with pytest.raises(AskError) as caught:
        stream.result()
    assert caught.value.code == ErrorCode.CANCELLED


def test_what_a_callback_raises_reaches_the_caller(client: FlashVStreamClient) -> None:
    def fails(token: str) -> None:
        raise LookupError(token)

    with pytest.raises(LookupError):
        client.ask_stream("What happened?", fails, max_new_tokens=4).result()


def test_the_newest_memory_is_at_hand_and_can_be_waited_for(client: FlashVStreamClient) -> None:
    memory = client.wait_for_memory()
    assert client.memory == memory
    assert (memory.steps, memory.end.sec) == (2, 4)
    with pytest.raises(TimeoutError, match=rf"waited 0\.1 s for a memory on {NODE}/memory"):
        client.wait_for_memory(lambda memory: memory.steps == 77, timeout_s=0.1)


def test_reset_forgets_and_pause_skips_images(
    client: FlashVStreamClient, running: tuple[StreamProcess, Client]
) -> None:
    before = client.wait_for_memory()
    client.reset()
    memory = client.wait_for_memory(lambda memory: memory.version > before.version)
    assert memory.steps == 0
    client.pause()
    camera = running[1]
    skipped = client.next_statistics().skipped
    camera.publish(10)
    client.wait_for(lambda: client.next_statistics().skipped > skipped, "the image to be skipped")
    client.pause(False)
    camera.feed(11)
    assert client.wait_for_memory(lambda memory: memory.steps > 0).start.sec == 11


def test_the_next_counters_are_none_that_waited_in_the_reader(client: FlashVStreamClient, domain: int) -> None:
    client.next_statistics()
    with FlashVStreamClient(NODE, domain=domain) as other:
        # Two come meanwhile, which the first client does not take.
        other.next_statistics()
        before = other.next_statistics().answers
        other.ask("What?", max_new_tokens=2)
        assert client.next_statistics().answers == before + 1


def test_a_node_that_is_not_there_is_waited_for_in_vain(domain: int) -> None:
    with FlashVStreamClient("/nobody/stream_node", domain=domain) as client:
        with pytest.raises(TimeoutError, match=r"waited 0\.1 s for /nobody/stream_node to be active; it is not there"):
            client.wait_until_active(0.1)
        assert client.memory is None


def test_a_node_that_is_not_configured_refuses_commands(domain: int, running: tuple[StreamProcess, Client]) -> None:
    camera = running[1]
    for label in ("deactivate", "cleanup"):
        assert camera.change_state(label)
    try:
        with FlashVStreamClient(NODE, domain=domain) as client:
            for command in (client.reset, client.pause):
                with pytest.raises(RefusedError, match="it is unconfigured; ros2 lifecycle set"):
                    command()
            with pytest.raises(AskError) as caught:
                client.ask("What?")
            assert caught.value.code == ErrorCode.NOT_ACTIVE
            with pytest.raises(TimeoutError, match="to be active; it is unconfigured"):
                client.wait_until_active(0.5)
    finally:
        for label in ("configure", "activate"):
            assert camera.change_state(label)


def test_it_talks_through_a_given_node_and_leaves_it_as_it_was(domain: int) -> None:
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    node = rclpy.create_node("mine", context=context)
    try:
        with FlashVStreamClient(NODE, ros_node=node) as client:
            assert client.ask("What?", max_new_tokens=2).success
            with pytest.raises(ValueError, match="/mine is in an executor already"):
                FlashVStreamClient(NODE, ros_node=node)
        executor = SingleThreadedExecutor(context=context)
        assert executor.add_node(node)
        executor.shutdown()
        assert [subscription.topic for subscription in node.subscriptions] == []
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


def test_what_on_wait_raises_ends_the_wait(domain: int) -> None:
    def gone() -> None:
        raise RuntimeError("the camera has died")

    with (
        FlashVStreamClient(NODE, domain=domain, on_wait=gone) as client,
        pytest.raises(RuntimeError, match="the camera has died"),
    ):
        client.wait_for(lambda: False, "nothing")
