"""Replies at a pace that clients keep up with."""

from __future__ import annotations

from collections import deque

from rclpy.callback_groups import CallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.task import Future

from fvs_ros.nodes.qos import QUESTION_DEPTH

# What a client with the default QoS of services holds is 10 replies, and on Fast DDS those to other clients count.
BURST = 8
# Between two replies after a burst: 200 a second.
PERIOD_S = 0.005
# Replies that wait for their turn. Who asks so much faster than replies may go gets the rest of them at once.
MOST_WAITING = QUESTION_DEPTH


class ReplyPacer:
    """Lets `BURST` replies go at once, and one every `PERIOD_S` after them. Used on the executor's thread.

    Sent together, 86 refusals left 84 of 200 questions without a reply in 20 clients with the default QoS.
    """

    def __init__(self, node: Node, group: CallbackGroup) -> None:
        self._node = node
        self._free = BURST
        self._waiting: deque[Future] = deque()
        # Steady: with use_sim_time and no /clock, replies must still go.
        self._timer = node.create_timer(PERIOD_S, self._tick, group, Clock(clock_type=ClockType.STEADY_TIME))
        self._timer.cancel()

    @property
    def full(self) -> bool:
        """Whether as many replies wait as may."""
        return len(self._waiting) >= MOST_WAITING

    async def turn(self) -> None:
        """Returns when the next reply may go."""
        if self.full:
            return
        if self._timer.is_canceled():
            self._timer.reset()
        if self._free > 0 and not self._waiting:
            self._free -= 1
            return
        mine = Future(executor=self._node.executor)
        self._waiting.append(mine)
        await mine

    def _tick(self) -> None:
        if self._waiting:
            self._waiting.popleft().set_result(None)
        else:
            self._free += 1
        if self._free == BURST:
            self._timer.cancel()
