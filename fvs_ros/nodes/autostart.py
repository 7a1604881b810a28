"""A lifecycle node that configures and activates itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.timer import Timer

from fvs_ros.model.checkpoint_errors import HubError
from fvs_ros.nodes.model_loader import ModelLoader

if TYPE_CHECKING:
    from fvs_ros.nodes.stream_node import StreamNode


class Autostart:
    """Configures and activates a node, and tries again where the hub did not give the model.

    Anything else that fails once fails again, so it is left to people.
    """

    def __init__(self, node: StreamNode, loader: ModelLoader) -> None:
        self._node = node
        self._loader = loader
        self._retry_s = 0.0
        self._timer: Timer | None = None

    @property
    def pending(self) -> bool:
        """Whether another try is to come."""
        return self._timer is not None

    def begin(self, retry_s: float) -> None:
        """Starts on the node's executor; `retry_s` lies between a failure and the next try, 0 for no other try."""
        self._retry_s = retry_s
        self._begin()

    def cancel(self) -> None:
        """Gives up the try that is to come."""
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
            self._timer = None

    def _begin(self) -> None:
        self.cancel()
        # A task of its own: a timer's callback that awaits the model would hold up the others of its group.
        self._node.executor.create_task(self._start)

    async def _start(self) -> None:
        error = await self._loader.load_ahead(self._node.executor)
        if self._node.state != "unconfigured":
            # Somebody else's transition came first.
            return
        if self._node.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self._node.trigger_activate()
        elif isinstance(error, HubError) and self._retry_s:
            self._node.get_logger().info(f"Loading the model again in {self._retry_s:g} s")
            steady = Clock(clock_type=ClockType.STEADY_TIME)
            self._timer = self._node.create_timer(self._retry_s, self._begin, clock=steady)
