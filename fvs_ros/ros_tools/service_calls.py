"""Calls to one node's services whose responses arrive."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rcl_interfaces.srv import GetParameters
from rclpy.node import Node

from fvs_ros.nodes.qos import question_qos

# A node that was silent for this long may be another process by now; starting one takes longer.
_SILENT_S = 1.0
# A response that has not come by then is lost.
_LOST_S = 1.0
# What is done at once. Discovery takes seconds, on a busy machine tens of them.
_DISCOVERY_S = 60.0


class ServiceCalls:
    """Calls the services of one node after it has discovered this client.

    A service is offered as soon as the client has discovered the node. Where the node has not discovered the client's
    reader too within 100 ms of a request, rmw_fastrtps drops the response, and the client waits for ever (ros2/ros2
    issue 1253). So before the first call, and after a silence in which the node may have been started again, a request
    that changes nothing is repeated until its response comes. A node learns of a client's readers in the order in which
    they were made: with this one's, made last, it knows all others.

    Args:
        ros_node: talks to the node.
        node: full name of the node whose services are called.
        wait_for: spins `ros_node` until a condition is true: (condition, what is waited for, seconds). It raises
            TimeoutError.
    """

    def __init__(self, ros_node: Node, node: str, wait_for: Callable[[Callable[[], Any], str, float], Any]) -> None:
        self._ros_node = ros_node
        self._wait_for = wait_for
        self._clients: dict[str, Any] = {}
        self._known_as = f"{node}/get_parameters"
        self._known: Any = None
        self._heard = float("-inf")

    def offer(self, service_type: type, name: str) -> None:
        """Makes the client of a service, which only those made before the first call are safe with."""
        self._clients[name] = self._ros_node.create_client(service_type, name, qos_profile=question_qos())

    def hear(self) -> None:
        """Notes that something came from the node."""
        self._heard = time.monotonic()

    def call(self, service_type: type, name: str, request: Any, *, response_s: float = _DISCOVERY_S) -> Any:
        """Returns the response.

        Raises:
            TimeoutError: the service is not offered, or the node does not respond.
        """
        if name not in self._clients:
            self.offer(service_type, name)
        client = self._clients[name]
        discovery_s = min(response_s, _DISCOVERY_S)
        self._wait_for(client.service_is_ready, f"the service {name} to be offered", discovery_s)
        self.be_known(discovery_s)
        future = client.call_async(request)
        self._wait_for(future.done, f"a response of {name}", response_s)
        self.hear()
        return future.result()

    def be_known(self, timeout_s: float = _DISCOVERY_S) -> None:
        """Waits until the node has discovered all that this client has made.

        Raises:
            TimeoutError: it does not respond.
        """
        if time.monotonic() - self._heard < _SILENT_S:
            return
        if self._known is None:
            self._known = self._ros_node.create_client(GetParameters, self._known_as)
        deadline = time.monotonic() + timeout_s
        what = f"a response of {self._known_as}"
        self._wait_for(self._known.service_is_ready, f"the service {self._known_as} to be offered", timeout_s)
        while True:
            future = self._known.call_async(GetParameters.Request())
            try:
                self._wait_for(future.done, what, min(_LOST_S, max(0.0, deadline - time.monotonic())))
            except TimeoutError:
                self._known.remove_pending_request(future)
                if time.monotonic() > deadline:
                    raise TimeoutError(f"waited {timeout_s:g} s for {what}") from None
                continue
            self.hear()
            return

    def close(self) -> None:
        """Destroys the clients."""
        for client in (*self._clients.values(), *([self._known] if self._known else [])):
            self._ros_node.destroy_client(client)
