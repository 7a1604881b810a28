"""The doors for questions in this process, on a fake model, so that a test can hold them at any moment."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from conftest import require_ros, ros_domain
from engines import MakeEngine, feed
from fakes import PATIENCE_S, FakeModel, Gate, frame

require_ros()
import rclpy
from rclpy.executors import Executor, MultiThreadedExecutor, SingleThreadedExecutor

from fvs_ros.nodes.ask_server import AskServer
from fvs_ros.ros_tools.client import FlashVStreamClient
from fvs_ros.stream.engine import StreamEngine
from fvs_ros.stream.types import AskError, AskOptions, ErrorCode


@contextmanager
def ask_server(
    engine: Callable[[], StreamEngine], make_executor: Callable[..., Executor] = SingleThreadedExecutor
) -> Iterator[FlashVStreamClient]:
    """An ask server on a node without timers, which nothing but questions wakes; and a client."""

    def options(request: Any) -> AskOptions:
        return AskOptions(timeout_s=PATIENCE_S)

    with ros_domain() as domain:
        context = rclpy.Context()
        rclpy.init(context=context, domain_id=domain)
        node = rclpy.create_node("doors", context=context)
        executor = make_executor(context=context)
        executor.add_node(node)
        server = AskServer(node, engine, options)
        thread = threading.Thread(target=executor.spin)
        thread.start()
        try:
            with FlashVStreamClient(domain=domain) as client:
                yield client
        finally:
            executor.shutdown()
            thread.join(PATIENCE_S)
            server.close()
            node.destroy_node()
            rclpy.shutdown(context=context)


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
