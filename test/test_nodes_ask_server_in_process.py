"""The doors for questions in this process, on a fake model, so that a test can hold them at any moment."""

from __future__ import annotations

import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from conftest import require_ros, ros_domain
from engines import MakeEngine, feed
from fakes import PATIENCE_S, FakeModel, Gate, frame

require_ros()
import rclpy
from ask_servers import ask_server
from fvs_ros.action import Ask as AskAction
from fvs_ros.srv import Ask
from rclpy.action import ActionClient
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.node import Node

from fvs_ros.nodes import reply_pacer
from fvs_ros.nodes.qos import question_qos
from fvs_ros.ros_tools.client import FlashVStreamClient, RefusedError
from fvs_ros.stream.engine import StreamEngine
from fvs_ros.stream.types import AskError, ErrorCode


@pytest.mark.parametrize("streamed", [False, True], ids=["service", "action"])
def test_an_answer_is_sent_as_soon_as_it_is_there(make_engine: MakeEngine, model: FakeModel, streamed: bool) -> None:
    """Not only when the next message or timer happens to wake the executor: here none ever does."""
    engine = make_engine()
    feed(engine, frame(1))
    with ask_server(lambda: engine) as client:

        def answer_once_asked() -> None:
            model.answering.wait_reached()
            model.answering.open()

        # Often: the executor must have gone to sleep before the answer is there, which is likely, not certain.
        for _ in range(20):
            model.answering.shut()
            threading.Thread(target=answer_once_asked).start()
            if streamed:
                answer = client.ask_stream("What?", timeout_s=PATIENCE_S).result().answer
            else:
                answer = client.ask("What?", timeout_s=PATIENCE_S).answer
            assert answer == "1 steps: 1"


def test_a_cancel_between_the_goals_acceptance_and_its_start_is_kept(make_engine: MakeEngine, model: FakeModel) -> None:
    engine = make_engine()
    feed(engine, frame(1))
    start = Gate()

    def held() -> StreamEngine:
        start.go_through()
        return engine

    # More than one thread: the cancel must be taken in while the goal's start is held.
    with ask_server(held, MultiThreadedExecutor) as client:
        start.shut()
        model.answering.shut()
        stream = client.ask_stream("What?", timeout_s=PATIENCE_S)
        start.wait_reached()
        assert stream.cancel()
        start.open()
        with pytest.raises(AskError) as caught:
            stream.result()
        assert caught.value.code == ErrorCode.CANCELLED


@contextmanager
def client_nodes(count: int, client: FlashVStreamClient) -> Iterator[list[Node]]:
    """Nodes in the client's domain, spun by a thread of their own."""
    context = client.ros_node.context
    executor = SingleThreadedExecutor(context=context)
    nodes = [rclpy.create_node(f"asks_{index}", context=context) for index in range(count)]
    for node in nodes:
        executor.add_node(node)
    thread = threading.Thread(target=executor.spin)
    thread.start()
    try:
        yield nodes
    finally:
        executor.shutdown()
        thread.join(PATIENCE_S)
        for node in nodes:
            node.destroy_node()


@pytest.mark.parametrize("streamed", [False, True], ids=["service", "action"])
def test_200_questions_of_20_clients_at_once_each_get_their_reply(
    make_engine: MakeEngine, model: FakeModel, streamed: bool
) -> None:
    """Up to 4 are being answered and 100 wait while the others are refused."""
    engine = make_engine(parallel_questions=4, question_queue=100)
    feed(engine, frame(1))
    model.answering.shut()
    with ask_server(lambda: engine) as client, client_nodes(20, client) as nodes:
        if streamed:
            qos = dict.fromkeys(("goal_service_qos_profile", "result_service_qos_profile"), question_qos())
            actions = [ActionClient(node, AskAction, "ask_stream", **qos) for node in nodes]
            client.wait_for(lambda: all(action.server_is_ready() for action in actions), "the action")
            goals = [action.send_goal_async(AskAction.Goal(question="What?")) for _ in range(10) for action in actions]
            client.wait_for(lambda: all(goal.done() for goal in goals), "200 goals to be accepted")
            futures = [goal.result().get_result_async() for goal in goals]
        else:
            services = [node.create_client(Ask, "ask", qos_profile=question_qos()) for node in nodes]
            client.wait_for(lambda: all(service.service_is_ready() for service in services), "the service")
            futures = [service.call_async(Ask.Request(question="What?")) for _ in range(10) for service in services]
        # The first is held in its first token, and the refused ones are told at once.
        model.answering.wait_reached()
        client.wait_for(lambda: engine.statistics.questions == 200, "200 questions to arrive")
        client.wait_for(lambda: sum(future.done() for future in futures) >= 96, "the refusals")
        model.answering.open()
        client.wait_for(lambda: all(future.done() for future in futures), "200 replies")
        replies = [future.result().result if streamed else future.result() for future in futures]
        answered = [reply for reply in replies if reply.success]
        assert {reply.answer for reply in answered} == {"1 steps: 1"}
        refused = [reply for reply in replies if not reply.success]
        assert {reply.error_code for reply in refused} == {Ask.Response.BUSY}
        assert "100 questions wait already" in refused[0].error_message
        # One may be answered, or be taken out of the queue, before the last comes.
        assert len(refused) in range(96, 100)


def test_40_questions_of_one_client_with_the_default_qos_each_get_their_reply(
    make_engine: MakeEngine, model: FakeModel
) -> None:
    """Its reader holds 10 replies: refusals that were all sent at once would push each other out."""
    engine = make_engine(parallel_questions=1, question_queue=4)
    feed(engine, frame(1))
    model.answering.shut()
    with ask_server(lambda: engine) as client, client_nodes(1, client) as (node,):
        service = node.create_client(Ask, "ask")
        client.wait_for(service.service_is_ready, "the service")
        futures = [service.call_async(Ask.Request(question="What?")) for _ in range(40)]
        client.wait_for(lambda: sum(future.done() for future in futures) >= 35, "35 refusals")
        model.answering.open()
        client.wait_for(lambda: all(future.done() for future in futures), "40 replies")
        # The fifth may come before the first is taken out of the queue.
        assert sum(future.result().success for future in futures) in (4, 5)


def test_beyond_the_pace_goals_are_rejected_and_questions_answered_at_once(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else who asks without a pause fills the memory with replies that wait, and with results that are kept."""
    monkeypatch.setattr(reply_pacer, "MOST_WAITING", 0)
    engine = make_engine()
    feed(engine, frame(1))
    with ask_server(lambda: engine) as client:
        with pytest.raises(RefusedError):
            client.ask_stream("What?")
        assert client.ask("What?", timeout_s=PATIENCE_S).success


def test_a_bounded_number_of_replies_wait_for_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reply_pacer, "MOST_WAITING", 20)
    with ros_domain() as domain:
        context = rclpy.Context()
        rclpy.init(context=context, domain_id=domain)
        node = rclpy.create_node("paces", context=context)
        pacer = reply_pacer.ReplyPacer(node, ReentrantCallbackGroup())
        waiting = [turn for turn in (pacer.turn() for _ in range(100)) if not ended(turn)]
        assert len(waiting) == 20
        assert pacer.full
        for turn in waiting:
            turn.close()
        node.destroy_node()
        rclpy.shutdown(context=context)


def ended(turn: Coroutine[Any, Any, None]) -> bool:
    try:
        turn.send(None)
    except StopIteration:
        return True
    return False
