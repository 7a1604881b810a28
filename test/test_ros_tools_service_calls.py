"""Calls to a node that loses responses, as one does that has not discovered the client's readers yet."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from conftest import require_ros, ros_domain
from fakes import PATIENCE_S

require_ros()
import rclpy
from rcl_interfaces.srv import GetParameters
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import Trigger

from fvs_ros.ros_tools import service_calls
from fvs_ros.ros_tools.client import FlashVStreamClient

NODE = "/forgetful"


@dataclass
class Forgetful:
    """A node that answers a command, and loses the first responses to who makes himself known."""

    losing: int
    known: threading.Event = field(default_factory=threading.Event)
    early: int = 0

    def serve(self, node: Node) -> None:
        group = ReentrantCallbackGroup()
        node.create_service(GetParameters, "~/get_parameters", self._parameters, callback_group=group)
        node.create_service(Trigger, "~/reset", self._reset, callback_group=group)

    async def _parameters(self, _: Any, response: GetParameters.Response) -> GetParameters.Response:
        if self.losing:
            self.losing -= 1
            await Future()
        self.known.set()
        return response

    def _reset(self, _: Any, response: Trigger.Response) -> Trigger.Response:
        self.early += not self.known.is_set()
        response.success = True
        return response


@contextmanager
def forgetful(losing: int) -> Iterator[tuple[Forgetful, FlashVStreamClient]]:
    """The node, spun by a thread of its own, and a client of it."""
    with ros_domain() as domain:
        context = rclpy.Context()
        rclpy.init(context=context, domain_id=domain)
        node = rclpy.create_node(NODE[1:], context=context, start_parameter_services=False)
        served = Forgetful(losing)
        served.serve(node)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        thread = threading.Thread(target=executor.spin)
        thread.start()
        try:
            with FlashVStreamClient(NODE, domain=domain) as client:
                yield served, client
        finally:
            executor.shutdown()
            thread.join(PATIENCE_S)
            node.destroy_node()
            rclpy.shutdown(context=context)


def test_nothing_is_asked_of_a_node_until_its_responses_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_calls, "_LOST_S", 0.1)
    with forgetful(losing=2) as (node, client):
        client.reset()
        assert (node.losing, node.early) == (0, 0)


def test_a_node_that_was_silent_is_met_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be another process by now."""
    with forgetful(losing=0) as (node, client):
        client.reset()
        node.known.clear()
        monkeypatch.setattr(service_calls, "_SILENT_S", 0.0)
        client.reset()
        assert node.early == 0


def test_a_node_whose_responses_never_arrive_is_waited_for_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_calls, "_LOST_S", 0.1)
    monkeypatch.setattr(service_calls, "_DISCOVERY_S", 0.5)
    with forgetful(losing=1_000) as (node, client):
        with pytest.raises(TimeoutError, match=rf"of {NODE}/get_parameters"):
            client.reset()
        assert node.losing < 1_000
