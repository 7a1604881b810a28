"""The node's commands: reset and pause."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger

from fvs_ros.stream.engine import StreamEngine


class CommandServer:
    """Offers `~/reset` and `~/pause`, as long as the node exists.

    Args:
        node: gets the services.
        engine: the engine; None while the node is not configured.
        way_to_configure: why it is not, and what to do.
    """

    def __init__(
        self, node: Node, engine: Callable[[], StreamEngine | None], way_to_configure: Callable[[], str]
    ) -> None:
        self._node = node
        self._engine = engine
        self._way_to_configure = way_to_configure
        node.create_service(Trigger, "~/reset", self._on_reset)
        node.create_service(SetBool, "~/pause", self._on_pause)

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        engine = self._engine()
        response.success = engine is not None
        if engine is None:
            response.message = f"there is no memory to reset: {self._way_to_configure()}"
        else:
            engine.reset()
            response.message = "the memory is empty; the next image begins a new episode"
        return response

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        engine = self._engine()
        response.success = engine is not None
        if engine is None:
            response.message = f"there is no stream to pause: {self._way_to_configure()}"
        else:
            engine.pause(request.data)
            response.message = "images are skipped; the memory stays" if request.data else "images are taken in again"
        return response
