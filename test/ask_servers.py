"""An ask server in the test's own process, on an engine of the test's choice, and a client of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import rclpy
from conftest import ros_domain
from fakes import PATIENCE_S
from rclpy.executors import Executor, SingleThreadedExecutor

from fvs_ros.nodes.answer_topics import AnswerTopics
from fvs_ros.nodes.ask_server import AskServer
from fvs_ros.ros_tools.client import FlashVStreamClient
from fvs_ros.stream.engine import StreamEngine
from fvs_ros.stream.types import AskOptions


@contextmanager
def ask_server(
    engine: Callable[[], StreamEngine],
    make_executor: Callable[..., Executor] = SingleThreadedExecutor,
    options: Callable[[Any], AskOptions] = lambda request: AskOptions(timeout_s=PATIENCE_S),
    places: bool = False,
) -> Iterator[FlashVStreamClient]:
    """An ask server on a node without timers, which nothing but questions wakes; and a client.

    With `places` the node also tells where what an answer rests on was seen.
    """
    with ros_domain() as domain:
        context = rclpy.Context()
        rclpy.init(context=context, domain_id=domain)
        node = rclpy.create_node("stream_node", context=context)
        executor = make_executor(context=context)
        executor.add_node(node)
        show = AnswerTopics(node, lambda: False).show if places else lambda _: None
        server = AskServer(node, engine, options, on_answer=show)
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
